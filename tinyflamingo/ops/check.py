"""Two checks for anybody who writes a gradient by hand.

``check_grad`` compares it with finite differences, in float64. ``assert_float32_backward`` sits in
the middle of a graph and fails when a gradient passes through it in another dtype: the final
gradients cannot show that, because a matrix product with float32 weights hides it again.

Neither proves a gradient right everywhere: they look at one point, along a few directions.
"""

import numpy as np
from autograd import make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import getval


def check_grad(f, *args, eps=1e-6, tol=1e-6, directions=2, seed=0):
    """Check the gradient of ``f(*args)``, an array or scalar, for every float array in ``args``.

    The output is projected on a random vector c and each argument moved by eps along a random
    direction d, both ways: (c.f(x + eps d) - c.f(x - eps d)) / 2 eps must be d . vjp(c) to a
    relative ``tol``. Arguments are raised to float64; integers, bools and None are left alone.
    Returns the largest relative error. Raises AssertionError naming the argument and both numbers,
    and also when an argument has no influence at all: a check of 0 = 0 checks nothing.
    """
    rng = np.random.default_rng(seed)
    args = [np.array(a, np.float64) if _is_float(a) else a for a in args]
    places = [i for i, a in enumerate(args) if _is_float(a)]
    assert places, "check_grad: none of the arguments is a float array"
    output = np.asarray(getval(f(*args)))
    c = rng.standard_normal(output.shape)
    return max(_check_argument(f, args, i, c, rng, eps, tol, directions) for i in places)


def _is_float(a):
    return isinstance(a, (np.ndarray, np.floating, float)) and np.asarray(a).dtype.kind == "f"


def _check_argument(f, args, i, c, rng, eps, tol, directions):
    def moved(x):
        return f(*args[:i], x, *args[i + 1 :])

    gradient = make_vjp(moved)(args[i])[0](c)
    assert np.shape(gradient) == args[i].shape, (
        f"argument {i} has shape {args[i].shape}, its gradient {np.shape(gradient)}"
    )
    worst = 0.0
    for _ in range(directions):
        d = rng.standard_normal(args[i].shape)
        difference = moved(args[i] + eps * d) - moved(args[i] - eps * d)
        numeric = float(np.sum(c * difference) / (2 * eps))
        analytic = float(np.sum(gradient * d))
        size = max(abs(numeric), abs(analytic))
        assert size > 0, f"argument {i} has no influence here: nothing was checked"
        error = abs(numeric - analytic) / size
        # Written so that NaN fails too.
        assert error <= tol, (
            f"argument {i}: finite difference {numeric:.10g}, gradient {analytic:.10g}, "
            f"relative error {error:.2g} > {tol:g}"
        )
        worst = max(worst, error)
    return worst


@primitive
def assert_float32_backward(x):
    """The identity; its backward raises AssertionError unless the gradient is float32."""
    return x


def _assert_float32(ans, x):
    def backward(g):
        assert g.dtype == np.float32, f"a gradient of {g.dtype} passes here; float32 was expected"
        return g

    return backward


defvjp(assert_float32_backward, _assert_float32)
