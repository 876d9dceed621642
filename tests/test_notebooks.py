"""The notebooks: what is committed is what the sources say, it ran, and it still runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pace import slowness
from scripts import load_script

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
psutil = pytest.importorskip("psutil")
MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt

FOLDER = Path(__file__).parent.parent / "notebooks"
# Seconds of processor time, so that a busy machine changes nothing; the promise is 20, 60 and 5, on a slower one half
# as much again, and more on one that is slower still. The first cells pay for imports and, once, for compiling.
CELL, NOTEBOOK, FIRST_FIGURE = 30, 90, 10
DEADLINE = 600  # of the wall clock, for a cell that hangs
BYTES = 300_000
PRIVATE = re.compile(r"(?<![\w.:/])/(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\\\")  # absolute paths


build = load_script("notebooks/build")
every = pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
BUILT = [(source, *place) for source in build.sources() for place in build.places(source)]
each_built = pytest.mark.parametrize(
    "source, path, solved", BUILT, ids=[f"{path.stem}-{'solved' if solved else 'open'}" for _, path, solved in BUILT]
)


def committed(path):
    return nbformat.read(path, as_version=4)


def words_of(output):
    """What an output says to people: its text, not its picture."""
    data = output.get("data", {})
    return output.get("text", "") + "".join(str(v) for k, v in data.items() if k.startswith("text/"))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_has_a_source():
    there = {*FOLDER.glob("*.ipynb"), *(FOLDER / "solutions").glob("*.ipynb")}
    assert there == {path for _, path, _ in BUILT} != set()


@every
def test_the_notebook_is_its_source(source):
    assert build.stale(source) == [], "run `python notebooks/build.py`"


@each_built
def test_the_notebook_is_valid_small_and_clean(source, path, solved):
    assert path.stat().st_size < BYTES
    notebook = committed(path)
    nbformat.validate(notebook)
    assert notebook.metadata == build.KERNEL
    for cell in code_cells(notebook):
        assert set(cell.metadata) <= {"tags", *build.FOLDED}, "times of cells are not kept"


@each_built
def test_the_notebook_ran_from_top_to_bottom(source, path, solved):
    """The reader's copy too, but for the cells of the exercises, which wait for the reader."""
    for number, cell in enumerate(code_cells(committed(path)), start=1):
        waits = build.kind_of(cell)[0] and not solved
        assert cell.execution_count == (None if waits else number)
        assert not (waits and cell.outputs)
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert not PRIVATE.search(words_of(output)), words_of(output)


@each_built
def test_the_answers_are_in_the_solutions_only(source, path, solved):
    for cell in code_cells(committed(path)):
        if build.kind_of(cell)[0] == "exercise":
            assert ("# solution" in cell.source) == solved
            assert ("raise NotImplementedError" in cell.source) != solved


@every
def test_one_title_and_no_skipped_headings(source):
    levels = [1]
    for cell in build.read_source(source).cells:
        if cell.cell_type == "markdown":
            levels += [len(mark) for mark in re.findall(r"^(#+) ", cell.source, re.MULTILINE)]
    assert levels.count(1) == 2, "one title"
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


BLOCKS = ("list_item_open", "heading_open", "fence", "code_block", "hr", "blockquote_open", "html_block")


def unmeant_blocks(text):
    """Lines that Markdown makes a list, heading or code of, though they stand inside a paragraph.

    A block that is meant stands after an empty line, or is the next item of a list. A heading is meant with "#" only.
    """
    lines = text.splitlines()
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in BLOCKS:
            line, before = token.map[0], lines[token.map[0] - 1] if token.map[0] else ""
            item = token.type == "list_item_open" and re.match(r"\s*(?:[-*+]|\d+[.)]) ", before)
            wrapped = token.type == "list_item_open" and before.startswith("  ")
            underlined = token.type == "heading_open" and not token.markup.startswith("#")
            if underlined or (before.strip() and not item and not wrapped):
                yield lines[line]


@every
def test_no_text_turns_into_a_list_a_heading_or_code_by_chance(source):
    cells = [cell.source for cell in build.read_source(source).cells if cell.cell_type == "markdown"]
    assert [line for text in cells for line in unmeant_blocks(text)] == []


@pytest.mark.parametrize(
    "text, lines",
    [
        ("counted from\n1. Zero means: no picture yet.", ["1. Zero means: no picture yet."]),
        ("the sum\n- of all", ["- of all"]),
        ("the number\n# of heads", ["# of heads"]),
        ("a line\n---", ["a line"]),
        ("Two things:\n\n- one, and\n  more\n- two\n\n## A heading\n\n    code", []),
    ],
)
def test_a_block_by_chance_is_found(text, lines):
    assert list(unmeant_blocks(text)) == lines


@every
def test_the_minutes_are_told_and_counted(source):
    """In the first cell and on two pages: `python notebooks/build.py --minutes` counts them."""
    stated = re.search(r"minutes: (\d+)|(\d+) minutes", build.read_source(source).cells[0].source)
    assert int(stated[1] or stated[2]) == build.minutes(source)
    page = (FOLDER.parent / "docs" / "teaching.md").read_text(encoding="utf-8")
    assert re.search(rf"^### {source.stem[:2]} .*\n- \*\*Minutes\*\* {build.minutes(source)}\.", page, re.MULTILINE)
    table = (FOLDER.parent / "docs" / "chapter.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| .*`notebooks/{source.stem}\.ipynb`.* \| {build.minutes(source)} \|$", table, re.MULTILINE)


def test_minutes_are_words_lines_and_exercises(tmp_path):
    path, words, line = tmp_path / "a.py", "# " + "word " * 30 + "\n", "x = 1\n"
    cards = "# %% [markdown]\n# ### Exercise\n# *difficulty: easy · minutes: 10*\n"
    code = f"from x import y\n{30 * line}\n# %%\nimport plt\nplt.show()\n\n# %%\n{30 * line}sliders(x)\n"
    path.write_text(f"# %% [markdown]\n{40 * words}\n# %%\nimport x\n\n# %%\n{code}\n{cards}", encoding="utf-8")
    assert build.minutes(path) == 10 + 10 + 10


def draws(cell):
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


@each_built
def test_every_figure_is_told_in_words(source, path, solved):
    notebook = committed(path)
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and draws(cell):
            words = build.figure_text(notebook, place)
            assert len(words) > 30, f"cell {place + 1} draws; the text beside it needs *Figure: what is to be seen.*"


class Budget:
    """Counts the processor seconds of each cell."""

    def __init__(self, client):
        self.client, self.seconds, self.drawn = client, [], None
        client.on_cell_execute, client.on_cell_executed = self.before, self.after

    def now(self):
        times = psutil.Process(self.client.km.provisioner.pid).cpu_times()
        return times.user + times.system

    def before(self, cell, cell_index):
        self.began = self.now()

    def after(self, cell, cell_index, execute_reply):
        self.seconds.append(self.now() - self.began)
        if self.drawn is None and draws(cell):
            self.drawn = sum(self.seconds)


def with_solutions(source):
    """The reader's copy, and after it the exercises, solved, with their checks."""
    notebook = build.read_source(source)
    for cell in build.read_source(source, solved=True).cells:
        if cell.cell_type == "code" and build.kind_of(cell)[0]:
            notebook.cells.append({**cell, "id": f"solved-{cell.id}"})
    return nbformat.from_dict(notebook)


def run_watched(source):
    """The executed notebook, untouched and then solved, and the `Budget` of that run."""
    watched = []
    notebook = build.execute(with_solutions(source), DEADLINE, watch=lambda client: watched.append(Budget(client)))
    return notebook, watched[0]


@every
def test_the_notebook_runs_untouched_and_solved_in_its_budget(source, monkeypatch):
    for threads in ("TINYFLAMINGO_THREADS", "OPENBLAS_NUM_THREADS"):  # threads that wait for work use the processor too
        monkeypatch.setenv(threads, "1")
    notebook, budget = run_watched(source)
    if max(budget.seconds) >= CELL:  # the first run on a machine compiles kernels; what is promised are the others
        notebook, budget = run_watched(source)
    assert len(json.dumps(notebook)) < BYTES
    slow = slowness()
    assert max(budget.seconds) < CELL * slow
    assert sum(budget.seconds) < NOTEBOOK * slow
    assert budget.drawn is not None and budget.drawn < FIRST_FIGURE * slow
    said = [words_of(o) for c in notebook.cells if build.kind_of(c)[0] == "check" for o in c.outputs]
    assert len(said) % 2 == 0
    assert all(words.endswith("is not done yet.\n") for words in said[: len(said) // 2])
    assert all(words.endswith(": right.\n") for words in said[len(said) // 2 :])


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


def slider_notebook(line):
    """A notebook with a slider whose function has this line."""
    code = f"from tinyflamingo.classroom import sliders\n\ndef draw(x=2):\n    {line}\n\nsliders(draw, x=(0, 4))"
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(build.BESIDE + code)], metadata=build.KERNEL)


def test_a_slider_leaves_nothing_in_the_file():
    """Its name differs at every run, and without a kernel it does nothing."""
    notebook = build.execute(slider_notebook("print(x)"))
    assert notebook.cells[0].outputs == [] and notebook.metadata == build.KERNEL


SLIDERS = {"04": 1, "05": 1, "07": 1, "08": 1, "10": 1, "11": 1}


@every
def test_a_slider_is_short_and_folded_and_comes_after_a_figure(source):
    codes = [cell for cell in build.read_source(source).cells if cell.cell_type == "code"]
    places = [place for place, cell in enumerate(codes) if "sliders(" in cell.source]
    assert len(places) == SLIDERS.get(source.stem[:2], 0)
    for place in places:
        assert len(codes[place].source.splitlines()) <= 18 and codes[place].metadata == build.HIDDEN
        assert any("plt.show()" in cell.source for cell in codes[:place])


def test_an_error_in_a_slider_is_not_swallowed():
    with pytest.raises(ValueError, match="a slider stops with ZeroDivisionError"):
        build.execute(slider_notebook("1 / 0"))


EXERCISE = """# %% exercise 99.1
def double(x):
    y = 0
    # solution
    y = 2 * x
    # end of solution
    return y


# %% check 99.1
print(double(2))
"""


def test_one_source_makes_two_notebooks(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(EXERCISE, encoding="utf-8")
    ours, theirs = (build.read_source(path, solved).cells for solved in (False, True))
    assert ours[0].source == (
        'def double(x):\n    y = 0\n    raise NotImplementedError("Exercise 99.1: your turn")\n    return y'
    )
    assert "y = 2 * x" in theirs[0].source
    assert [build.kind_of(cell) for cell in ours] == [("exercise", "99.1"), ("check", "99.1")]
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("broken", [EXERCISE.replace("    # sol", "# sol"), EXERCISE.replace("# solution\n", "")])
def test_a_solution_that_cannot_be_taken_out_is_an_error(tmp_path, broken):
    path = tmp_path / "a.py"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(ValueError, match="99.1"):
        build.read_source(path)


def test_a_notebook_finds_a_package_that_is_not_installed(tmp_path, monkeypatch):
    """In notebooks/ and in notebooks/solutions/, one line at the top; the sources do not say it."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    path = tmp_path / "a.py"
    path.write_text("# %%\nimport tinyflamingo\n\n# %%\nimport tinyflamingo\n", encoding="utf-8")
    first, second = build.read_source(path).cells
    assert first.source == build.BESIDE + second.source
    (tmp_path / "tinyflamingo.py").write_text("", encoding="utf-8")
    for folder in (tmp_path / "notebooks", tmp_path / "notebooks" / "solutions"):
        folder.mkdir()
        subprocess.run([sys.executable, "-S", "-c", first.source], cwd=folder, check=True)


def test_no_source_says_where_the_package_is():
    assert not [path.name for path in build.sources() if "sys.path" in path.read_text(encoding="utf-8")]


SOURCE = """# %%
import math

# %%
x = 1

# %%
plt.plot(x)
plt.show()

# %%
plt.plot(x)
print(x)
plt.show()

# %%
def draw(x):
    print(x)


sliders(draw, x=(0, 1))

# %% folded
print(x)
"""


def test_code_that_only_imports_or_draws_is_folded(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(SOURCE, encoding="utf-8")
    metadata = [cell.metadata for cell in build.read_source(path).cells]
    assert metadata == [build.HIDDEN, {}, build.HIDDEN, {}, build.HIDDEN, build.FOLDED]
    nbformat.validate(build.read_source(path))


def test_the_words_beside_a_figure_are_found():
    text = nbformat.v4.new_markdown_cell("Look.\n\n*Figure: a line\nthat falls.*")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1"), text, nbformat.v4.new_code_cell("2")])
    assert [build.figure_text(notebook, i) for i in (0, 2)] == ["a line that falls."] * 2
