"""Measures a training step of stages one and two of the preset `toy`, for the number of ranks that mpiexec starts.

    mpiexec -n 2 python docs/measure_ranks.py [docs/ranks.json]

Rank 0 prints the shortest of some steps (wall-clock time, and processor time of rank 0) and the time of one sum of the
gradient over all ranks. It adds them to the file, which keeps the results for other numbers of ranks.
`docs/make_tables.py` makes the table in scaling.md from that file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
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
from tinyflamingo.training.ranks import Alone, world  # noqa: E402
from tinyflamingo.training.stage import step_rng  # noqa: E402

STEPS = 8


def shortest(work: Callable) -> tuple[float, float]:
    """The shortest of some calls: (wall-clock seconds, processor seconds of this process)."""
    times = []
    for i in range(STEPS):
        world().wait()
        wall, own = time.perf_counter(), time.process_time()
        work(i)
        times.append((time.perf_counter() - wall, time.process_time() - own))
    wall_times, own_times = zip(*times, strict=True)
    return min(wall_times), min(own_times)


def measure(ranks: Alone) -> dict:
    """{stage: wall-clock and processor seconds of a step, seconds of a sum over all ranks, number of parameters}."""
    preset = get_preset("toy")
    preset = replace(preset, contrastive=replace(preset.contrastive, families=200))
    tokenizer = train_tokenizer(tokenizer_lines(np.random.default_rng(0)), preset.config.language.vocab_size)
    times = {}
    for index, kind in enumerate((ContrastiveStage, LanguageStage)):
        with one_team():
            stage = kind(preset, step_rng(0, index, -1), tokenizer, {})
            wall, own = shortest(lambda i, stage=stage, index=index: stage.gradient(step_rng(0, index, i), i))
            vector = np.zeros_like(stage.optimiser.vector)
            summing, _ = shortest(lambda i, vector=vector: ranks.allreduce(vector))
        times[kind.name] = {"wall": wall, "own": own, "sum": summing, "parameters": vector.size}
    return times


def main() -> None:
    ranks = world()
    keep_memory()
    times = measure(ranks)
    if ranks.rank == 0:
        print(json.dumps({ranks.size: times}, indent=1))
        if len(sys.argv) > 1:
            path = Path(sys.argv[1])
            kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            path.write_text(json.dumps(kept | {str(ranks.size): times}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
