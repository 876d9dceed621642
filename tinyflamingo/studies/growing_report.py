"""Reports that grow: a JSON file to which a study adds its results, run after run.

For the studies beside chapters §3 to §5 (`ablations.py`, `isoflop.py`, `quadratic.py`, `induction.py`).

Not here: training runs, which resume in the middle of a stage (`training/state.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import one_after_another, read_json, write_atomically
from tinyflamingo.training.conditions import conditions, going_on


@contextmanager
def growing(path: Path, kind: str, settings: dict, **empty: object) -> Iterator[dict]:
    """A block that adds to the report in a file, or to a new one with the fields `empty`; `save_report` writes it.

    Two processes do so one after another, and with the same number of workers. Raises `UserError` if the file holds
    something else, or a report with other settings.
    """
    with one_after_another(path):
        report = open_report(path, kind, settings, **empty)
        with going_on(path, report["conditions"]):
            yield report


def open_report(path: Path, kind: str, settings: dict, **empty: object) -> dict:
    """The report in a file, or a new one. Raises `UserError` as `growing`."""
    form = f"tinyflamingo-{kind}/1"
    try:
        report = read_json(path)
    except FileNotFoundError:
        return {"format": form, "settings": settings, "conditions": [conditions()], **empty}
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): choose another --json") from error
    if (
        not isinstance(report, dict)
        or report.get("format") != form
        or {"settings", *empty} - report.keys()
        or not _are_conditions(report.setdefault("conditions", []))
    ):
        raise UserError(f"{path} holds no report of {kind}: choose another --json")
    for name, now in json.loads(json.dumps(settings)).items():
        if report["settings"].get(name) != now:
            was = report["settings"].get(name)
            raise UserError(f"{path} was made with {name} {was!r}, not {now!r}: choose another --json")
    return report


def _are_conditions(kept):
    return isinstance(kept, list) and all(isinstance(c, dict) and isinstance(c.get("workers"), int) for c in kept)


def save_report(path: Path, report: dict) -> None:
    """Write a report atomically."""
    write_atomically(path, json.dumps(report, indent=1).encode())
