"""Reports that grow: a JSON file to which a study adds its results, run after run.

For the studies beside chapters §3 to §5 (`ablations.py`, `isoflop.py`, `quadratic.py`, `induction.py`).

Not here: training runs, which resume in the middle of a stage (`training/state.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically


def open_report(path: Path, kind: str, settings: dict, **empty: object) -> dict:
    """The report in a file, or a new one with the fields `empty`.

    Raises `UserError` if the file holds something else, or a report with other settings.
    """
    form = f"tinyflamingo-{kind}/1"
    try:
        report = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {"format": form, "settings": settings, **empty}
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): choose another --json") from error
    if not isinstance(report, dict) or report.get("format") != form or {"settings", *empty} - report.keys():
        raise UserError(f"{path} holds no report of {kind}: choose another --json")
    for name, now in json.loads(json.dumps(settings)).items():
        if report["settings"].get(name) != now:
            was = report["settings"].get(name)
            raise UserError(f"{path} was made with {name} {was!r}, not {now!r}: choose another --json")
    return report


def save_report(path: Path, report: dict) -> None:
    """Write a report atomically."""
    write_atomically(path, json.dumps(report, indent=1).encode())
