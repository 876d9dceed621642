"""Follow one prompt and one training step through the package: which files they enter, in which order.

    python docs/follow.py          # both, as tables
    python docs/follow.py prompt   # one of them

A file counts when one of its functions is called. What is loaded once (checkpoint, data, compiled loops) is made
beforehand. The model runs on the readable floor of the operations, `ops/reference.py`.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

os.environ["TINYFLAMINGO_OPS"] = "reference"
os.environ["TINYFLAMINGO_THREADS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import dataclasses  # noqa: E402

import numpy as np  # noqa: E402

import tinyflamingo  # noqa: E402
from tinyflamingo.data.images import load_picture  # noqa: E402
from tinyflamingo.training.flamingo_stage import FlamingoStage  # noqa: E402
from tinyflamingo.training.presets import get_preset  # noqa: E402

PACKAGE = ROOT / "tinyflamingo"
POOL = {"singles": 96, "uncoloured": 12, "pairs": 12, "counts": 12, "clips": 6, "wild": 384, "digits": 80, "sums": 12}


def entered(work) -> dict:
    """{file below the package: names of its functions that `work()` calls}, both in the order of the first call."""
    calls: dict = {}

    def note(frame, event, _):
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if event == "call" and path.is_relative_to(PACKAGE) and not name.startswith("<"):
            calls.setdefault(path.relative_to(PACKAGE).as_posix(), {}).setdefault(name)

    work()  # once beforehand, so that no module is loaded on the way
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {file: list(names) for file, names in calls.items()}


def prompt():
    """A picture, two words, and the answer: what a user calls."""
    model = tinyflamingo.load()
    picture = load_picture(ROOT / "docs" / "examples" / "red_circle.png", model.config.vision.side)
    return lambda: tinyflamingo.complete(model, [picture, "Output:"])


def step():
    """One step of stage three: from its documents to the updated parameters."""
    model, preset = tinyflamingo.load(), get_preset("toy")
    preset = dataclasses.replace(preset, flamingo=dataclasses.replace(preset.flamingo, **POOL))
    stage = FlamingoStage(preset, np.random.default_rng(0), model.tokenizer, model.frozen)
    shards = stage.shards(np.random.default_rng(1), stage.documents(np.random.default_rng(1)))

    def work():
        _, gradient = stage.losses_and_gradient(shards)
        stage.optimiser.step(gradient, 0, stage.steps)

    return work


JOURNEYS = {"prompt": prompt, "step": step}


def table(name) -> str:
    """A journey as a Markdown table: number, file, functions."""
    rows = [f"| {i} | `{file}` | {', '.join(f'`{n}`' for n in names)} |"
            for i, (file, names) in enumerate(entered(JOURNEYS[name]()).items(), start=1)]  # fmt: skip
    return "\n".join(["| | file | functions, in the order of their first call |", "|---|---|---|", *rows])


if __name__ == "__main__":
    for journey in sys.argv[1:] or JOURNEYS:
        print(f"{JOURNEYS[journey].__doc__}\n\n{table(journey)}\n")
