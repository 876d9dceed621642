"""A key connects a notebook, files of the library, tests and a text in docs/teaching.md: all of them exist."""

import re
import tomllib
from pathlib import Path

import pytest
from scripts import load_script

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks" / "src").glob("*.py"))
# a row of docs/teaching.md: key, notebook, section, files, tests, text
ROW = re.compile(r"^\| `(\w+)` \| `(\d\d_\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


KEYS = load_script("tests/conftest").KEYS
ROWS = {row[0]: row for row in ROW.findall((ROOT / "docs" / "teaching.md").read_text(encoding="utf-8"))}
each_key = pytest.mark.parametrize("key", KEYS)


def test_the_keys_are_the_markers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = [marker.partition(":")[0] for marker in project["tool"]["pytest"]["ini_options"]["markers"]]
    assert [marker for marker in markers if marker in KEYS] == list(KEYS)


@each_key
def test_a_key_has_a_notebook(key):
    number = f"{list(KEYS).index(key):02d}"
    (source,) = [path for path in SOURCES if path.name.startswith(number)]
    first = source.read_text(encoding="utf-8").split("\n# %%")[0]
    assert re.search(r"^# .*\bkey: `?(\w+)`?", first, re.MULTILINE)[1] == key
    assert ROWS[key][1] == source.stem


@each_key
def test_a_key_has_tests(key):
    assert KEYS[key] and [file for file in KEYS[key] if not (ROOT / "tests" / file).is_file()] == []


@each_key
def test_a_key_has_files_of_the_library_in_the_page_for_teachers(key):
    files = re.findall(r"`([\w/]+\.py)`", ROWS[key][3])
    assert files and [file for file in files if not (ROOT / "tinyflamingo" / file).is_file()] == []


@each_key
def test_a_key_has_its_tests_and_a_text_in_the_page_for_teachers(key):
    assert re.findall(r"`tests/([\w/]+\.py)`", ROWS[key][4]) == KEYS[key]
    (text,) = re.findall(r"\]\(([\w.]+)\)", ROWS[key][5])
    assert (ROOT / "docs" / text).is_file()


@each_key
def test_a_key_selects_its_tests(key, request):
    """`-m KEY` selects the key's files and tests of its own notebook only (if the whole suite is collected)."""
    number = f"{list(KEYS).index(key):02d}"
    marked = [item for item in request.session.items if item.get_closest_marker(key)]
    for item in marked:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        assert file in KEYS[key] or item.callspec.id.startswith(number)
