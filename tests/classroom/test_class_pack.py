"""The zip for students: library, texts, open notebooks, and nothing that holds a solution."""

import os
import re
import subprocess
import sys
import zipfile
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
