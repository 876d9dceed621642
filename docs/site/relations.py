"""What belongs together: sections of the chapter, files of the package, tests, notebooks, texts.

The sections come from the tables of `docs/chapter.md`, the keys from the table of `docs/teaching.md`, the rest from
imports, docstrings, numbers of notebooks, and from the folders of the tests, which are those of the package. Nothing is
listed here by hand.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"`([^`\s]+)`")
NUMBER = re.compile(r"§\d")
KEY_ROW = re.compile(r"^\| `\w+` \| `(\d\d_\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
CHAPTER = "docs/chapter.md"
SOURCES = ("*.py", "*.js", "*.css", "*.toml", "LICENSE", "run", "lowest")
FOLDERS = ("tinyflamingo", "notebooks", "docs", "tests", ".ci")
IMPORTED = ("docs", "docs/site", "notebooks")  # folders whose scripts the tests import by their short names
LESSON = re.compile(
    r"(?:notebooks/(?:src/)?|tinyflamingo/checks/n|tinyflamingo/classroom/quizzes/|tests/checks/cards_)(\d\d)[_.]"
)


class Row(NamedTuple):
    """A row of a table in `docs/chapter.md`. anchor: the id of the row on its page; paths: the files in it."""

    anchor: str
    section: str
    paths: tuple[str, ...]


class Place(NamedTuple):
    """Where a page belongs: words for the section, and the id of its row on the page of the chapter."""

    words: str
    anchor: str


# ---------------------------------------------------------------- the tables


@functools.cache
def rows(chapter: str) -> list[Row]:
    """The rows of the tables in a text as `docs/chapter.md`, which are the same in each language."""
    cells = [line.strip("| ").split(" | ") for line in chapter.splitlines() if line.startswith("| ")]
    made = []
    for section, *others in cells:
        paths = tuple(path for path in CODE.findall(" ".join(others)) if (ROOT / path).is_file())
        if paths:
            made.append(Row(f"row-{Path(paths[0]).stem}", section, paths))
    return made


@functools.cache
def keys() -> list[tuple[str, tuple[str, ...]]]:
    """(section, paths) of each key in `docs/teaching.md`: its notebook, files, tests and text."""
    made = []
    for notebook, section, files, tests, text in KEY_ROW.findall((ROOT / "docs/teaching.md").read_text("utf-8")):
        paths = [f"notebooks/{notebook}.ipynb", *(f"tinyflamingo/{file}" for file in CODE.findall(files))]
        paths += [*CODE.findall(tests), *(f"docs/{name}" for name in re.findall(r"\]\((\w+\.md)\)", text))]
        made.append((section, tuple(paths)))
    return made


def places(path: str, chapter: str) -> list[Place]:
    """The sections that a file belongs to; [] if the chapter has none for it. chapter: the text with the tables."""
    own = [Place(row.section, row.anchor) for row in rows(chapter) if path in row.paths]
    if own:
        return own
    numbers = [number for section, paths in keys() if path in paths for number in NUMBER.findall(section)]
    numbers = numbers or NUMBER.findall(docstring(path))
    sections = [Place(number, anchor_of(number)) for number in sorted(set(numbers)) if number in numbers_of(chapter)]
    others = [other for other in _lesson(path) if kind(other) == "notebook" and other != path] + _mirrored(path)
    return sections or [place for other in others for place in places(other, chapter)]


def anchor_of(number: str) -> str:
    """The id of the list of all that belongs to a section, on the page of the chapter: "section-2" of "§2"."""
    return f"section-{number[1:]}"


@functools.cache
def numbers_of(chapter: str) -> list[str]:
    """The numbers of the sections in the tables: ["§1", "§2", ...]."""
    return sorted({number for row in rows(chapter) for number in NUMBER.findall(row.section)})


def belonging(number: str, chapter: str) -> list[str]:
    """The files, tests and notebooks that belong to a section."""
    named = {path: " ".join(place.words for place in places(path, chapter)) for path in [*source_files(), *notebooks()]}
    return [path for path, words in named.items() if number in words]


@functools.cache
def _mirrored(path):
    """The file that a test mirrors: tests/model/test_flamingo.py is for tinyflamingo/model/flamingo.py."""
    folder, _, name = path.partition("tests/")[2].rpartition("/test_")
    module = Path("tinyflamingo", folder, name).as_posix()
    return [module] if path.startswith("tests/") and name and (ROOT / module).is_file() else []


# ---------------------------------------------------------------- files, tests and notebooks


@functools.cache
def source_files() -> list[str]:
    """The files with code."""
    paths = [path for folder in FOLDERS for glob in SOURCES for path in (ROOT / folder).rglob(glob) if path.is_file()]
    paths += [ROOT / "LICENSE", ROOT / "pyproject.toml"]
    inner = {path.relative_to(ROOT) for path in paths}
    return sorted(path.as_posix() for path in inner if not {"html", "__pycache__", "runs"} & set(path.parts))


@functools.cache
def notebooks() -> list[str]:
    """The notebooks for the reader, in English."""
    return [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


def kind(path: str) -> str:
    """ "notebook", "text", "test" (with the helpers of the tests) or "file"."""
    kinds = {".ipynb": "notebook", ".md": "text"}
    return kinds.get(Path(path).suffix) or ("test" if path.startswith("tests/") else "file")


@functools.cache
def partners(path: str) -> list[str]:
    """Files, tests and notebooks that belong to a file: those in its rows first, then those that imports connect."""
    related = [*_connected(path), *_tests_of_folder(path)]
    related += [other for other in source_files() if path in _tests_of_folder(other)]
    wanted = {"file": ("test", "notebook"), "test": ("file", "notebook"), "notebook": ("file", "test")}
    return [other for other in dict.fromkeys(related) if kind(other) in wanted.get(kind(path), ())]


@functools.cache
def _connected(path):
    """What tables, numbers, names and imports connect with a file."""
    groups = [row.paths for row in rows((ROOT / CHAPTER).read_text("utf-8"))] + [paths for _, paths in keys()]
    named = [other for group in groups if path in group for other in group]
    related = named + _lesson(path) + _mirrored(path) + [other for other in uses() if path in _mirrored(other)]
    return related + sorted(uses().get(path, ())) + [other for other, modules in uses().items() if path in modules]


@functools.cache
def _lesson(path):
    """The notebook of a number, its source, its checks, their tests and its questions."""
    number = LESSON.match(path)
    others = [*notebooks(), *source_files()] if number else []
    return [other for other in others if (same := LESSON.match(other)) and same[1] == number[1]]


@functools.cache
def _tests_of_folder(path):
    """The tests of the folder of a file that has no test of its own: tests/bench/ for tinyflamingo/bench/clock.py."""
    if not path.startswith("tinyflamingo/") or any(kind(other) == "test" for other in _connected(path)):
        return []
    folder = Path("tests", *Path(path).parts[1:-1])
    own = sorted((ROOT / folder).glob("test_*.py"))  # else data/readers/ has tests/data/test_readers*.py
    own = own or sorted((ROOT / folder.parent).glob(f"test_{folder.name}*.py"))
    return [test.relative_to(ROOT).as_posix() for test in own]


@functools.cache
def uses() -> dict[str, set[str]]:
    """{a test or a notebook: the files of the package and the scripts that it imports}."""
    tests = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    sources = sorted((ROOT / "notebooks" / "src").glob("*.py"))
    books = {f"notebooks/{path.stem}.ipynb": path for path in sources}
    return {name: _imports(path) for name, path in (tests | books).items()}


def _imports(path):
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {module_path(f"{node.module}.{alias.name}") and f"{node.module}.{alias.name}" or node.module
                      for alias in node.names}  # fmt: skip
    return {module for name in names if (module := module_path(name))}


def module_path(name: str) -> str:
    """The file of a module of the package or of a script; "" for another name.

    "tinyflamingo.ops" is tinyflamingo/ops/__init__.py, and "make_site" is docs/make_site.py.
    """
    path = name.replace(".", "/")
    inside = [f"{path}.py", f"{path}/__init__.py"] if name.startswith("tinyflamingo") else []
    scripts = [f"{folder}/{name}.py" for folder in IMPORTED]
    return next((file for file in inside or scripts if (ROOT / file).is_file()), "")


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def docstring(path: str) -> str:
    """What a Python file says of itself; "" for another file."""
    return ast.get_docstring(parsed(ROOT / path)) or "" if path.endswith(".py") else ""
