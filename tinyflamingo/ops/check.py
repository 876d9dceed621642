"""A check for gradients that are written by hand: a comparison with finite differences, in float64.

It looks at one point and a few directions only. Implements no section of the chapter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from autograd import make_vjp
from autograd.tracer import getval

EPS = 1e-6  # length of the moves of a finite difference


def check_grad(f: Callable, *args: Any, tol: float = 1e-6, directions: int = 2) -> float:
    """Check the gradient of ``f(*args)``, an array or a scalar, for every float array in ``args``.

    The output is projected on a random vector c, and each argument is moved along random directions d. The quotient
    (c.f(x + EPS d) - c.f(x - EPS d)) / 2 EPS must equal d . vjp(c) to a relative ``tol``. Float arguments become
    float64; integers, bools and None stay. Returns the largest relative error. Raises AssertionError with the argument
    and both numbers, also if an argument has no influence (both sides are 0).
    """
    rng = np.random.default_rng(0)
    inputs = [np.array(a, np.float64) if _is_float(a) else a for a in args]
    places = [i for i, a in enumerate(inputs) if _is_float(a)]
    assert places, "check_grad: none of the arguments is a float array"
    c = rng.standard_normal(np.shape(getval(f(*inputs))))
    return max(_check_argument(f, inputs, i, c, rng, tol, directions) for i in places)


def _is_float(a):
    return isinstance(a, (np.ndarray, np.floating, float)) and np.asarray(a).dtype.kind == "f"


def _check_argument(f, args, i, c, rng, tol, directions):
    def moved(x):
        return f(*args[:i], x, *args[i + 1 :])

    gradient = make_vjp(moved)(args[i])[0](c)
    shape = args[i].shape
    assert np.shape(gradient) == shape, f"argument {i} has shape {shape}, but its gradient {np.shape(gradient)}"
    worst = 0.0
    for _ in range(directions):
        d = rng.standard_normal(shape)
        numeric = float(np.sum(c * (moved(args[i] + EPS * d) - moved(args[i] - EPS * d))) / (2 * EPS))
        analytic = float(np.sum(gradient * d))
        size = max(abs(numeric), abs(analytic))
        assert size > 0, f"argument {i} has no influence here: nothing was checked"
        error = abs(numeric - analytic) / size
        message = f"finite difference {numeric:.10g}, gradient {analytic:.10g}, relative error {error:.2g} > {tol:g}"
        assert error <= tol, f"argument {i}: {message}"  # fails for NaN too
        worst = max(worst, error)
    return worst
