"""Arrays that have a shape and no numbers: to count what a model of any size would hold and do.

`HollowGenerator` stands in for `numpy.random.Generator` when parameters are made: the very code that
makes a toy then says the shape of every array of an 80B, in milliseconds and without its memory.
Put through the reference floor, hollow arrays tell what a forward pass computes: `tally` counts its
matrix products. It implements no section of the chapter.

Not here: gradients, and the fast floor, whose kernels read numbers.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Tally:
    """Flops of matrix products, and bytes of their operands and results, each read or written once."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other):
        return Tally(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times):
        return Tally(self.flops * times, self.bytes * times)


_tallies: list = []


@contextlib.contextmanager
def tally():
    """Count the products of hollow arrays inside a ``with`` block; they may be nested."""
    mine = Tally()
    _tallies.append(mine)
    try:
        yield mine
    finally:
        _tallies.remove(mine)


NOTHING = bytes(16)  # the one number, of any type


class Hollow(np.ndarray):
    """One number seen everywhere (all strides 0). Views are views; whatever computes gives another one."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if ufunc is np.matmul:
            return _matmul(*inputs)
        return hollow(np.broadcast_shapes(*(np.shape(x) for x in inputs)), self.dtype)

    def __array_function__(self, function, types, args, kwargs):
        if function in SHAPES:
            return SHAPES[function](*args, **kwargs)
        return super().__array_function__(function, types, args, kwargs)

    def __getitem__(self, key):
        return _as_hollow(super().__getitem__(key))

    def astype(self, dtype, *args, **kwargs):
        return hollow(self.shape, dtype)


def hollow(shape, dtype=np.float32):
    """An array of this shape that takes no memory."""
    return Hollow(shape, dtype, NOTHING, strides=(0,) * len(shape))


class HollowGenerator:
    """Deals out shapes where a `numpy.random.Generator` deals out numbers."""

    def standard_normal(self, size):
        """A hollow array."""
        return hollow((size,) if isinstance(size, int) else size)


# ---------------------------------------------------------------- what NumPy's functions give


def _as_hollow(x):
    return hollow(x.shape, x.dtype)


def _count(flops, *arrays):
    for mine in _tallies:
        mine.flops += flops
        mine.bytes += sum(math.prod(np.shape(a)) * a.dtype.itemsize for a in arrays)


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


def _qr(x):
    return hollow(x.shape), hollow(x.shape)


SHAPES = {
    np.einsum: _einsum,
    np.sum: _reduced,
    np.max: _reduced,
    np.concatenate: _concatenate,
    np.pad: _pad,
    np.linalg.qr: _qr,
}
