"""A check that a gradient is float32 in the middle of a graph.

The final gradients cannot show this: a matrix product with float32 weights hides a float64 gradient.
"""

import numpy as np
from autograd.extend import defvjp, primitive


@primitive
def assert_float32_backward(x):
    """Return x. Its backward pass raises AssertionError if the gradient is not float32."""
    return x


def _assert_float32(ans, x):
    def backward(g):
        assert g.dtype == np.float32, f"a gradient has dtype {g.dtype} here, but float32 was expected"
        return g

    return backward


defvjp(assert_float32_backward, _assert_float32)
