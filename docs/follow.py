"""Follow one prompt and one training step through the package: which files they enter, in which order.

    python docs/follow.py          # both, as tables
    python docs/follow.py prompt   # one of them

The tables list every file with a function that is called. Checkpoint, data and documents are made before the recording
starts. The operations run on the reference implementation; the last row has their files, because every part calls them.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
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


def called(work: Callable) -> dict[str, list[str]]:
    """{file below the package: names of its functions that `work()` calls}, both in the order of the first call."""
    calls: dict = {}

    def note(frame, event, _):
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if event == "call" and path.is_relative_to(PACKAGE) and not name.startswith("<"):
            calls.setdefault(path.relative_to(PACKAGE).as_posix(), {}).setdefault(name)

    work()  # first without recording, because the first call imports modules
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {file: list(names) for file, names in calls.items()}


def prompt() -> Callable:
    """The prompt: a picture and the text `Output:`, from the user's call to the answer."""
    model = tinyflamingo.load()
    vision = model.config.vision
    picture = load_picture(ROOT / "docs" / "examples" / "red_circle.png", vision.side, vision.preparation)
    return lambda: tinyflamingo.complete(model, [picture, "Output:"])


def step() -> Callable:
    """One step of stage three, from its packed documents to the updated parameters."""
    model, preset = tinyflamingo.load(), get_preset("toy")
    preset = dataclasses.replace(preset, flamingo=dataclasses.replace(preset.flamingo, **POOL))
    stage = FlamingoStage(preset, np.random.default_rng(0), model.tokenizer, model.frozen)
    shards = stage.shards(np.random.default_rng(1), stage.documents(np.random.default_rng(1)))

    def work():
        _, gradient = stage.losses_and_gradient(shards)
        stage.optimiser.step(gradient, 0, stage.steps)

    return work


PATHS = {"prompt": prompt, "step": step}


def table(name: str) -> str:
    """The calls of a path as a Markdown table: number, file, functions; the operations in the last row."""
    calls = called(PATHS[name]())
    files = {file: names for file, names in calls.items() if not file.startswith("ops/")}
    operations = [file for file in calls if file.startswith("ops/")]
    rows = [f"| {i} | `{file}` | {_list(names)} |" for i, (file, names) in enumerate(files.items(), start=1)]
    rows.append(f"| | {len(operations)} files of the operations | {_list(operations)} |")
    return "\n".join(["| | file | functions, in the order of their first call |", "|---|---|---|", *rows])


def _list(names) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", choices=list(PATHS))
    path = parser.parse_args().path
    for name in [path] if path else PATHS:
        print(f"{PATHS[name].__doc__}\n\n{table(name)}\n")
