"""Tools for the checks of exercises: compare the shape, then the values, then properties, each with a hint.

A check is a function of the reader's answer, decorated with ``@check("07.1", where, formula)``. It draws new sizes and
numbers at every run (``fresh_rng``), so a result cannot be copied, and raises ``CheckFailed`` with one sentence that
names the mistake. Calling the check prints "right", "not done yet" or the hints; it never raises, so that a notebook
runs on. ``mark`` gives the same as a value, for `python -m tinyflamingo class grade`.

Hints come in three steps: what is off (the message of ``CheckFailed``), where to look, and the formula. The first
failing try shows the first step; each further one, or a call of ``check_07_1_phi.hint()``, shows one more.

    @check("07.1", where="The definition of phi above the exercise.", formula="phi[l] = number of tags up to l")
    def check_07_1_phi(phi):
        rng = fresh_rng()
        ...
        shape_is(got, (T,), "(T,)")
        value_is(got, want, "a tag carries the number of its own image")
        holds(np.all(np.diff(got) >= 0), "phi never falls: ...")

Hints are English; ``holds``, ``shape_is`` and ``value_is`` translate them. A hint with values or of parts is
``_("token {token} sees nothing.").format(token=3)``.

Not here: the checks (``nNN_*.py``).
"""

from __future__ import annotations

import copy
import inspect
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyflamingo.language import _

PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
LONGEST = 300  # letters of an error's message; Numba's are pages
NOT_THEIRS = (PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<frozen")


class CheckFailed(AssertionError):
    """An answer that is not right yet; the message is the hint."""


class Mark(NamedTuple):
    """What a check finds: an exercise's number, "right", "wrong" or "open", and the hint for a wrong answer."""

    key: str
    result: str
    hint: str = ""


class Check:
    """One check. Call it with the reader's function; it prints what it finds."""

    def __init__(self, key: str, function: Callable, where: str, formula: str, in_place: bool):
        self.key, self.function, self.steps, self.in_place = key, function, (where, formula), in_place
        self.shown = 0  # steps that the reader has seen since the last right answer
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, answer: Callable) -> None:
        """Print "right", "not done yet", or what is off and the hints that are due."""
        outcome = self.mark(answer)
        if outcome.result == "open":
            print(_("Exercise {key} is not done yet.").format(key=self.key))
        elif outcome.result == "right":
            self.shown = 0
            print(_("Exercise {key}: right.").format(key=self.key))
        else:
            print(_("Exercise {key}: not yet. {hint}").format(key=self.key, hint=outcome.hint))
            self.shown += 1
            self._show(self.steps[: self.shown - 1])

    def hint(self) -> None:
        """Print one step more: where to look, then the formula."""
        self.shown = max(self.shown, 1) + 1
        self._show(self.steps[: self.shown - 1])

    def _show(self, steps):
        for line, text in zip((_("Where to look: {text}"), _("The formula: {text}")), steps, strict=False):
            print(line.format(text=_(text)))
        if len(steps) < len(self.steps):
            print(_("(Next hint: change your code and try again, or run {name}.hint().)").format(name=self.__name__))

    def mark(self, answer: Callable) -> Mark:
        """The result as a value. Only Ctrl-C gets through."""
        watched = _Watched(answer, self.in_place)
        try:
            if not callable(answer):
                raise CheckFailed(
                    _("the check wants the function itself, but got {kind}: write no () behind it.").format(
                        kind=_kind(answer)
                    )
                )
            self.function(watched)
        except NotImplementedError:
            return Mark(self.key, "open")
        except CheckFailed as failed:
            return Mark(self.key, "wrong", str(failed))
        except Exception:  # of the comparison: the answer is of a type that cannot be compared
            hint = _("your function returned {kind}, which is the wrong type for this exercise.").format(
                kind=_kind(watched.last)
            )
            return Mark(self.key, "wrong", hint)
        return Mark(self.key, "right")


def check(key: str, where: str, formula: str, in_place: bool = False) -> Callable[[Callable], Check]:
    """Decorator that makes a check. in_place: the reader's function is to write into its arguments."""
    return lambda function: Check(key, function, where, formula, in_place)


class _Watched:
    """The reader's function. Its errors become a hint with the reader's own line; it must not change its arguments."""

    def __init__(self, answer, in_place):
        self.answer, self.in_place, self.last = answer, in_place, None

    def __call__(self, *args, **kwargs):
        before = [] if self.in_place else [_copy(x) for x in args]
        try:
            self.last = self.answer(*args, **kwargs)
        except (NotImplementedError, CheckFailed):
            raise
        except (Exception, SystemExit) as error:
            raise CheckFailed(own_line(error)) from error
        for place, (old, new) in enumerate(zip(before, args, strict=bool(before))):
            name = _name_of_argument(self.answer, place)
            hint = _("{name}, which was passed in, has changed: work on a copy, or return something new.").format(
                name=name
            )
            holds(_same(old, new), hint)
        return self.last


def own_line(error: BaseException) -> str:
    """One sentence about an error: its kind, its message, and the line of the reader's code it comes from."""
    message = " ".join(_words(str, error).split())[:LONGEST]
    message_of_error = f"{type(error).__name__}: {message}" if message else type(error).__name__
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(NOT_THEIRS)]
    if not theirs:
        return _("your function cannot be called as the exercise says. {error}").format(error=message_of_error)
    line = theirs[-1].line or linecache.getline(theirs[-1].filename, theirs[-1].lineno or 0)
    code = f": `{line.strip()}`" if line.strip() else ""
    return _("line {line_number} of your cell, in {function}, stops with {error}{code}").format(
        line_number=theirs[-1].lineno, function=theirs[-1].name, error=message_of_error, code=code
    )


def _copy(value):
    """A copy of arrays, lists and dicts; everything else, as functions, is the same."""
    return copy.deepcopy(value) if isinstance(value, (np.ndarray, list, dict)) else value


def _same(old, new):
    """Whether nothing has changed, bit for bit."""
    if isinstance(old, dict):
        return list(old) == list(new) and all(_same(old[k], new[k]) for k in old)
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, np.ndarray):
        return old.shape == np.shape(new) and old.tobytes() == np.asarray(new).tobytes()
    return old is new or bool(old == new)


def _name_of_argument(function, place):
    try:
        return f"`{list(inspect.signature(function).parameters)[place]}`"
    except (TypeError, ValueError, IndexError):
        return _("argument {place}").format(place=place + 1)


def _kind(value):
    """A value's type in words, with the value if it is short."""
    if value is None:
        return _("None (a `return` is missing?)")
    shown = _words(repr, value)
    short = 0 < len(shown) < 40 and "\n" not in shown
    return _("a value of type {type}").format(type=type(value).__name__) + (f", {shown}" if short else "")


def _words(function, value):
    """str or repr of a reader's object; nothing if that stops with an error, as for an int of 5000 digits."""
    try:
        return function(value)
    except Exception:
        return ""


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
        raise CheckFailed(_(hint))


def whole_numbers(got: Any) -> list[int]:
    """The numbers of a list as int. Fails unless each is whole."""
    numbers = list(got)
    holds(all(int(n) == n for n in numbers), "some numbers of your result are not whole.")
    return [int(n) for n in numbers]


def integers_are(got: Any, what: str = "your result") -> None:
    """Fail unless the numbers are of an integer type, such as indices need."""
    hint = _("{what} holds {dtype}; it should hold integers: int, not float.")
    dtype = np.asarray(got).dtype
    holds(dtype.kind in "iu", hint.format(what=_(what), dtype=dtype))


def shape_is(got: Any, shape: tuple, letters: str = "", what: str = "your result", hint: str = "") -> None:
    """Fail unless ``got`` is an array of numbers of this shape. letters: such as "(T, N * R)"."""
    what = _(what)
    holds(got is not None, _("{what} is None: a `return` is missing.").format(what=what))
    holds(
        np.asarray(got).dtype.kind in "biuf",
        _("{what} is {kind}; numbers were expected.").format(what=what, kind=_kind(got)),
    )
    own_shape, shape = np.shape(got), tuple(shape)
    wanted = f"{_(letters)} = {shape}" if letters else f"{shape}"
    holds(
        own_shape == shape,
        _("{what} has shape {own_shape}, but {wanted} was expected. {hint}")
        .format(what=what, own_shape=own_shape, wanted=wanted, hint=_(hint))
        .strip(),
    )


def pair_is(got: Any, names: tuple) -> None:
    """Fail unless ``got`` is a tuple or list with one entry for each name."""
    holds(got is not None, "your result is None: a `return` is missing.")
    right = isinstance(got, (tuple, list)) and len(got) == len(names)
    holds(
        right,
        _("{number} results were expected, {names}; your function returned {kind}.").format(
            number=len(names), names=", ".join(names), kind=_kind(got)
        ),
    )


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
    want, what = np.asarray(want), _(what)
    shape_is(got, want.shape, what=what)
    got = np.asarray(got)
    numbers = want.dtype.kind == "f"
    holds(
        not numbers or not np.isnan(got.astype(float)).any(),
        _("{what} contains NaN. {hint}").format(what=what, hint=_(hint)).strip(),
    )
    wrong = _differs(got, want, tol)
    if np.any(wrong):
        hint = next((h for h, value in (mistakes or {}).items() if not np.any(_differs(got, value, tol))), hint)
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = _(" at [{place}]").format(place=", ".join(map(str, place))) if place else ""
        message = _("{what} is {got}{at}, but {want} was expected. {hint}").format(
            what=what, got=_short(got[place]), at=at, want=_short(want[place]), hint=_(hint)
        )
        raise CheckFailed(message.strip())


def _differs(got, want, tol):
    """The places where two arrays of one shape differ."""
    want = np.asarray(want)
    if want.shape != got.shape or want.dtype.kind != "f":
        return np.asarray(want.shape != got.shape or got != want)
    return ~(np.abs(got - want) <= tol * max(np.abs(want).max(initial=0.0), 1e-30))


def _short(number):
    """A number in short form: no dtype, five digits."""
    return f"{number:.5g}" if np.asarray(number).dtype.kind == "f" else f"{number}"
