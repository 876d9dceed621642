"""The zip for students: library, texts and the open notebooks; no solutions, no sources, no tests.

Serves ``class pack``. What the texts tell a student to run is in the zip; the rest of what they name is in the note at
the top of its README. Not here: marks (`grade.py`).
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.errors import UserError
from tinyflamingo.files import replacing
from tinyflamingo.language import in_both_languages

ROOT = Path(__file__).resolve().parents[2]
TOP = "tinyflamingo-class"  # the folder in the zip
FILES = ("LICENSE", "README.md", "README.zh.md", "pyproject.toml", "requirements.txt", "docs/*.md", "docs/zh/*.md")
SCRIPTS = ("docs/follow.py", "docs/make_flags.py")  # that the texts let a student run
FOLDERS = ("tinyflamingo", "docs/figures", "docs/examples", "docs/results")
LEFT_OUT = ("docs/teaching.md", "docs/zh/teaching.md")  # expected results: for teachers
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s:]+)[^)\s]*\)")
READMES = ("README.md", "README.zh.md")  # English, Chinese


def notebooks() -> list[Path]:
    """The open notebooks of the project."""
    paths = sorted(p for p in (ROOT / "notebooks").glob("*.ipynb") if re.fullmatch(r"\d\d_\w+", p.stem))
    if not paths:
        raise UserError(f"{ROOT / 'notebooks'} has no notebooks: run this in the folder of the whole project")
    return paths


def pack(path: Path) -> int:
    """Write the zip; returns how many files are in it."""
    chinese = [path.parent / "zh" / path.name for path in notebooks()]
    places = [*notebooks(), *(path for path in chinese if path.is_file())]
    names = {place.relative_to(ROOT).as_posix() for place in places} | set(_names())
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for name in sorted(names):
            if name.endswith(".md"):
                packed.writestr(f"{TOP}/{name}", _for_students(name, names))
            else:
                packed.write(ROOT / name, f"{TOP}/{name}")
    return len(names)


def _for_students(name, names):
    """A text without links to files that students do not get. The READMEs say what is left out."""

    def link(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[2]))
        there = target in names or any(other.startswith(f"{target}/") for other in names)
        return match[0] if there else match[1]

    text = LINK.sub(link, (ROOT / name).read_text(encoding="utf-8"))
    return text.replace("\n", f"\n\n> {_notes()[name]}\n", 1) if name in READMES else text


def _notes():
    """{README: what the texts name and the zip does not have}."""
    notes = in_both_languages(
        "This is the copy for a class. It has the library, the notebooks and the texts. The texts also name files "
        "that are not here; students do not need them. The page for teachers: `docs/teaching.md`, "
        "`docs/zh/teaching.md`. Solutions, sources and tools of the notebooks: `notebooks/solutions/`, "
        "`notebooks/src/`, `notebooks/build.py`, `notebooks/slides.py`. The tests: `tests/`; leave out "
        "`python -m pytest` wherever a text has it. For developers: `CONTRIBUTING.md`, `.ci/`, `.github/`. The site: "
        "`docs/make_site.py`, `docs/site/`; so `python -m tinyflamingo docs` has nothing to open. What made the "
        "numbers and pictures of the texts: `docs/make_examples.py`, `docs/make_screens.py`, `docs/make_tables.py`, "
        "`docs/measure_*.py`, `docs/bench/`, `docs/*.json`. If you need one of these files, ask your teacher."
    )
    return dict(zip(READMES, notes, strict=True))


def _names() -> Iterator[str]:
    """Paths of the files in the zip, from the project's folder."""
    places = [place for pattern in (*FILES, *SCRIPTS) for place in ROOT.glob(pattern)]
    places += [place for folder in FOLDERS for place in (ROOT / folder).rglob("*")]
    for place in places:
        name = place.relative_to(ROOT).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if place.is_file() and not hidden and name not in LEFT_OUT and not name.endswith(".zip"):
            yield name
