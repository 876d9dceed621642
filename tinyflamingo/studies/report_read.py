"""The JSON files that runs leave, as one thing to report on (chapter §5).

What is read, by the "format" of a file (folders are searched, not their subfolders):

- tinyflamingo-suite/1, one a seed: {"seed", "tasks": {name: {"paper": "COCO", "dev": bool, "metric",
  "shots": {"0": S, "4": S, ...}, "specialists": {"prototype": S, "linear": S, "finetuned": S, "whole":
  S}, "sanity": {"swapped": S, "shuffled": S, "no_pictures": S, "blind": S, "chance": S}, "retrieval":
  {"random": S, "rices": S, "ensemble": S, "shots": number}}},
  "few_shot_words": {"2way": {"1": S, ...}, "unseen_shapes": ..., ...}}, where S is {"score", "ci95", "n"};
- tinyflamingo-ablations/1 (`ablations.py`), tinyflamingo-isoflop/1 (`isoflop.py`),
  tinyflamingo-quadratic/1 (`quadratic.py`), tinyflamingo-induction/1 (`induction.py`),
  tinyflamingo-attention/1 (`attention.py`): the last one read of each;
- log.jsonl of a training run, for its gates.

Not here: what is made of them (`report.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import over_seeds
from tinyflamingo.training.state import LOG, read_log

FORMATS = {f"tinyflamingo-{name}/1": name for name in
           ("suite", "ablations", "isoflop", "quadratic", "induction", "attention")}  # fmt: skip
SHOTS = ("0", "4", "8", "16", "32")

# What a file must have: keys and the kinds of values. "*": every key there is; with "?" it may lack or be null.
NUMBER = (int, float)
CELL = {"score": NUMBER, "ci95?": [NUMBER]}
CELLS = {"*?": CELL}
RETRIEVAL = {"shots": int, "random?": CELL, "rices?": CELL, "ensemble?": CELL}
PARTS = {"shots": CELLS, "specialists?": CELLS, "sanity?": CELLS, "retrieval?": RETRIEVAL}
ROW = {"what": str, "paper": NUMBER, "against": str, "seeds": {"*": {"scores": {"overall": NUMBER, "*": NUMBER}}}}
FIT = dict.fromkeys(("budget", "parameters", "tokens", "loss"), NUMBER)
COSTS = {"ms": [NUMBER], "mb": [NUMBER], "accuracy": list}
CURVE = {"steps": [NUMBER], "repeat": [NUMBER], "few_shot": [NUMBER], "heads": [[NUMBER]]}
NEEDS = {
    "suite": {"seed": int, "tasks": {"*": {"paper": str, "dev": bool, "metric": str} | PARTS},
              "few_shot_words?": {"*": CELLS}},
    "ablations": {"settings": {"steps": int}, "rows": {"*": ROW}},
    "isoflop": {"points": [dict.fromkeys(("budget", "parameters", "loss"), NUMBER)],
                "fits?": [FIT | {"coefficients": [NUMBER], "between": [NUMBER], "inside": bool}],
                "exponents?": {"parameters": NUMBER, "tokens": NUMBER}},
    "quadratic": {"frames": [int], "kinds": {"perceiver": COSTS, "transformer": COSTS}},
    "induction": {"curves": {"*": CURVE}},
    "attention": {"prompts": [{"pictures": list, "tokens": [str], "sees": [int], "maps": list}]},
}  # fmt: skip


@dataclass
class Found:
    """What the files hold: suites by seed, other reports by name, logs."""

    suites: dict = field(default_factory=dict)
    others: dict = field(default_factory=dict)
    logs: list = field(default_factory=list)


def read_runs(runs) -> Found:
    """All reports in files and folders."""
    found = Found()
    for run in map(Path, runs):
        if not run.exists():
            raise UserError(f"{run}: no such file or folder")
        for path in sorted(run.glob("*.json")) if run.is_dir() else [run]:
            _take(found, path, asked=not run.is_dir())
        if (run / LOG).is_file():
            found.logs.append(_log(run))
    if not (found.suites or found.others or found.logs):
        raise UserError(
            f"no report in {', '.join(map(str, runs))}: run `python -m tinyflamingo ablate` or a training first"
        )
    return found


def _take(found, path, asked):
    """Add a file's report; others in a folder are passed over, a file that was asked for is not."""
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    form = raw.get("format") if isinstance(raw, dict) else None
    name = FORMATS.get(form) if isinstance(form, str) else None
    if name:
        _check(raw, NEEDS[name], str(path))
    if name == "suite":
        found.suites[raw["seed"]] = raw
    elif name:
        found.others[name] = raw
    elif asked:
        raise UserError(f"{path} holds no report: its format should be one of {', '.join(FORMATS)}")


def _check(value, need, where):
    """`UserError` that tells the place where a value, or one in it, is not what the sections read (`NEEDS`)."""
    if not isinstance(value, type(need) if isinstance(need, dict | list) else need):
        raise UserError(f"{where} is {str(value)[:40]!r}, which a report does not have there: make the file again")
    if isinstance(need, list):
        for i, element in enumerate(value):
            _check(element, need[0], f"{where}: {i}")
    for key, inner in need.items() if isinstance(need, dict) else ():
        name = key.rstrip("?")
        for k in value if name == "*" else [name]:
            if value.get(k) is not None:
                _check(value[k], inner, f"{where}: {k}")
            elif name == key:
                raise UserError(f"{where} has no {k!r}, which every report has there: make the file again")


def _log(run):
    """(name, records of stage three); a record without gates has nothing to tell here."""
    try:
        records = [record for record in read_log(run) if record["stage"] == "flamingo"]
        return run.name, [r for r in records if isinstance(r.get("gates"), dict) and "step" in r]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / LOG} is damaged ({error})") from error


def merged(cells):
    """{"score", "ci95", "n"} of the same cell of several suites: of one seed its own, of more over the seeds."""
    cells = [cell for cell in cells if cell]
    if len(cells) < 2:
        return cells[0] if cells else None
    return over_seeds([cell["score"] for cell in cells])


def cell_of(suites, *path):
    """A cell by the keys that lead to it in every suite, merged; None where no suite has it.

    An interval over seeds ends where the scale of the score does.
    """
    cell = merged([_at(suite, path) for suite in suites.values()])
    if not cell or not cell.get("ci95"):
        return cell
    low, high = cell["ci95"]
    return cell | {"ci95": [max(low, 0.0), min(high, best_of(suites, *path))]}


def best_of(suites, *path) -> float:
    """The highest score that a cell can have: CIDEr-D ends at 10, all others at 1 (swapped queries are counted)."""
    metrics = {_at(suite, (*path[:2], "metric")) for suite in suites.values()}
    return 10.0 if "CIDEr-D" in metrics and path[-1] != "swapped" else 1.0


def _at(suite, path):
    """What the keys lead to, or None."""
    for key in path:
        suite = suite.get(key) if isinstance(suite, dict) else None
    return suite


def task_names(suites):
    """Names of tasks in all suites, in their order."""
    return list(dict.fromkeys(name for suite in suites.values() for name in suite.get("tasks", {})))
