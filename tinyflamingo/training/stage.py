"""What a stage of training is for the loop around it (`run.py`), and the random numbers of a step.

Serves chapter §1. Not here: the three stages (`contrastive_stage.py`, `language_stage.py`, `flamingo_stage.py`).
"""

from __future__ import annotations

from typing import Protocol

from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.training.optimiser import AdamW


class Stage(Protocol):
    """Data, parameters and steps of one stage."""

    name: str
    steps: int
    optimiser: AdamW

    def prepare(self, rng) -> None:
        """Called once, before the first step, with the generator of that step."""

    def gradient(self, rng, step):
        """(gradient vector, {"loss": ..., what else to log}) of one batch. Parameters are only read."""

    def result(self) -> dict:
        """What later stages, or the finished model, keep."""


def step_rng(seed, stage, step):
    """The Generator of one step of a stage; step -1: of the stage's data and first parameters.

    The user's seed comes last: however large it is, it cannot turn this into a stream of another split.
    """
    return split_rng("train", stage, step + 1, seed)
