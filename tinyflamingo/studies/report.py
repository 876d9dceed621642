"""docs/results.md and its figures, from the JSON files of runs and from nothing else (chapter §5).

What is missing is left out, with a line that says so. Not here: reading the files, and what is in them
(`report_read.py`), the sections (`report_text.py`), drawing (`report_figures.py`).
"""

from __future__ import annotations

from pathlib import Path

from tinyflamingo.files import write_atomically
from tinyflamingo.studies.report_figures import draw_all
from tinyflamingo.studies.report_read import read_runs
from tinyflamingo.studies.report_text import SECTIONS

HEAD = "# Results\n\nWritten by `python -m tinyflamingo report` from the files of runs; no number is typed by hand."


def report(runs, out, quick=False, say=print):
    """Write `out` and, beside it, figures/results_*.png. quick: the text alone.

    runs: files and folders. Raises `UserError` for one that does not exist or cannot be read, and
    where nothing is found at all.
    """
    out, found = Path(out), read_runs(runs)
    figures = []
    if not quick:
        folder = out.parent / "figures"
        folder.mkdir(exist_ok=True)
        figures = draw_all(found, folder)
    text = "\n\n".join([HEAD, *(section(name, found, figures) for name in SECTIONS)]) + "\n"
    write_atomically(out, text.encode())
    say(f"{out} and {len(figures)} figure{'s' * (len(figures) != 1)} are written")


def section(name, found, figures) -> str:
    """Markdown of one section, with its figure if it was drawn."""
    title, write, how = SECTIONS[name]
    body = write(found)
    if body is None:
        return f"## {title}\n\nNot in these runs{f': `{how}` makes it' if how else ''}."
    drawn = [f"![{title}](figures/{path.name})" for path in figures if path.stem == f"results_{name}"]
    return "\n\n".join([f"## {title}", body, *drawn])
