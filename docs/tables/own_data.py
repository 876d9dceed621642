"""Regions of docs/own_data.md: the output of its commands, and the scores of runs of two sizes.

Not here: the runs (`docs/measure_own_data.py`).
"""

from __future__ import annotations

import re

from tables.common import ROOT, read, table

OWN_DATA = ROOT / "docs" / "own_data.json"
UNMEASURED = "Not measured yet with this version: `python docs/measure_own_data.py FOLDER` does it."


def own_check() -> str:
    """What `data check` printed."""
    return _own_console(" data check ")


def own_scores() -> str:
    """What `train` printed."""
    return _own_console(" train ")


def own_shots() -> str:
    """What `evaluate` printed."""
    return _own_console(" evaluate ")


def own_threshold() -> str:
    """What `calibrate` printed."""
    return _own_console(" calibrate ")


def own_answer() -> str:
    """What `complete` printed."""
    return _own_console(" complete ")


def own_sizes() -> str:
    """The scores of runs on 200 and on 2,000 pictures, and what TinyWorld's captions became."""
    rows = []
    for n, run in _own_data().get("sizes", {}).items():
        whole = [n, str(run["steps"]), f"{run['seconds'] / 60:.1f}"]
        for name, row in run["own"]["scores"].items():
            low, high = row["ci95"]
            numbers = [f"{row['score']:.2f} ({low:.2f} to {high:.2f})", f"{row['another']:.2f}"]
            rows.append([*whole, name, *numbers, f"{row['neighbours']:.2f}"])
        rows.append([*whole, "TinyWorld's captions, exact match", f"{run['tinyworld']['caption']:.2f}", "", ""])
    beside = ["own picture (95%)", "another's picture", "nearest by raw pixels"]
    head = ["pictures", "steps", "minutes of training", "score", *beside]
    return table(head, rows) if rows else UNMEASURED


def own_minutes() -> str:
    """How long `train` took."""
    times = re.findall(r" (\d+)[,;]", _own_output(" train "))
    minutes, cores = sum(map(int, times)) / 60, _own_data()["cores"]
    return f"{minutes:.0f} minutes on {cores} cores with other work" if times else "minutes"


def own_feature_size() -> str:
    """The size of the features of a picture."""
    return f"{_own_data()['feature_bytes'] / 1024:.1f} KB"


def _own_data() -> dict:
    return read(OWN_DATA)


def _own_output(command) -> str:
    """What the example's command with this word printed; "": it was not measured."""
    return next((output for line, output in _own_data()["outputs"].items() if command in line), "").strip()


def _own_console(command) -> str:
    """The same as a block, without the line that says where the files are."""
    output = re.sub(r"(?m)^checkpoint, log, figures .*", "", _own_output(command)).strip()
    return _console(output) if output else UNMEASURED


def _console(text) -> str:
    return f"```console\n{text}\n```"


REGIONS = (
    *(own_check, own_scores, own_shots, own_threshold, own_answer),
    *(own_sizes, own_minutes, own_feature_size),
)
