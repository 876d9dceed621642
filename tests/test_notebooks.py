"""The notebooks: what is committed is what the sources say, it ran, and it still runs."""

import importlib.util
import json
import re
import time
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

FOLDER = Path(__file__).parent.parent / "notebooks"
SECONDS = 180  # a lesson promises two minutes on a laptop; a busy machine gets half as much again
BYTES = 300_000
PRIVATE = re.compile(r"(?<![\w.:/])/(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\\\")  # absolute paths


def load_build():
    spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
every = pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)


def committed(source):
    return nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)


def words_of(output):
    """What an output says to people: its text, not its picture."""
    data = output.get("data", {})
    return output.get("text", "") + "".join(str(v) for k, v in data.items() if k.startswith("text/"))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_a_source():
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == {p.stem for p in build.sources()} != set()


@every
def test_the_notebook_is_its_source(source):
    def told(notebook):
        return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]

    assert told(committed(source)) == told(build.read_source(source)), "run `python notebooks/build.py`"


@every
def test_the_notebook_is_valid_small_and_clean(source):
    path = FOLDER / f"{source.stem}.ipynb"
    assert path.stat().st_size < BYTES
    notebook = committed(source)
    nbformat.validate(notebook)
    assert notebook.metadata == build.KERNEL
    for cell in code_cells(notebook):
        assert cell.metadata == {}, "times of cells are not kept"


@every
def test_the_notebook_ran_from_top_to_bottom(source):
    cells = code_cells(committed(source))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert not PRIVATE.search(words_of(output)), words_of(output)


@every
def test_one_title_and_no_skipped_headings(source):
    levels = [1]
    for cell in committed(source).cells:
        if cell.cell_type == "markdown":
            levels += [len(mark) for mark in re.findall(r"^(#+) ", cell.source, re.MULTILINE)]
    assert levels.count(1) == 2, "one title"
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


@every
def test_the_notebook_runs_in_time(source):
    began = time.monotonic()
    notebook = build.execute(build.read_source(source), seconds=SECONDS)
    assert time.monotonic() - began < SECONDS
    assert len(json.dumps(notebook)) < BYTES


def test_sources_are_cut_into_cells(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n\n\n# %%\nprint(x)\n", encoding="utf-8")
    cells = build.read_source(path).cells
    assert [(c.id, c.cell_type, c.source) for c in cells] == [
        ("cell-01", "markdown", "# Title\n\ntext"),
        ("cell-02", "code", "x = 1"),
        ("cell-03", "code", "print(x)"),
    ]


def test_an_error_in_a_cell_is_not_swallowed():
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")], metadata=build.KERNEL)
    with pytest.raises(CellExecutionError):
        build.execute(notebook)
