"""How Numba compiles the kernels: settings shared by ``kernels_numba.py`` and ``product_kernels_numba.py``.

``SUMS`` lets the compiler reorder additions, so that a dot product uses the full width of a vector register.
``fastmath=True`` would also assume that no number is NaN or infinite, but our masked scores are -inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

SUMS = {"reassoc", "contract", "nsz"}
EXACT: set[str] = set()


def kernel(fastmath: set[str], **more: Any) -> Callable:
    """numba.njit with our settings. If Numba finds no folder for its cache, it compiles without one."""

    def decorate(function):
        options = {"fastmath": fastmath, "error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, **more}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate


def helper(fastmath: set[str]) -> Callable:
    """A function that only kernels call; Numba inserts its body into each of them.

    If it were called instead, Numba would compile it once for each caller, with the additions in different orders, and
    the copy that runs would depend on what was loaded first. Bits must not depend on a cache.
    """
    return kernel(fastmath, forceinline=True)
