"""The zip for students: library, texts, open notebooks, and nothing that holds a solution."""

import fnmatch
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tinyflamingo import cli
from tinyflamingo.classroom import pack as packing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that a student has, with spaces and Chinese letters in its path."""
    folder = tmp_path_factory.mktemp("a class") / "作业 one"
    folder.mkdir()
    assert packing.pack(folder / "out.zip") > 200
    with zipfile.ZipFile(folder / "out.zip") as packed:
        assert {name.partition("/")[0] for name in packed.namelist()} == {"tinyflamingo-class"}
        packed.extractall(folder)
    return folder / "tinyflamingo-class"


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_students_get_the_notebooks_and_what_they_need(unpacked):
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == {
        p.name for p in unpacked.glob("notebooks/*.ipynb")
    }
    for folder in ("notebooks/zh", "docs/zh"):
        there = {path.name for path in (ROOT / folder).glob("*")} - {"teaching.md"}
        assert {path.name for path in (unpacked / folder).glob("*")} == there
    assert {"LICENSE", "README.md", "requirements.txt", "docs/deviations.md"} <= names(unpacked)
    assert "tinyflamingo/assets/toy/weights.npz" in names(unpacked)


def test_no_solution_is_in_it(unpacked):
    assert not [name for name in names(unpacked) if re.search(r"(^|/)(src|solutions|tests|\.\w+|__pycache__)/", name)]
    assert not {"docs/teaching.md", "docs/zh/teaching.md", "notebooks/build.py"} & names(unpacked)
    for path in unpacked.glob("notebooks/**/*.ipynb"):
        assert "# solution" not in path.read_text(encoding="utf-8")


def test_a_link_leads_to_a_file_that_is_there(unpacked):
    """And the README says what is left out."""
    for path in (*unpacked.glob("*.md"), *unpacked.glob("docs/**/*.md")):
        targets = re.findall(r"\]\(([^)#\s:]+)[^)\s]*\)", path.read_text(encoding="utf-8"))
        missing = [target for target in targets if not (path.parent / target).exists()]
        assert not missing, path.name
    readme = (unpacked / "README.md").read_text(encoding="utf-8")
    assert "copy for a class" in readme[:200] and "[docs/explorer.md](docs/explorer.md)" in readme
    assert "docs/teaching.md" in readme and "(docs/teaching.md)" not in re.sub(r"\s\(docs/", "", readme)


PATH = re.compile(r"(?<![\w/.<>*-])(?:(?:docs|notebooks|tests|\.ci|\.github)/[\w./*-]*|[\w./-]*\w\.md\b)", re.ASCII)
MODULE = re.compile(r"python3? -m (\w+)")


def named_by(text, path, there):
    """What a text names and the zip does not have: files as written, and `python -m pytest`."""
    folder = path.parent
    for name in (match.rstrip(".-") for match in PATH.findall(text)):
        places = (base / name for base in (folder, folder.parent, *there))
        if not any(place.exists() for place in places):
            yield name
    yield from (f"python -m {name}" for name in MODULE.findall(text) if name == "pytest" or not find_spec(name))


def is_noted(name, note):
    """Whether the note names a file, its folder, or a pattern that it fits; a text may leave out the folder."""
    words = re.findall(r"`([^`]+)`", note)
    parts = words + [word.rpartition("/")[2] for word in words if word.endswith(".md")]
    return any(fnmatch.fnmatch(name, part) or (part.endswith("/") and name.startswith(part)) for part in parts)


@pytest.mark.parametrize("language", ["", ".zh"])
def test_what_a_text_names_is_in_the_zip_or_in_the_note(unpacked, language):
    readme = (unpacked / f"README{language}.md").read_text(encoding="utf-8")
    note = next(line for line in readme.splitlines() if line.startswith("> "))
    texts = [
        path for path in unpacked.rglob("*.md") if (".zh" in path.name or path.parent.name == "zh") == bool(language)
    ]
    assert len(texts) > 10
    missing = {
        (path.name, name)
        for path in texts
        for name in named_by(path.read_text(encoding="utf-8").replace(note, ""), path, (unpacked, unpacked / "docs"))
        if not is_noted(name, note)
    }
    assert not missing


def test_what_the_note_names_is_of_the_project_and_not_in_the_zip(unpacked):
    for readme in ("README.md", "README.zh.md"):
        note = next(line for line in (unpacked / readme).read_text(encoding="utf-8").splitlines() if line[:2] == "> ")
        files = [word for word in re.findall(r"`([^`]+)`", note) if not word.startswith("python ")]
        assert len(files) > 10 and all(list(ROOT.glob(word.rstrip("/"))) for word in files)
        assert not [word for word in files if list(unpacked.glob(word.rstrip("/")))]


def test_a_script_that_a_text_lets_a_student_run_runs_there(unpacked):
    for line in ("docs/make_flags.py flags --count 2", "docs/follow.py prompt"):
        done = subprocess.run([sys.executable, *line.split()], cwd=unpacked, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
    assert (unpacked / "flags" / "captions.jsonl").is_file()


def test_a_teachers_own_files_are_left_out(tmp_path, monkeypatch):
    for name in ("notebooks/07_masking.ipynb", "notebooks/07_masking-Copy1.ipynb", "notebooks/solved.ipynb",
                 "notebooks/zh/07_masking.ipynb", "notebooks/zh/07_masking-Copy1.ipynb",
                 "docs/figures/a.png", "docs/figures/.a.png.1.tmp", "docs/figures/old.zip"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(packing, "ROOT", tmp_path)
    packing.pack(tmp_path / "docs" / "figures" / "out.zip")
    with zipfile.ZipFile(tmp_path / "docs" / "figures" / "out.zip") as packed:
        top = "tinyflamingo-class"
        expected = ["docs/figures/a.png", "notebooks/07_masking.ipynb", "notebooks/zh/07_masking.ipynb"]
        assert packed.namelist() == [f"{top}/{name}" for name in expected]


def test_the_map_of_notebook_00_needs_no_sources(unpacked):
    source = (ROOT / "notebooks" / "src" / "00_flamingo_in_one_sitting.py").read_text(encoding="utf-8")
    function = re.search(r"^def map_of_notebooks.*?(?=^\S)", source[source.index("def map_of") :], re.M | re.S)[0]
    imports = "import json, re\nfrom pathlib import Path\nimport tinyflamingo\nMarkdown = str\n"
    code = f"{imports}{function}\nprint(map_of_notebooks())"
    env = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=unpacked, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + 13
    assert "| 07 | [Masking: which word may look at which picture](07_masking.ipynb) |" in done.stdout


def test_a_library_that_was_unpacked_runs(unpacked):
    code = "import tinyflamingo; tinyflamingo.load(); print(tinyflamingo.__file__)"
    env = {**os.environ, "PYTHONPATH": str(unpacked), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=unpacked, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(unpacked)


def test_the_command(tmp_path, capsys, monkeypatch):
    assert cli.main(["class", "pack", str(tmp_path / "out.zip")]) == 0
    assert re.search(r"out\.zip: \d+ files\n$", capsys.readouterr().out)
    assert cli.main(["class", "pack", str(tmp_path / "none" / "out.zip")]) == 2
    monkeypatch.setattr(packing, "ROOT", tmp_path)
    assert cli.main(["class", "pack", str(tmp_path / "other.zip")]) == 2
    assert "in the folder of the whole project" in capsys.readouterr().err
    assert not (tmp_path / "other.zip").exists()
