"""How the kernels are compiled: the settings that the files ``*kernels_numba.py`` share.

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


def helper(fastmath):
    """A kernel that only kernels use: its body becomes part of each of them.

    Called instead, it would be compiled once more for each caller, the additions in another order,
    and which copy runs would depend on what was loaded first. Bits must not depend on a cache.
    """
    return kernel(fastmath, forceinline=True)
