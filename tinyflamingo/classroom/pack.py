"""The zip for students: library, texts and the open notebooks; no solutions, no sources, no tests.

Serves ``class pack``. Not here: marks (`grade.py`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import replacing

ROOT = Path(__file__).resolve().parents[2]
TOP = "tinyflamingo-class"  # the folder in the zip
FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.txt", "notebooks/*.ipynb", "docs/*.md")
FOLDERS = ("tinyflamingo", "docs/figures", "docs/examples", "docs/results")
LEFT_OUT = ("docs/teaching.md",)  # expected results: for teachers


def notebooks() -> list[Path]:
    """The open notebooks of the project."""
    found = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise UserError(f"{ROOT / 'notebooks'} has no notebooks: run this in the folder of the whole project")
    return found


def pack(path: Path) -> int:
    """Write the zip; returns how many files are in it."""
    notebooks()
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        names = sorted(set(_names()))
        for name in names:
            packed.write(ROOT / name, f"{TOP}/{name}")
    return len(names)


def _names() -> Iterator[str]:
    """Paths of the files in the zip, from the project's folder."""
    places = [place for pattern in FILES for place in ROOT.glob(pattern)]
    places += [place for folder in FOLDERS for place in (ROOT / folder).rglob("*")]
    for place in places:
        name = place.relative_to(ROOT).as_posix()
        if place.is_file() and "__pycache__" not in place.parts and name not in LEFT_OUT:
            yield name
