"""How the kernels are compiled: the settings that ``kernels_numba.py`` and ``product_kernels_numba.py`` share.

``SUMS`` lets the compiler reorder additions, so that a dot product uses the whole width of a
vector register. ``fastmath=True`` would also assume that nothing is ever NaN or infinite, and our
masked scores are -inf.
"""

import numba

SUMS = {"reassoc", "contract", "nsz"}
EXACT = set()


def kernel(fastmath, **more):
    """njit with our settings, and without the cache where there is no folder to keep it in."""

    def decorate(function):
        options = {"fastmath": fastmath, "error_model": "numpy", "nogil": True, **more}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate
