"""Writes a page such as docs/results.md, and its figures, from the JSON files of runs alone (chapter §5).

A section without its file has one line that says so.

Not here: the files (`report_read.py`), the sections (`report_text.py`), the figures (`report_figures.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import require_regular, write_atomically
from tinyflamingo.studies.report_figures import draw_all
from tinyflamingo.studies.report_read import Runs, read_runs
from tinyflamingo.studies.report_text import SECTIONS, notes

# The comments say that a command wrote the numbers between them: a translation of the page has places for them.
HEAD = """# Results

<!-- generated: results -->

Written by `python -m tinyflamingo report` from the files of runs. No number is typed by hand."""
END = "<!-- end -->\n"


def report(sources: Sequence, out: str | Path, quick: bool = False, say: Callable = print) -> None:
    """Write `out` and, beside it, figures/results_*.png. quick: the text alone.

    sources: files and folders. Raises `UserError` if one does not exist or cannot be read, or if none holds a report.
    """
    out, runs = Path(out), read_runs(sources)
    try:
        figures, text = _made(runs, out, quick)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        where = ", ".join(map(str, sources))
        raise UserError(f"a report in {where} holds values that do not fit ({error!r}): make it again") from error
    write_atomically(out, text.encode())
    say(f"{out} is written; figures: {len(figures)}")


def _made(runs, out, quick):
    """The figures, which are drawn, and the text."""
    figures: list[Path] = []
    if not quick:
        folder = out.parent / "figures"
        folder.mkdir(exist_ok=True)
        require_regular(folder)
        figures = draw_all(runs, folder)
    return figures, "\n\n".join([HEAD, *(section(name, runs, figures) for name in SECTIONS), END])


def section(name: str, runs: Runs, figures: list[Path]) -> str:
    """Markdown of one section, with its figure if there is one."""
    title, write, how = SECTIONS[name]
    body = write(runs)
    if body is None:
        return f"## {title}\n\nNot in these runs: `{how}` makes it."
    drawn = [f"![{title}](figures/{path.name})" for path in figures if path.stem == f"results_{name}"]
    return "\n\n".join([f"## {title}", *notes(name, runs), body, *drawn])
