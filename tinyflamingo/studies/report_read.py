"""Reads the JSON files and logs of runs, on which a report is written (chapter §5).

Folders are searched, but not their subfolders. The "format" of a file says what it holds:

- tinyflamingo-suite/1, one for each seed; those of the preset `no-tasks` are kept apart. S is {"score", "ci95", "n"}:

    {"seed", "preset", "tasks": {name: TASK}, "few_shot_words": {"2way": {"1": S, ...}, "unseen_shapes": ..., ...}}
    TASK: {"paper": "COCO", "dev": bool, "metric", "level", "shots": {"0": S, "4": S, ...},
           "specialists": {"prototype": S, "linear": S, "finetuned": S, "whole": S},
           "sanity": {"swapped": S, "shuffled": S, "no_pictures": S, "blind": S, "chance": S},
           "retrieval": {"random": S, "rices": S, "ensemble": S, "shots": number}}

- tinyflamingo-ablations/1 (`ablations.py`), tinyflamingo-isoflop/1 (`isoflop.py`),
  tinyflamingo-quadratic/1 (`quadratic.py`), tinyflamingo-induction/1 (`induction.py`),
  tinyflamingo-attention/1 (`attention.py`): the last file of each;
- log.jsonl of a training run has the gates.

A file may have "notes" about its runs, {section: text}: the names of sections are those of `report_text.SECTIONS`.

Not here: text and figures (`report_text.py`, `report_figures.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import over_seeds
from tinyflamingo.files import read_json
from tinyflamingo.training.state import LOG, read_log

FORMATS = {f"tinyflamingo-{name}/1": name for name in
           ("suite", "ablations", "isoflop", "quadratic", "induction", "attention")}  # fmt: skip
SHOTS = ("0", "4", "8", "16", "32")
LEVEL_SHOTS = ("0", "1", "4", "16", "32")

# Keys and types of values that a file must have. "*": any key; with "?" the value may be missing or null.
NUMBER = (int, float)
CELL = {"score": NUMBER, "ci95?": [NUMBER]}
CELLS = {"*?": CELL}
RETRIEVAL = {"shots": int, "random?": CELL, "rices?": CELL, "ensemble?": CELL}
PARTS = {"shots": CELLS, "specialists?": CELLS, "sanity?": CELLS, "retrieval?": RETRIEVAL}
ROW = {"what": str, "paper": NUMBER, "against": str, "seeds": {"*": {"scores": {"overall": NUMBER, "*": NUMBER}}}}
FIT = dict.fromkeys(("budget", "parameters", "tokens", "loss"), NUMBER)
COSTS = {"ms": [NUMBER], "mb": [NUMBER], "accuracy": list}
CURVE = {"steps": [NUMBER], "repeat": [NUMBER], "few_shot": [NUMBER], "heads": [[NUMBER]]}
NEEDS: dict[str, dict] = {
    "suite": {"seed": int, "preset?": str, "few_shot_words?": {"*": CELLS},
              "tasks": {"*": {"paper": str, "dev": bool, "metric": str, "level?": int} | PARTS}},
    "ablations": {"settings": {"steps": int}, "rows": {"*": ROW}},
    "isoflop": {"points": [dict.fromkeys(("budget", "parameters", "loss"), NUMBER)],
                "fits?": [FIT | {"coefficients": [NUMBER], "between": [NUMBER], "inside": bool}],
                "exponents?": {"parameters": NUMBER, "tokens": NUMBER}},
    "quadratic": {"frames": [int], "kinds": {"perceiver": COSTS, "transformer": COSTS}},
    "induction": {"curves": {"*": CURVE}},
    "attention": {"prompts": [{"pictures": list, "tokens": [str], "sees": [int], "maps": list}]},
}  # fmt: skip


@dataclass
class Runs:
    """The contents of the files."""

    suites: dict = field(default_factory=dict)  # {seed: report}
    without: dict = field(default_factory=dict)  # the same, of training without tasks explained only by examples
    others: dict = field(default_factory=dict)  # {name: report}
    logs: list = field(default_factory=list)  # (name of the run, records of stage three)


def read_runs(sources: Sequence) -> Runs:
    """All reports in files and folders."""
    runs = Runs()
    for run in map(Path, sources):
        if not run.exists():
            raise UserError(f"{run}: no such file or folder")
        for path in sorted(run.glob("*.json")) if run.is_dir() else [run]:
            _add(runs, path, required=not run.is_dir())
        if (run / LOG).is_file():
            runs.logs.append(_log(run))
    if not (runs.suites or runs.without or runs.others or runs.logs):
        where = ", ".join(map(str, sources))
        raise UserError(f"no report in {where}: run `python -m tinyflamingo ablate` or a training first")
    return runs


def _add(runs, path, required):
    """Add a file's report. A file without a report is skipped, or an error if it is required."""
    try:
        raw = read_json(path)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    form = raw.get("format") if isinstance(raw, dict) else None
    name = FORMATS.get(form) if isinstance(form, str) else None
    if name:
        _check(raw, NEEDS[name] | {"notes?": {"*": str}}, str(path))
    if name == "suite":
        (runs.without if raw.get("preset") == "no-tasks" else runs.suites)[raw["seed"]] = raw
    elif name:
        runs.others[name] = raw
    elif required:
        raise UserError(f"{path} holds no report: its format should be one of {', '.join(FORMATS)}")


def _check(value, need, where):
    """`UserError` with the place where a value, or a value inside it, is not as `need` says (see `NEEDS`)."""
    if not isinstance(value, type(need) if isinstance(need, dict | list) else need):
        raise UserError(f"{where} is {str(value)[:40]!r}, which is not valid there: make the file again")
    if isinstance(value, int | float) and not -1e100 < value < 1e100:  # not true of NaN
        raise UserError(f"{where} is {str(value)[:40]}, which is not valid there: make the file again")
    if isinstance(need, list):
        for i, element in enumerate(value):
            _check(element, need[0], f"{where}: {i}")
    for key, inner in need.items() if isinstance(need, dict) else ():
        name = key.rstrip("?")
        for k in value if name == "*" else [name]:
            if value.get(k) is not None:
                _check(value[k], inner, f"{where}: {k}")
            elif name == key:
                raise UserError(f"{where} has no {k!r}: make the file again")


def _log(run):
    """(name, records of stage three that have gates)."""
    try:
        records = [record for record in read_log(run) if record["stage"] == "flamingo"]
        return run.name, [r for r in records if isinstance(r.get("gates"), dict) and "step" in r]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / LOG} is damaged, or not the log of a training: copy it again") from error


def merged(cells: list) -> dict | None:
    """One cell {"score", "ci95", "n"} from the same cell of several suites, with an interval over their seeds."""
    cells = [cell for cell in cells if cell]
    if len(cells) < 2:
        return cells[0] if cells else None
    return over_seeds([cell["score"] for cell in cells])


def cell_of(suites: dict, *path: str) -> dict | None:
    """The cell at a path of keys, merged over all suites; None if no suite has it.

    Its interval is limited to the scale of the score.
    """
    cell = merged([_at(suite, path) for suite in suites.values()])
    if not cell or not cell.get("ci95"):
        return cell
    low, high = cell["ci95"]
    return cell | {"ci95": [max(low, 0.0), min(high, best_of(suites, *path))]}


def best_of(suites: dict, *path: str) -> float:
    """The highest possible score of a cell: 10 for CIDEr-D, else 1. Swapped queries are counted, so they have 1."""
    metrics = {_at(suite, (*path[:2], "metric")) for suite in suites.values()}
    return 10.0 if "CIDEr-D" in metrics and path[-1] != "swapped" else 1.0


def _at(suite, path):
    """The value at a path of keys, or None."""
    for key in path:
        suite = suite.get(key) if isinstance(suite, dict) else None
    return suite


def suites_with(suites: dict, name: str) -> list[dict]:
    """The suites that have scores of a task."""
    return [suite for suite in suites.values() if name in suite["tasks"]]


def task_names(suites: dict, with_level: bool | None = None) -> list[str]:
    """The names of the tasks of all suites, in order. with_level: only tasks explained by examples, or only others."""
    parts = [part for suite in suites.values() for part in suite.get("tasks", {}).items()]
    wanted = (True, False) if with_level is None else (with_level,)
    return list(dict.fromkeys(name for name, part in parts if bool(part.get("level")) in wanted))
