"""What the checks are made of: shape first, then value, then property, each with a hint.

A check is a function of the reader's object, under ``@check("07.1")``. It draws sizes and numbers anew at every run
(``fresh_rng``), so an answer cannot be pasted, and raises ``CheckFailed`` with one sentence that names the mistake. An
exercise that nobody has touched raises NotImplementedError, and the check says so politely.

    @check("07.1")
    def check_07_1_phi(phi):
        rng = fresh_rng()
        ...
        shape_is(got, (T,), "(T,)")
        value_is(got, want, "a tag carries the number of its own image")
        holds(np.all(np.diff(got) >= 0), "phi never falls: ...")
"""

from __future__ import annotations

import functools

import numpy as np


class CheckFailed(AssertionError):
    """An answer that is not right yet; the message is the hint."""

    def _render_traceback_(self):
        """What a notebook prints instead of a traceback through files that are not the reader's."""
        return [f"Not yet. {self}"]


def check(key):
    """Make a function of the reader's object a check: right, not begun, or ``CheckFailed`` with a hint."""

    def decorate(function):
        @functools.wraps(function)
        def run(answer):
            try:
                function(answer)
            except NotImplementedError:
                print(f"Exercise {key} is still yours to do.")
            except CheckFailed as failed:
                raise CheckFailed(f"Exercise {key}: {failed}") from None
            else:
                print(f"Exercise {key}: right.")

        run.key = key
        return run

    return decorate


def fresh_rng():
    """A generator that is different at every run."""
    return np.random.default_rng()


def gradient_by_moving(f, x, g, eps=1e-6):
    """The gradient of sum(g * f(x)) by every entry of ``x``, from central differences in float64."""
    x = np.asarray(x, np.float64)
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = eps
        found[place] = np.sum(g * (f(x + step) - f(x - step))) / (2 * eps)
    return found


def holds(condition, hint):
    """Fail with the hint unless the condition is true."""
    if not condition:
        raise CheckFailed(hint)


def shape_is(got, shape, letters="", what="your result", hint=""):
    """Fail unless ``got`` is an array of this shape; letters say how it is written, "(T, N * R)"."""
    holds(got is not None, f"{what} is None: a `return` is missing.")
    found, shape = np.shape(got), tuple(shape)
    wanted = f"{letters} = {shape}" if letters else f"{shape}"
    holds(found == shape, f"{what} has shape {found}, but {wanted} was expected. {hint}".strip())


def value_is(got, want, hint="", what="your result", tol=1e-5, mistakes=None):
    """Fail unless ``got`` equals ``want``, of the same shape, to ``tol`` of the largest value in it.

    The message gives the first place that differs, both numbers, and the hint. NaN is never right. Whole numbers
    and truth values must be equal exactly. mistakes: {hint: the value that a known mistake gives}; one that fits
    has the hint in place of the general one.
    """
    want = np.asarray(want)
    shape_is(got, want.shape, what=what)
    got = np.asarray(got)
    numbers = want.dtype.kind == "f"
    holds(not numbers or not np.isnan(got.astype(float)).any(), f"{what} has NaN in it. {hint}".strip())
    wrong = _differs(got, want, tol)
    if np.any(wrong):
        hint = next((h for h, value in (mistakes or {}).items() if not np.any(_differs(got, value, tol))), hint)
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = f" at [{', '.join(map(str, place))}]" if place else ""
        told = f"{what} is {_short(got[place])}{at}, but {_short(want[place])} was expected."
        raise CheckFailed(f"{told} {hint}".strip())


def _differs(got, want, tol):
    """Where two arrays of one shape differ."""
    want = np.asarray(want)
    if want.shape != got.shape or want.dtype.kind != "f":
        return np.asarray(want.shape != got.shape or got != want)
    return ~(np.abs(got - want) <= tol * max(np.abs(want).max(initial=0.0), 1e-30))


def _short(number):
    """A number as it is read: no dtype, five digits."""
    return f"{number:.5g}" if np.asarray(number).dtype.kind == "f" else f"{number}"
