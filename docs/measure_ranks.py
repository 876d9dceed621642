"""Times a training step of stages one and two of the preset `toy`, in as many ranks as it is started in.

    mpiexec -n 2 python docs/measure_ranks.py

Rank 0 prints the shortest of some steps, on the wall and in this rank's own processor time, and what one
sum of the gradient over all ranks costs. docs/scaling.md shows what came out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tinyflamingo.data.tinyworld.text import tokenizer_lines  # noqa: E402
from tinyflamingo.model.tokenizer import train_tokenizer  # noqa: E402
from tinyflamingo.ops.team import keep_memory, one_team  # noqa: E402
from tinyflamingo.training.contrastive_stage import ContrastiveStage  # noqa: E402
from tinyflamingo.training.language_stage import LanguageStage  # noqa: E402
from tinyflamingo.training.presets import get_preset  # noqa: E402
from tinyflamingo.training.ranks import world  # noqa: E402
from tinyflamingo.training.run import step_rng  # noqa: E402

STEPS = 8


def shortest(work):
    """The shortest of some calls: (seconds on the wall, seconds of this process)."""
    found = []
    for i in range(STEPS):
        world().wait()
        wall, own = time.perf_counter(), time.process_time()
        work(i)
        found.append((time.perf_counter() - wall, time.process_time() - own))
    return tuple(min(column) for column in zip(*found, strict=True))


def main():
    us = world()
    keep_memory()
    preset = get_preset("toy")
    preset = replace(preset, contrastive=replace(preset.contrastive, families=200))
    tokenizer = train_tokenizer(tokenizer_lines(np.random.default_rng(0)), preset.config.language.vocab_size)
    for index, kind in enumerate((ContrastiveStage, LanguageStage)):
        with one_team():
            stage = kind(preset, step_rng(0, index, -1), tokenizer, {})
            wall, own = shortest(lambda i, stage=stage, index=index: stage.gradient(step_rng(0, index, i), i))
            vector = np.zeros_like(stage.optimiser.vector)
            summing, _ = shortest(lambda i, vector=vector: us.allreduce(vector))
        if us.rank == 0:
            print(f"{us.size} ranks, {kind.name}: {wall:.3f} s a step, {own:.3f} s of it at work, sum {summing:.4f} s")


if __name__ == "__main__":
    main()
