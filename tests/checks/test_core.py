"""The tools of the checks: what they accept, their messages, and that one check imports no other."""

import linecache
import re
import subprocess
import sys

import numpy as np
import pytest

from tinyflamingo import checks
from tinyflamingo.checks import CheckFailed
from tinyflamingo.checks.core import check, fresh_rng, gradient_by_moving, holds, pair_is, shape_is, value_is


@check("99.1", where="Look at the plus.", formula="2 x")
def check_double(double):
    x = fresh_rng().standard_normal((2, 3))
    shape_is(double(x), (2, 3), "(T, D)")
    value_is(double(x), 2 * x, "twice means times two")


def test_a_right_answer_prints_right(capsys):
    assert check_double(lambda x: 2 * x) is None
    assert capsys.readouterr().out == "Exercise 99.1: right.\n"


def test_an_untouched_stub_prints_not_done(capsys):
    def stub(x):
        raise NotImplementedError("Exercise 99.1: your turn")

    check_double(stub)
    assert capsys.readouterr().out == "Exercise 99.1 is not done yet.\n"


@pytest.mark.parametrize(
    "answer, hint",
    [
        (lambda x: x, r"your result is .* at \[0, 0\], but .* was expected. twice means times two"),
        (lambda x: 2 * x[:1], r"shape \(1, 3\), but \(T, D\) = \(2, 3\) was expected"),
        (lambda x: None, "a `return` is missing"),
        (lambda x: x * np.nan, "NaN"),
    ],
)
def test_a_wrong_answer_gets_its_hint(answer, hint):
    mark = check_double.mark(answer)
    assert mark[:2] == ("99.1", "wrong")
    assert re.search(hint, mark.hint)


def test_hints_come_in_three_steps(capsys):
    def said(call):
        call()
        return capsys.readouterr().out

    check_double.shown = 0
    first, second, third, fourth = (said(lambda: check_double(lambda x: x)) for _ in range(4))
    assert first.startswith("Exercise 99.1: not yet. your result is ")
    assert "twice means times two" in first and "Look at" not in first and "check_double.hint()" in first
    assert "Look at the plus." in second and "2 x" not in second
    assert "Look at the plus." in third and "The formula: 2 x" in third and "hint()" not in third
    assert third.count("\n") == fourth.count("\n") == 3
    check_double(lambda x: 2 * x)
    capsys.readouterr()
    assert "Look at the plus." in said(check_double.hint)
    assert "The formula: 2 x" in said(check_double.hint)


MINE = """def double(x):
    y = x[0]
    return helper(y)

def helper(y):
    return y + [1, 2, 3, 4, 5]

def leaves(x):
    exit()

def deep(x):
    return deep(x)
"""


@pytest.fixture
def functions():
    """Functions as a notebook has them: of a file that is not there, whose lines are known."""
    linecache.cache["/tmp/ipykernel_1/2.py"] = (len(MINE), None, MINE.splitlines(keepends=True), "2.py")
    space = {}
    exec(compile(MINE, "/tmp/ipykernel_1/2.py", "exec"), space)
    return space


def test_an_error_of_the_reader_shows_the_readers_line(functions, capsys):
    check_double.shown = 0
    check_double(functions["double"])
    said = capsys.readouterr().out
    assert said.startswith("Exercise 99.1: not yet. line 6 of your cell, in helper, stops with ValueError: operands ")
    assert "`return y + [1, 2, 3, 4, 5]`" in said
    assert "core.py" not in said and said.count("\n") == 2


def test_other_ways_to_stop(functions):
    assert "in leaves, stops with" in check_double.mark(functions["leaves"]).hint
    assert "in deep, stops with RecursionError" in check_double.mark(functions["deep"]).hint
    assert "cannot be called" in check_double.mark(lambda x, y: x).hint
    with pytest.raises(KeyboardInterrupt):
        check_double.mark(lambda x: interrupt())


def interrupt():
    raise KeyboardInterrupt


def test_a_notebook_runs_on_after_a_wrong_answer():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        "import numpy as np\nfrom tinyflamingo.checks import check_07_2_phi",
        "def phi(is_image):\n    tags = np.cumsum(is_image)\n    return tags[is_image, 0]\n\ncheck_07_2_phi(phi)",
        "check_07_2_phi(lambda is_image: np.cumsum(is_image) + 1)",
        "check_07_2_phi.hint()",
        "check_07_2_phi(lambda is_image: np.cumsum(is_image, -1))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3", coalesce_streams=True).execute()
    said = [cell.outputs[0].text if cell.outputs else "" for cell in notebook.cells]
    assert said[1].startswith("Exercise 07.2: not yet. line 3 of your cell, in phi, stops with IndexError: too many ")
    assert "`return tags[is_image, 0]`" in said[1] and said[1].count("\n") == 2
    assert "token 0 has phi 1" in said[2] and "Where to look: " in said[2] and "The formula" not in said[2]
    assert "The formula: np.cumsum(is_image, axis=-1)" in said[3]
    assert said[4] == "Exercise 07.2: right.\n"


def test_a_long_message_is_cut():
    def fails(x):
        raise ValueError("too long\n" * 1000)

    hint = check_double.mark(fails).hint
    assert len(hint) < 500 and "\n" not in hint


def test_an_argument_that_has_changed_is_named():
    def in_place(x):
        x *= 2
        return x

    assert check_double.mark(in_place).hint.startswith("`x`, which was passed in, has changed")

    @check("99.2", where="", formula="")
    def check_nested(f):
        holds(f({"a": [1, np.zeros(2)]}, [1, 2]) == 1, "one")

    def changes_an_array(tree, numbers):
        tree["a"][1][0] = np.nan
        return 1

    def changes_a_list(tree, numbers):
        numbers.append(3)
        return 1

    assert "`tree`, which was passed in" in check_nested.mark(changes_an_array).hint
    assert "`numbers`, which was passed in" in check_nested.mark(changes_a_list).hint
    assert check_nested.mark(lambda tree, numbers: 1).result == "right"


def test_a_check_may_ask_for_a_change_in_place():
    @check("99.3", where="", formula="", in_place=True)
    def check_fill(fill):
        x = np.zeros(2)
        fill(x)
        holds(np.all(x == 1), "ones")

    assert check_fill.mark(lambda x: x.fill(1)).result == "right"


def test_pairs():
    pair_is((1, 2), ("dx", "dw"))
    for got in (None, 1, (1,), np.zeros(2), "ab"):
        with pytest.raises(CheckFailed, match="None|dx, dw; your function returned"):
            pair_is(got, ("dx", "dw"))


def test_values():
    value_is(1.0 + 1e-7, 1.0)
    value_is([1, 2], np.array([1, 2]))
    value_is(np.array([True]), np.array([True]))
    value_is(np.zeros(3), np.zeros(3))
    for got, want in ((1.001, 1.0), ([1, 3], np.array([1, 2])), (np.ones(3) * 1e-9, np.zeros(3))):
        with pytest.raises(CheckFailed):
            value_is(got, want)
    with pytest.raises(CheckFailed, match="the mask is False at .1., but True"):
        value_is(np.array([True, False]), np.array([True, True]), what="the mask")
    with pytest.raises(CheckFailed, match="a hint"):
        holds(False, "a hint")


def test_a_known_mistake_gets_its_own_hint():
    mistakes = {"forgot to double": np.ones(2), "too long": np.ones(3)}
    with pytest.raises(CheckFailed, match="forgot to double"):
        value_is(np.ones(2), 2 * np.ones(2), "twice means times two", mistakes=mistakes)
    with pytest.raises(CheckFailed, match="twice means times two"):
        value_is(3 * np.ones(2), 2 * np.ones(2), "twice means times two", mistakes=mistakes)
    with pytest.raises(CheckFailed, match="off by one"):
        value_is([1, 2], np.array([2, 3]), mistakes={"off by one": np.array([1, 2])})
    value_is(np.ones(2), np.ones(2), mistakes={"no mistake at all": np.ones(2)})


def test_a_gradient_by_moving():
    x, g = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[1.0, 1.0], [2.0, 0.5]])
    np.testing.assert_allclose(gradient_by_moving(np.square, x, g), 2 * x * g, rtol=1e-6)


def test_every_generator_is_new():
    assert fresh_rng().integers(1 << 60) != fresh_rng().integers(1 << 60)


def test_an_unknown_check():
    for name in ("check_99_1_nothing", "check_", "anything"):
        with pytest.raises(AttributeError, match=name):
            getattr(checks, name)


def test_the_package_imports_no_check():
    code = "import sys, tinyflamingo.checks; print(*sorted(m for m in sys.modules if m.startswith('tinyflamingo')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [f"tinyflamingo{name}" for name in ("", ".checks", ".checks.core", ".language", ".version")]
    assert done.stdout.split() == expected


def test_objects_that_cannot_be_shown_get_a_sentence():
    class Silent(Exception):
        def __str__(self):
            raise ValueError("no words")

        __repr__ = __str__

    @check("99.1", where="here", formula="this")
    def number(answer):
        shape_is(answer(), ())

    def raises():
        raise Silent

    for answer, words in ((lambda: 10**5000, "type int"), (Silent, "type Silent"), (raises, "stops with Silent")):
        mark = number.mark(answer)
        assert mark.result == "wrong" and words in mark.hint
