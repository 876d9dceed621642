"""Measures a training step of each stage of the preset `toy`: one worker, several threads, as many processes.

    python docs/measure_workers.py [--workers N] [docs/workers.json]

A step is what `train` does: draw the data, gradient, sum over the workers, AdamW. The three kinds take turns, in blocks
of steps, because the speed of a machine changes. Prints the median times in seconds and writes them to the file, from
which `docs/make_tables.py` makes the table in scaling.md. Nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tinyflamingo  # noqa: E402
from tinyflamingo import ops  # noqa: E402
from tinyflamingo.ops.team import keep_memory, one_team  # noqa: E402
from tinyflamingo.training.presets import Preset, get_preset  # noqa: E402
from tinyflamingo.training.processes import on_workers  # noqa: E402
from tinyflamingo.training.ranks import world  # noqa: E402
from tinyflamingo.training.run import STAGES  # noqa: E402
from tinyflamingo.training.stage import step_rng  # noqa: E402

STEPS, WARM_UP, TURNS = 24, 4, 3
FIRST = (100, 900, 100)  # the first measured step of each stage: in stage two all kinds of documents occur from 750 on


def small(preset: Preset) -> Preset:
    """The preset with small pools: their size does not change a step."""
    pool = dict.fromkeys(("singles", "uncoloured", "pairs", "counts", "clips", "digits", "sums"), 400)
    return replace(
        preset,
        contrastive=replace(preset.contrastive, families=400),
        flamingo=replace(preset.flamingo, wild=768, **pool),
    )


def steps(index: int, preset: Preset) -> tuple[list[float], float, int]:
    """(seconds of each step, seconds of one sum of the gradient, number of parameters) of one stage, on all ranks."""
    model = tinyflamingo.load()
    with one_team():
        stage = STAGES[index](preset, step_rng(0, index, -1), model.tokenizer, model.frozen)
        stage.prepare(step_rng(0, index, 0))

        def step(i):
            stage.optimiser.step(stage.gradient(step_rng(0, index, i), i)[0], i, stage.steps)

        times = [_seconds(lambda i=i: step(FIRST[index] + i)) for i in range(WARM_UP + STEPS)]
        vector = np.zeros_like(stage.optimiser.vector)
        sums = [_seconds(lambda: world().allreduce(vector)) for _ in range(STEPS)]
    return times[WARM_UP:], float(np.median(sums)), vector.size


def _seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(n: int) -> dict:
    """{stage: {kind: mean seconds of a step, "sum": seconds, "parameters": number}}; the best of the turns."""
    keep_memory()
    preset, results = small(get_preset("toy")), {}
    for index, stage in enumerate(STAGES):
        kinds = {"one": (1, on_workers), "threads": (n, _here), "processes": (n, on_workers)}
        means: dict = {kind: [] for kind in kinds}
        for _ in range(TURNS):
            for kind, (workers, run) in kinds.items():
                with ops.use_workers(workers):
                    times, summing, parameters = run(steps, index, preset)
                means[kind].append(float(np.mean(times)))
        results[stage.name] = {kind: min(times) for kind, times in means.items()}
        results[stage.name] |= {"sum": summing, "parameters": parameters}
    return results


def _here(function, *arguments):
    return function(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("file", nargs="?", type=Path)
    args = parser.parse_args()
    text = json.dumps({"workers": args.workers, "stages": measure(args.workers)}, indent=1)
    print(text)
    if args.file:
        args.file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
