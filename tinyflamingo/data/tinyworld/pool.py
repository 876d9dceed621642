"""A pool of drawn pictures and videos. Documents take their media from it.

Serves the training stages and the tests of chapter §2 to §5: a picture is drawn and encoded once and used
many times. Pools for training, validation and testing have different seeds (`split_rng`).

Not here: the documents (`pages.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tinyflamingo.data.tinyworld.scenes import (
    KNOWN,
    SIDE,
    WILD_THINGS,
    WRITTEN,
    Clip,
    Kind,
    Scene,
    draw_clip,
    draw_scene,
    sample_clip,
    sample_count,
    sample_digit,
    sample_pair,
    sample_single,
    sample_sum,
    sample_uncoloured,
    sample_wild,
)

SPLITS = {"train": 1, "validation": 2, "test": 3}


def split_rng(split: str, *numbers: int) -> np.random.Generator:
    """A generator for a split. Two splits never have the same seed, for any numbers."""
    return np.random.default_rng([SPLITS[split], *numbers])


@dataclass(frozen=True)
class Medium:
    """A reference into a pool: kind "picture" or "clip", and its index."""

    kind: str
    index: int


@dataclass
class Pool:
    """Scenes and clips with their pixels.

    pictures: uint8 (n, side, side, 3) of `scenes`; videos: uint8 (m, F, side, side, 3) of `clips`.
    """

    scenes: list[Scene] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    pictures: np.ndarray | None = None
    videos: np.ndarray | None = None
    by_kind: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # "single" ... -> indices
    by_thing: dict[Kind, list[int]] = field(default_factory=lambda: defaultdict(list))  # pictures of one thing alone

    def what(self, medium: Medium) -> Any:
        """The `Scene` or `Clip` of a medium."""
        return self.scenes[medium.index] if medium.kind == "picture" else self.clips[medium.index]

    def any_picture(self, rng: np.random.Generator, kind: str | None = None) -> Medium:
        """A random picture of one kind of scene; None: of any kind."""
        indices = self.by_kind[kind] if kind else range(len(self.scenes))
        return Medium("picture", int(indices[int(rng.integers(len(indices)))]))

    def picture_of(self, rng: np.random.Generator, thing: Kind) -> Medium:
        """A random picture of one thing alone."""
        indices = self.by_thing[thing]
        return Medium("picture", indices[int(rng.integers(len(indices)))])

    def shown(self, things: Sequence[Kind]) -> list[Kind]:
        """The things that have pictures in which they are alone."""
        return [thing for thing in things if thing in self.by_thing]

    def any_clip(self, rng: np.random.Generator) -> Medium:
        """A random clip."""
        return Medium("clip", int(rng.integers(len(self.clips))))


Drawn = Callable[[np.random.Generator, Callable, list], np.ndarray]  # (rng, draw(rng, thing), things) -> pixels


def one_by_one(rng: np.random.Generator, draw: Callable, things: list) -> np.ndarray:
    """`draw(rng, thing)` of all things, stacked."""
    return np.stack([draw(rng, thing) for thing in things])


def make_pool(
    rng: np.random.Generator,
    singles: int = 0,
    pairs: int = 0,
    counts: int = 0,
    clips: int = 0,
    uncoloured: int = 0,
    wild: int = 0,
    digits: int = 0,
    sums: int = 0,
    side: int = SIDE,
    drawn: Drawn = one_by_one,
) -> Pool:
    """Sample and draw. Single things, wild things and digits go round all of their kind, so each has its pictures."""
    scenes = [sample_single(rng, (KNOWN[i % len(KNOWN)],)) for i in range(singles)]
    scenes += [sample_wild(rng, (WILD_THINGS[i % len(WILD_THINGS)],)) for i in range(wild)]
    scenes += [sample_digit(rng, (WRITTEN[i % len(WRITTEN)],)) for i in range(digits)]
    scenes += [sample_sum(rng) for _ in range(sums)]
    scenes += [sample_uncoloured(rng) for _ in range(uncoloured)]
    scenes += [sample_pair(rng) for _ in range(pairs)]
    scenes += [sample_count(rng) for _ in range(counts)]
    return draw_pool(rng, scenes, [sample_clip(rng) for _ in range(clips)], side, drawn)


def draw_pool(
    rng: np.random.Generator,
    scenes: Sequence[Scene],
    clips: Sequence[Clip] = (),
    side: int = SIDE,
    drawn: Drawn = one_by_one,
) -> Pool:
    """A pool of the given scenes and clips. drawn: how to draw many; training shares this work among its workers."""
    pool = scene_pool(scenes, clips)
    if pool.scenes:
        pool.pictures = drawn(rng, partial(draw_scene, side=side), pool.scenes)
    if pool.clips:
        pool.videos = drawn(rng, partial(draw_clip, side=side), pool.clips)
    return pool


def scene_pool(scenes: Sequence[Scene], clips: Sequence[Clip] = ()) -> Pool:
    """A pool without pixels, for texts."""
    pool = Pool(list(scenes), list(clips))
    for i, scene in enumerate(pool.scenes):
        uncoloured = scene.kind == "single" and not scene.things[0].colour
        pool.by_kind["uncoloured" if uncoloured else scene.kind].append(i)
        if scene.kind in ("single", "wild", "digit") and not uncoloured:
            pool.by_thing[scene.things[0].kind].append(i)
    return pool
