"""Tools for the checks of exercises: compare the shape, then the values, then properties, each with a hint.

A check is a function of the reader's answer, decorated with ``@check("07.1")``. It draws new sizes and numbers at every
run (``fresh_rng``), so a result cannot be copied, and raises ``CheckFailed`` with one sentence that names the mistake.
An exercise that is not started raises NotImplementedError; then the check prints this.

    @check("07.1")
    def check_07_1_phi(phi):
        rng = fresh_rng()
        ...
        shape_is(got, (T,), "(T,)")
        value_is(got, want, "a tag carries the number of its own image")
        holds(np.all(np.diff(got) >= 0), "phi never falls: ...")

Not here: the checks (``nNN_*.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


class CheckFailed(AssertionError):
    """An answer that is not right yet; the message is the hint."""

    def _render_traceback_(self):
        """Lines that a notebook prints instead of a traceback through files of the package."""
        return [f"Not yet. {self}"]


def check(key: str) -> Callable[[Callable], Callable]:
    """Decorator that makes a check: it prints "right" or "not done yet", or raises ``CheckFailed`` with a hint."""

    def decorate(function):
        @functools.wraps(function)
        def run(answer):
            try:
                function(answer)
            except NotImplementedError:
                print(f"Exercise {key} is not done yet.")
            except CheckFailed as failed:
                raise CheckFailed(f"Exercise {key}: {failed}") from None
            else:
                print(f"Exercise {key}: right.")

        run.key = key  # type: ignore[attr-defined]  # the tests read it
        return run

    return decorate


def fresh_rng() -> np.random.Generator:
    """A generator that is different at every run."""
    return np.random.default_rng()


def gradient_by_moving(f: Callable, x: Any, g: Any, eps: float = 1e-6) -> np.ndarray:
    """The gradient of sum(g * f(x)) with respect to ``x``, from central differences in float64."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = eps
        gradient[place] = np.sum(g * (f(x + step) - f(x - step))) / (2 * eps)
    return gradient


def holds(condition: Any, hint: str) -> None:
    """Fail with the hint unless the condition is true."""
    if not condition:
        raise CheckFailed(hint)


def shape_is(got: Any, shape: tuple, letters: str = "", what: str = "your result", hint: str = "") -> None:
    """Fail unless ``got`` is an array of this shape. letters: the shape in letters, such as "(T, N * R)"."""
    holds(got is not None, f"{what} is None: a `return` is missing.")
    own_shape, shape = np.shape(got), tuple(shape)
    wanted = f"{letters} = {shape}" if letters else f"{shape}"
    holds(own_shape == shape, f"{what} has shape {own_shape}, but {wanted} was expected. {hint}".strip())


def value_is(
    got: Any,
    want: Any,
    hint: str = "",
    what: str = "your result",
    tol: float = 1e-5,
    mistakes: dict[str, Any] | None = None,
) -> None:
    """Fail unless ``got`` has the shape and values of ``want``, to ``tol`` times its largest absolute value.

    The message gives the first different place, both numbers and the hint. NaN is always wrong. Integers and bools must
    be equal. mistakes: {hint: the value that a known mistake gives}; if one fits, its hint replaces the general one.
    """
    want = np.asarray(want)
    shape_is(got, want.shape, what=what)
    got = np.asarray(got)
    numbers = want.dtype.kind == "f"
    holds(not numbers or not np.isnan(got.astype(float)).any(), f"{what} contains NaN. {hint}".strip())
    wrong = _differs(got, want, tol)
    if np.any(wrong):
        hint = next((h for h, value in (mistakes or {}).items() if not np.any(_differs(got, value, tol))), hint)
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = f" at [{', '.join(map(str, place))}]" if place else ""
        message = f"{what} is {_short(got[place])}{at}, but {_short(want[place])} was expected."
        raise CheckFailed(f"{message} {hint}".strip())


def _differs(got, want, tol):
    """The places where two arrays of one shape differ."""
    want = np.asarray(want)
    if want.shape != got.shape or want.dtype.kind != "f":
        return np.asarray(want.shape != got.shape or got != want)
    return ~(np.abs(got - want) <= tol * max(np.abs(want).max(initial=0.0), 1e-30))


def _short(number):
    """A number in short form: no dtype, five digits."""
    return f"{number:.5g}" if np.asarray(number).dtype.kind == "f" else f"{number}"
