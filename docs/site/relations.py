"""What belongs together: sections of the chapter, files of the package, tests, notebooks, texts.

The sections come from the tables of `docs/chapter.md`, the keys from the table of `docs/teaching.md`, the rest from
the imports of the tests and notebooks and from the docstrings. Nothing is listed here by hand.
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
    found = [place for number in sorted(set(numbers)) if (place := _first(number, chapter))]
    return found or [place for module in _mirrored(path) for place in places(module, chapter)]


def _first(number, chapter):
    """A section's number, and the first row with it."""
    return next((Place(number, row.anchor) for row in rows(chapter) if number in row.section), None)


@functools.cache
def _mirrored(path):
    """The file that a test mirrors: tests/model/test_flamingo.py is for tinyflamingo/model/flamingo.py."""
    folder, _, name = path.partition("tests/")[2].rpartition("/test_")
    module = Path("tinyflamingo", folder, name).as_posix()
    return [module] if path.startswith("tests/") and name and (ROOT / module).is_file() else []


# ---------------------------------------------------------------- files, tests and notebooks


def kind(path: str) -> str:
    """ "notebook", "test", "file" (of the package), "text" or "script"."""
    if path.endswith(".ipynb"):
        return "notebook"
    if path.endswith(".md"):
        return "text"
    return {"tests": "test", "tinyflamingo": "file"}.get(path.partition("/")[0], "script")


@functools.cache
def partners(path: str) -> list[str]:
    """Files, tests and notebooks that belong to a file: those in its rows first, then those that imports connect."""
    groups = [row.paths for row in rows((ROOT / CHAPTER).read_text("utf-8"))] + [paths for _, paths in keys()]
    named = [other for group in groups if path in group for other in group]
    found = named + _mirrored(path) + [other for other in uses() if path in _mirrored(other)]
    found += sorted(uses().get(path, ())) + [other for other, modules in uses().items() if path in modules]
    wanted = {"file": ("test", "notebook"), "test": ("file", "notebook"), "notebook": ("file", "test")}
    return [other for other in dict.fromkeys(found) if kind(other) in wanted.get(kind(path), ())]


@functools.cache
def uses() -> dict[str, set[str]]:
    """{a test or a notebook: the files of the package that it imports}."""
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
    return {found for name in names if (found := module_path(name))}


def module_path(name: str) -> str:
    """The file of a module of the package: "tinyflamingo.ops" is tinyflamingo/ops/__init__.py; "" for another name."""
    if not name.startswith("tinyflamingo"):
        return ""
    path = name.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()), "")


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def docstring(path: str) -> str:
    """What a Python file says of itself; "" for another file."""
    return ast.get_docstring(parsed(ROOT / path)) or "" if path.endswith(".py") else ""
