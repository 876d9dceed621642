"""The interface between a stage of training and the loop (`run.py`), and the random numbers of a step.

Serves chapter §1. Not here: the three stages (`contrastive_stage.py`, `language_stage.py`, `flamingo_stage.py`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.ops.types import Params
from tinyflamingo.training.optimiser import AdamW


class Stage(Protocol):
    """Data, parameters and steps of one stage."""

    name: str
    steps: int
    optimiser: AdamW

    def prepare(self, rng: np.random.Generator) -> None:
        """Called once, before the first step, with the generator of that step."""

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """(gradient vector, {"loss": ..., other numbers for the log}) of one batch. It changes no parameter."""

    def result(self) -> Params:
        """The parameters that later stages or the finished model keep."""


def step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """The Generator of one step of a stage. Step -1 draws the stage's data and initial parameters.

    The user's seed comes last, so no seed, however large, gives the numbers of another split.
    """
    return split_rng("train", stage, step + 1, seed)
