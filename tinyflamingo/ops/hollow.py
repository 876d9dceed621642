"""Arrays that have a shape but no numbers: they show what a model of any size would hold and compute.

`HollowGenerator` replaces `numpy.random.Generator` when parameters are made. The code that makes the toy then gives the
shape of every array of the 80B model, in milliseconds and without its memory. If the reference floor runs on hollow
arrays, `tally` counts the matrix products of a forward pass. Implements no section of the chapter.

Not here: gradients, and the fast floor, whose kernels read numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Tally:
    """Flops of matrix products, and bytes of their operands and results. Every array is read or written once."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: int) -> Tally:
        return Tally(self.flops * times, self.bytes * times)


_tallies: list[Tally] = []


@contextlib.contextmanager
def tally() -> Iterator[Tally]:
    """Count the products of hollow arrays inside a ``with`` block; blocks may be nested."""
    total = Tally()
    _tallies.append(total)
    try:
        yield total
    finally:
        _tallies.pop()


ONE_NUMBER = bytes(16)  # enough for any dtype


class Hollow(np.ndarray):
    """An array whose elements are all the same number in memory (all strides 0). Indexing gives hollow arrays too."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Hollow:
        if ufunc is np.matmul:
            return _matmul(*inputs)
        return hollow(np.broadcast_shapes(*(np.shape(x) for x in inputs)), self.dtype)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in SHAPES:
            return SHAPES[function](*args, **kwargs)
        return super().__array_function__(function, types, args, kwargs)

    def __getitem__(self, key: Any) -> Hollow:
        view = super().__getitem__(key)
        return hollow(view.shape, view.dtype)

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Hollow:
        return hollow(self.shape, dtype)


def hollow(shape: tuple[int, ...], dtype: Any = np.float32) -> Hollow:
    """An array of this shape that takes no memory."""
    return Hollow(shape, dtype, ONE_NUMBER, strides=(0,) * len(shape))


class HollowGenerator:
    """Used in place of a `numpy.random.Generator`: gives shapes without numbers."""

    def standard_normal(self, size: int | tuple[int, ...]) -> Hollow:
        """A hollow array."""
        return hollow((size,) if isinstance(size, int) else size)


# ---------------------------------------------------------------- NumPy's functions on hollow arrays


def _count(flops, *arrays):
    for total in _tallies:
        total.flops += flops
        total.bytes += sum(math.prod(np.shape(a)) * a.dtype.itemsize for a in arrays)


def _matmul(x, w):
    (*left, rows, inner), (*right, _, columns) = x.shape, w.shape
    out = hollow((*np.broadcast_shapes(tuple(left), tuple(right)), rows, columns), x.dtype)
    _count(2 * math.prod(out.shape) * inner, x, w, out)
    return out


def _einsum(pattern, *arrays):
    letters, result = pattern.split("->")
    sizes = {}
    for names, array in zip(letters.split(","), arrays, strict=True):
        sizes |= dict(zip(names, array.shape, strict=True))
    out = hollow(tuple(sizes[name] for name in result), arrays[-1].dtype)
    _count(2 * math.prod(sizes.values()), *arrays, out)
    return out


def _reduced(x, axis=None, keepdims=False, **_):
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis) % x.ndim
    sizes = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return hollow(tuple(n for i, n in enumerate(sizes) if keepdims or i not in axes), x.dtype)


def _concatenate(arrays, axis=0):
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    return hollow(tuple(shape), arrays[-1].dtype)


def _pad(x, pads, **_):
    return hollow(tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True)), x.dtype)


SHAPES: dict[Callable, Callable] = {
    np.einsum: _einsum,
    np.sum: _reduced,
    np.max: _reduced,
    np.concatenate: _concatenate,
    np.pad: _pad,
    np.linalg.qr: lambda x: (hollow(x.shape), hollow(x.shape)),
}
