"""A small shape check: ``expect(x, "B T D", B=2)``; and two views of arrays with heads.

Shape comments that nothing checks become wrong. This one is checked if the environment has TINYFLAMINGO_CHECK=1 (the
tests set it); otherwise it costs one ``if``. It checks sizes only, no dtypes. Implements no section of the chapter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .types import Array

ENABLED = os.environ.get("TINYFLAMINGO_CHECK", "0") == "1"


def expect(x: Array, pattern: str, **sizes: int) -> Array:
    """Return ``x`` after checking its shape against ``pattern``, e.g. ``expect(x, "B T D", D=64)``.

    A letter in ``sizes`` must have that size. Another letter may have any size, but the same everywhere in the pattern.
    A number is a size. Raises ValueError.
    """
    if ENABLED:
        _compare(tuple(x.shape), pattern, sizes)
    return x


def _compare(shape, pattern, sizes):
    names = pattern.split()
    if len(shape) != len(names):
        raise ValueError(f"expected axes '{pattern}', got {len(shape)} axes: shape {shape}")
    known = dict(sizes)
    for name, size in zip(names, shape, strict=True):
        wanted = int(name) if name.isdigit() else known.setdefault(name, size)
        if wanted != size:
            raise ValueError(f"axis {name} of '{pattern}' should be {wanted} but is {size}: shape {shape}")


@contextlib.contextmanager
def checking(on: bool = True) -> Iterator[None]:
    """Turn the checks on (or off) inside a ``with`` block."""
    global ENABLED
    before, ENABLED = ENABLED, on
    try:
        yield
    finally:
        ENABLED = before


def heads_first(x: Array) -> Array:
    """(B, T, H, K) -> (B, H, T, K), a view: BLAS reads such strides without a copy."""
    return x.transpose(0, 2, 1, 3)


def transposed(x: Array) -> Array:
    """The last two axes swapped, a view."""
    return x.swapaxes(-1, -2)
