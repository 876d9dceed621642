"""The tools of the checks: what they accept, their messages, and that one check imports no other."""

import subprocess
import sys

import numpy as np
import pytest

from tinyflamingo import checks
from tinyflamingo.checks import CheckFailed
from tinyflamingo.checks.core import check, fresh_rng, gradient_by_moving, holds, shape_is, value_is


@check("99.1")
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
        (lambda x: x, r"Exercise 99.1: your result is .* at \[0, 0\], but .* was expected. twice means times two"),
        (lambda x: 2 * x[:1], r"shape \(1, 3\), but \(T, D\) = \(2, 3\) was expected"),
        (lambda x: None, "a `return` is missing"),
        (lambda x: x * np.nan, "NaN"),
    ],
)
def test_a_wrong_answer_gets_its_hint(answer, hint):
    with pytest.raises(CheckFailed, match=hint):
        check_double(answer)


def test_an_error_in_the_answer_is_not_changed():
    with pytest.raises(ZeroDivisionError):
        check_double(lambda x: 1 / 0)


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


def test_a_notebook_shows_the_hint_and_no_traceback():
    assert CheckFailed("a hint")._render_traceback_() == ["Not yet. a hint"]


def test_every_generator_is_new():
    assert fresh_rng().integers(1 << 60) != fresh_rng().integers(1 << 60)


def test_an_unknown_check():
    for name in ("check_99_1_nothing", "check_", "anything"):
        with pytest.raises(AttributeError, match=name):
            getattr(checks, name)


def test_the_package_imports_no_check():
    code = "import sys, tinyflamingo.checks; print(*sorted(m for m in sys.modules if m.startswith('tinyflamingo')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["tinyflamingo", "tinyflamingo.checks", "tinyflamingo.checks.core", "tinyflamingo.version"]
    assert done.stdout.split() == expected
