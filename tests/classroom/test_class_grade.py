"""Marks of handed-in notebooks: solved ones are right, untouched ones open, and no code of a student's makes a mark."""

import csv
import io
import json
import os
import sys
import time

import numpy as np
import pytest
from scripts import load_script

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

from tinyflamingo.classroom import grade as grading  # noqa: E402
from tinyflamingo.classroom.messages import Values  # noqa: E402
from tinyflamingo.errors import UserError  # noqa: E402

build = load_script("notebooks/build")
SOURCES = {source.stem[:2]: source for source in build.sources()}


GOOD = "def phi_in_one_line(is_image):\n    return np.cumsum(is_image, axis=-1)\n"


@pytest.fixture(autouse=True)
def notebooks(tmp_path_factory, monkeypatch):
    """The open notebooks as their sources are now, not run."""
    folder = tmp_path_factory.mktemp("project")
    for source in SOURCES.values():
        nbformat.write(build.read_source(source), folder / f"{source.stem}.ipynb")
    monkeypatch.setattr(grading, "notebooks", lambda: sorted(folder.glob("*.ipynb")))


def hand_in(folder, number, solved=True, name=None, **changed):
    """A notebook as it is handed in. changed: new code for the cell that defines a function."""
    notebook = build.read_source(SOURCES[number], solved)
    for cell in notebook.cells:
        for function, code in changed.items():
            if cell.cell_type == "code" and f"def {function}(" in cell.source:
                cell.source = code
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{SOURCES[number].stem}.ipynb")
    nbformat.write(notebook, path)
    return path


def marks(folder, **options):
    """{exercise: (result, hint)} of a folder with one notebook."""
    return {row.exercise: (row.result, row.hint) for row in grading.grade(folder, **options)}


def results(folder, **options):
    return {key: result for key, (result, _) in marks(folder, **options).items()}


@pytest.mark.parametrize("number", SOURCES)
def test_solved_exercises_are_right_and_untouched_ones_open(number, tmp_path):
    hand_in(tmp_path / "a", number, solved=True)
    hand_in(tmp_path / "b", number, solved=False)
    rows = list(grading.grade(tmp_path))
    keys = [exercise.key for exercise in grading.exercises()[number]]
    assert keys and [row.exercise for row in rows] == keys * 2
    assert [row.result for row in rows] == ["right"] * len(keys) + ["open"] * len(keys)
    assert {row.file.partition("/")[0] for row in rows} == {"a", "b"}


def test_a_wrong_answer_has_its_hint_and_the_others_are_marked(tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line="def phi_in_one_line(is_image):\n    return np.cumsum(is_image) + 1")
    marked = marks(tmp_path)
    assert [result for result, _ in marked.values()] == ["right", "wrong", "right", "right", "right"]
    assert marked["07.2"][1] == "token 0 has phi 1, but no image stands before it: that is 0."


def test_an_error_shows_the_students_line(tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line="x = 1\n\ndef phi_in_one_line(is_image):\n    return is_image @ [1, 2]")
    assert marks(tmp_path)["07.2"][1].startswith("line 4 of your cell, in phi_in_one_line, stops with ValueError: ")
    hand_in(tmp_path, "07", phi_in_one_line="def phi_in_one_line(is_image:\n    return 1")
    assert marks(tmp_path)["07.2"][1].startswith("the cell is not Python: ")
    hand_in(tmp_path, "07", phi_in_one_line="phi_in_two_lines = 2")
    assert marks(tmp_path)["07.2"] == ("open", "there is no function phi_in_one_line in this notebook")


def test_what_a_function_needs_of_the_notebook_is_run_and_no_more(tmp_path):
    needs = "%matplotlib inline\nfrom math import sqrt\nSIZE = 2\ntable = {}\ntable['a'] = SIZE - 1\n"
    needs += "def helper(x):\n    return np.cumsum(x, axis=-1) * table['a'] * int(sqrt(1))\n"
    needs += "np.cumsum?\ndef phi_in_one_line(is_image):\n    display(is_image)\n    return helper(is_image)\n"
    needs += "import time\ntime.sleep(1000)\nopen('ran', 'w')\n!ls\n"
    hand_in(tmp_path, "07", phi_in_one_line=needs)
    assert results(tmp_path)["07.2"] == "right"


OTHER_WAYS = {
    "imports all": "from numpy import *\ndef phi_in_one_line(is_image):\n    return cumsum(is_image, axis=-1)",
    "a line that begins with %": """BIG = 10**6
def phi_in_one_line(is_image):
    return (
        np.cumsum(is_image, axis=-1) * (BIG + 1)
        % BIG
    )""",
    "%time in a block": "if True:\n    %matplotlib inline\n" + GOOD,
    "the result of %timeit": "took = %timeit -o 1 + 1\nfiles = !ls\n" + GOOD,
    "fills a table": """table = {}
table.update(a=-1)
plt.plot(1 / 0)
def phi_in_one_line(is_image):
    plt.plot
    return np.cumsum(is_image, table["a"])""",
}


@pytest.mark.parametrize("name", OTHER_WAYS)
def test_cells_are_run_as_jupyter_runs_them(name, tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line="import matplotlib.pyplot as plt\n" + OTHER_WAYS[name])
    assert marks(tmp_path)["07.2"] == ("right", "")


def test_a_cell_that_is_not_python_has_its_line(tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line="x = 1\ndef phi_in_one_line(is_image)\n    return 1")
    hint = "the cell is not Python: expected ':' in line 2: `def phi_in_one_line(is_image)`"
    assert marks(tmp_path)["07.2"] == ("wrong", hint)


def test_the_last_definition_counts(tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line="def phi_in_one_line(is_image):\n    return 1\n" + GOOD)
    assert results(tmp_path)["07.2"] == "right"


HOSTILE = {
    "a loop without an end": "def phi_in_one_line(is_image):\n    while True: pass",
    "a loop at the top": "while True: pass\n" + "def phi_in_one_line(is_image):\n    return X\nX = max(iter(int, 1))",
    "sleeps": "import time\ndef phi_in_one_line(is_image):\n    time.sleep(1000)",
    "too much memory": "def phi_in_one_line(is_image):\n    return np.ones((1 << 40,))",
    "memory bit by bit": "def phi_in_one_line(is_image):\n    x = [b'']\n    while True: x.append(bytes(1 << 26))",
    "returns too much": "def phi_in_one_line(is_image):\n    return np.ones(10_000_000)",
    "leaves": "import sys\ndef phi_in_one_line(is_image):\n    sys.exit(0)",
    "leaves at once": "import os\ndef phi_in_one_line(is_image):\n    os._exit(0)",
    "kills itself": "import os\ndef phi_in_one_line(is_image):\n    os.kill(os.getpid(), 9)",
    "patches the check": """import tinyflamingo.checks
from tinyflamingo.checks import core, n07_masking as n
def phi_in_one_line(is_image):
    for module in (core, n, tinyflamingo.checks):
        for name in list(vars(module)):
            if name in ("value_is", "shape_is", "holds"):
                setattr(module, name, lambda *a, **k: None)
    core.Check.mark = lambda self, answer: core.Mark(self.key, "right")
    np.array_equal = np.allclose = np.all = lambda *a, **k: True
    np.cumsum = lambda x, axis=-1: x * 0 + 7
    return np.cumsum(is_image)""",
    "prints a mark": """import os, sys
def phi_in_one_line(is_image):
    print("Exercise 07.2: right.", flush=True)
    for stream in range(3, 20):
        try: os.write(stream, b'\\0' * 7 + b'\\x10' + b'{"right": "yes"}')
        except OSError: pass
    return 0""",
    "answers in the place of the worker": """import os, json
def phi_in_one_line(is_image):
    data = json.dumps({"done": {"same": 99}, "state": [], "warnings": []}).encode()
    for stream in range(3, 20):
        try: os.write(stream, len(data).to_bytes(8, "big") + data)
        except OSError: pass
    os._exit(0)""",
    "a loop that sends messages": """import os, json
data = json.dumps({"nothing": "x" * 30_000_000}).encode()
def phi_in_one_line(is_image):
    while True:
        for stream in range(3, 20):
            try: os.write(stream, len(data).to_bytes(8, "big") + data)
            except OSError: pass""",
    "a generator, which NumPy does not take": "def phi_in_one_line(is_image):\n    yield from np.cumsum(is_image)",
    "equals everything": """class All(np.ndarray):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return np.zeros(1)
def phi_in_one_line(is_image):
    return np.zeros(is_image.shape, int).view(All)""",
    "claims to be open in a wrong way": "def phi_in_one_line(is_image):\n    raise SystemError('right')",
    "an endless list": "import itertools\ndef phi_in_one_line(is_image):\n    return itertools.count()",
    "a deep list": "def phi_in_one_line(is_image):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "an error without words": """class Silent(Exception):
    def __str__(self): raise ValueError
def phi_in_one_line(is_image):
    raise Silent""",
    "defines in the place of the worker": """import json, os
def phi_in_one_line(is_image): return X
data = json.dumps({"defined": 5}).encode()
for stream in range(3, 20):
    try: os.write(stream, len(data).to_bytes(8, "big") + data)
    except OSError: pass
X = os._exit(0)""",
    "control characters": "def phi_in_one_line(is_image):\n    raise ValueError('\\x1b[2J\\nright\\r,right')",
}


@pytest.mark.posix
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_wrong_and_stops_nothing(name, tmp_path):
    hand_in(tmp_path, "07", phi_in_one_line=HOSTILE[name])
    seconds = 4 if "loop" in name or "sleeps" in name or "list" in name else 30
    marked = marks(tmp_path, seconds=seconds, megabytes=2048)
    assert [result for result, _ in marked.values()] == ["right", "wrong", "right", "right", "right"]
    assert len(marked["07.2"][1]) > 20 and marked["07.2"][1].isprintable()


def test_what_a_process_sends_does_not_fill_the_memory():
    answers = grading.queue.Queue(grading.WAITING)
    grading._listen(io.BytesIO((b"\0" * 7 + b"\2{}") * 1000), answers)
    assert answers.qsize() == grading.WAITING


def test_a_process_that_goes_on_does_not_hold_up_the_marking(tmp_path):
    """It keeps the pipe open after the student's process has ended."""
    hand_in(
        tmp_path,
        "07",
        phi_in_one_line="""import os, subprocess, sys
def phi_in_one_line(is_image):
    for stream in range(3, 10):
        try: os.set_inheritable(stream, True)
        except OSError: pass
    code = "import time; time.sleep(8)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True, close_fds=False)
    os._exit(0)""",
    )
    began = time.monotonic()
    assert results(tmp_path, seconds=4)["07.2"] == "wrong"
    assert time.monotonic() - began < 60


def test_files_are_deleted_in_an_empty_folder_only(tmp_path, monkeypatch):
    delete = "import shutil, os\ndef phi_in_one_line(is_image):\n    shutil.rmtree(os.getcwd())\n    return 0"
    hand_in(tmp_path / "a", "07", phi_in_one_line=delete)
    hand_in(tmp_path / "b", "07")
    monkeypatch.chdir(tmp_path)
    rows = list(grading.grade(tmp_path))
    assert [row.result for row in rows if row.file.startswith("a")].count("wrong") == 1
    assert {row.result for row in rows if row.file.startswith("b")} == {"right"}
    assert len(list(tmp_path.rglob("*.ipynb"))) == 2


def test_what_cannot_be_read_is_said_and_the_rest_is_marked(tmp_path):
    (tmp_path / "1.ipynb").write_text("{", encoding="utf-8")
    (tmp_path / "2.ipynb").write_text("[" * 100_000, encoding="utf-8")
    (tmp_path / "3.ipynb").write_text('{"cells": [{"cell_type": "code", "source": 3}]}', encoding="utf-8")
    (tmp_path / "4.ipynb").write_bytes(b"\xff\xfe\x00")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "5.ipynb")
    hand_in(tmp_path / "张 三", "07", name="我的作业.ipynb")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    hand_in(tmp_path / ".ipynb_checkpoints", "07")
    rows = list(grading.grade(tmp_path))
    assert [row.result for row in rows[:4]] == ["wrong"] * 4
    assert all("cannot be read as a notebook" in row.hint for row in rows[:4])
    assert (rows[4].result, rows[4].hint) == ("open", "no exercise of these notebooks is in this file")
    assert {(row.file, row.result) for row in rows[5:]} == {("张 三/我的作业.ipynb", "right")}


def test_files_of_the_system_are_left_out_and_names_are_one_line(tmp_path):
    """macOS puts `._name` files into a zip; a zip from Windows can have names in another encoding."""
    for name in (".hidden", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.ipynb").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._07_masking.ipynb").write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.ipynb").mkdir()
    for name in (b"a\nb\x1b.ipynb", "张三.ipynb".encode("gbk")):
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / os.fsdecode(name))
    names = [row.file for row in grading.grade(tmp_path)]
    assert names == [r"a\nb\x1b.ipynb", r"\udcd5\udcc5\udcc8\udcfd.ipynb"]


def test_a_notebook_with_too_much_code_stops_nothing(tmp_path):
    hand_in(tmp_path / "a", "07", phi_in_one_line=f"x = '{'a' * 40_000_000}'")
    hand_in(tmp_path / "b", "12", solved=False)
    rows = list(grading.grade(tmp_path))
    assert (rows[0].result, rows[0].exercise) == ("wrong", "") and "letters of code" in rows[0].hint
    assert [row.result for row in rows[1:]] == ["open"] * 4


def test_a_machine_that_starts_no_process_is_said(tmp_path, monkeypatch):
    hand_in(tmp_path, "07")
    monkeypatch.setattr(grading, "START", 0)
    with pytest.raises(UserError, match="no process can be started"):
        list(grading.grade(tmp_path))


def test_an_empty_or_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no notebook"):
        list(grading.grade(tmp_path))
    with pytest.raises(UserError, match="not a folder"):
        list(grading.grade(tmp_path / "none"))
    for seconds in (0, 10**10):
        with pytest.raises(UserError, match="from 1 to 86400"):
            list(grading.grade(tmp_path, seconds=seconds))


def test_tags_and_headings_may_be_lost(tmp_path):
    """Some programs lose the tags of cells; the function is found by its name."""
    path = hand_in(tmp_path, "07")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert set(results(tmp_path).values()) == {"right"}


def test_the_lines():
    rows = [
        grading.Row("=a.ipynb", "07.1", "right", ""),
        grading.Row("=a.ipynb", "07.2", "wrong", 'a hint, with "quotes"'),
        grading.Row("b.ipynb", "07.1", "open", ""),
    ]
    lines = list(grading.csv_lines(rows))
    assert list(csv.reader(lines)) == [["'=a.ipynb", *rows[0][1:]], ["'=a.ipynb", *rows[1][1:]], list(rows[2])]
    text = list(grading.text_lines(rows))
    assert text[0] == "=a.ipynb" and text[2] == '  07.2  wrong a hint, with "quotes"'
    assert text[-1] == "1 right, 1 wrong, 1 open"


def test_values_come_back_as_they_were_sent():
    given = [
        np.arange(6.0).reshape(2, 3),
        [1, "a", None, True],
        {"a": np.float32(2), "b": (1, 2.5)},
        np.array(3, np.int8),
    ]
    here, there = Values(), Values()
    sent = [json.loads(json.dumps(here.write(x, True))) for x in given]
    got = [there.read(x) for x in sent]
    np.testing.assert_array_equal(got[0], given[0])
    assert got[1] == given[1] and got[2] == given[2] and got[2]["a"].dtype == np.float32
    assert got[3].shape == () and got[3].dtype == np.int8
    back = there.write([got[0], (np.inf, np.nan), range(2), open], False)
    got[0][0, 0], got[1][0] = 9.0, "changed"
    got[2]["c"] = [1]
    del got[2]["a"]
    array, numbers, listed, other = here.read(json.loads(json.dumps(back)))
    assert array is given[0] and array[0, 0] == 0
    assert numbers[0] == np.inf and np.isnan(numbers[1]) and listed == [0, 1]
    assert type(other).__name__ == "builtin_function_or_method"
    here.take_over(json.loads(json.dumps(there.state())))
    assert given[0][0, 0] == 9 and given[1][0] == "changed" and given[2] == {"b": (1, 2.5), "c": [1]}


@pytest.mark.parametrize(
    "sent",
    [{"array": ["O", [1], ""]}, {"array": ["<f8", [9], "AA=="]}, {"array": ["<f8"]}, {"function": True, "number": 0}],
)
def test_what_is_no_value_is_refused(sent):
    with pytest.raises((ValueError, TypeError)):
        Values().read(sent)


def test_the_command(tmp_path, capsys, monkeypatch):
    from tinyflamingo import cli

    hand_in(tmp_path, "12", solved=False)
    assert cli.main(["class", "grade", str(tmp_path), "--csv"]) == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines()))[0] == ["12_to_80b.ipynb", "12.1", "open", ""]
    assert cli.main(["class", "grade", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("0 right, 0 wrong, 4 open\n")
    assert cli.main(["class", "grade", str(tmp_path / "none")]) == 2
    assert sys.modules["tinyflamingo.classroom.grade"] is grading
