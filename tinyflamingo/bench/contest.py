"""What a line of the benchmark consists of: a `Line`, the `Contest` that it builds, the `Inputs` that lines share.

Implements no section of the chapter. Not here: the lines (`lines.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import tinyflamingo
from tinyflamingo.bench import clock
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.ops.types import Array
from tinyflamingo.training.flamingo_stage import Media, draw_media, make_media
from tinyflamingo.training.optimiser import AdamW
from tinyflamingo.training.presets import get_preset


class NotRun(Exception):
    """A line cannot run on this machine; the message is the reason."""


@dataclasses.dataclass
class Contest:
    """Two functions without arguments, and one that compares their results."""

    ours: Callable
    other: Callable | None = None
    difference: Callable | None = None  # () -> the largest absolute difference


@dataclasses.dataclass
class Step:
    """A training step on a batch that is ready: loss, gradient, clipping, update. Both sides read it."""

    optimiser: AdamW
    gradient_of: Callable[[], tuple[float, Array]]  # our loss and gradient vector
    clip: Callable[[Array], Any]  # further clipping of our gradient, in place
    loss: str  # name of the loss function of the twins
    batch: dict[str, Any]  # its argument, see `batches.py`
    config: Any  # its last argument
    no_decay: tuple[str, ...] = ()  # parameters without weight decay: prefixes of their names


def _other_over_ours(ours, other):
    return other / ours if other else None


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table. `ratio(ours, other)` is computed from two medians; `wanted` and `on_two` are
    goals, for the table."""

    what: str
    wanted: str
    build: Callable[[Inputs], Contest]
    ratio: Callable = _other_over_ours
    against_torch: bool = True
    tolerance: float = 1e-3
    rounds: tuple[int, int] = clock.ROUNDS
    minutes: float = 0.0  # of compilation by PyTorch before the times are measured
    on_two: str = ""  # what is wanted with two threads, if it is different
    processes: bool = False  # our side uses processes, as `train` does, instead of threads

    def wanted_with(self, threads: int) -> str:
        """What is wanted with a number of threads."""
        return self.on_two or self.wanted if threads > 1 else self.wanted


class Inputs:
    """Inputs that several lines use, made once: the shipped model and small pools of pictures."""

    def __init__(self, with_torch: bool) -> None:
        self.model = tinyflamingo.load()
        self.torch: Any = None  # the functions of PyTorch, if it is installed
        if with_torch:
            from tinyflamingo.bench import torch_sides

            self.torch = torch_sides
        toy = get_preset("toy")
        self.preset = dataclasses.replace(
            toy,
            contrastive=dataclasses.replace(toy.contrastive, families=toy.contrastive.batch),
            flamingo=dataclasses.replace(
                toy.flamingo, singles=200, uncoloured=40, pairs=200, counts=60, clips=60, feature_noise=0.0
            ),
        )

    @functools.cached_property
    def media(self) -> Media:
        """Pictures and videos of stage three, with their features."""
        recipe, config = self.preset.flamingo, self.preset.config
        return make_media(draw_media(self.rng(), recipe, config.vision.side), recipe, self.model.frozen, config)

    def rng(self) -> np.random.Generator:
        """Always the same stream, which no other split uses."""
        return split_rng("validation", 77)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Standard normal numbers in float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def largest(ours: Iterable, other: Iterable) -> float:
    """Largest absolute difference between two lists of arrays."""
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in zip(ours, other, strict=True))
