"""Markdown for docs/results.md: a table, and the text of a cell (chapter §5).

Not here: the contents of the tables (`report_suite.py`, `report_text.py`).
"""

from __future__ import annotations


def table(head: list, rows: list) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def code(name: str) -> str:
    """A name as code."""
    return f"`{name}`"


def show(cell: dict | None, digits: int = 3) -> str:
    """0.912 (0.890–0.930), or a dash."""
    if not cell:
        return "–"
    text = f"{cell['score']:.{digits}f}"
    return text + (" ({:.{d}f}–{:.{d}f})".format(*cell["ci95"], d=digits) if cell.get("ci95") else "")
