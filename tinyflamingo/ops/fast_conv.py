"""Convolution, pooling and channel gates as primitives, channels last (chapter §2).

The loops (``product_kernels_numba.py``) read the pictures in place. Rows of windows for a GEMM ("im2col") would be nine
times as large, and making them costs as much as using them. Without Numba, and for wide outputs, they are made,
for a few pictures at a time (``kernels_numpy.py``). Not here: the residual blocks that use these operations
(``model/vision_encoder.py``).
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .gradients import defvjp_all, defvjp_argnums, primitive
from .reference import STANDARDISE_FLOOR, pool_weights, same_padding, windows
from .types import Array


def conv2d(x: Array, w: Array, b: Array | None = None, stride: int = 1, groups: int = 1, extra: str = "end") -> Array:
    """``reference.conv2d``: 2 B Yo Xo kh kw Cin/groups Cout flops; backward twice as many.

    Saves nothing but its arguments. Makes columns only for wide outputs, and of a few pictures at a time.
    """
    return _conv2d(x, w, np.zeros(w.shape[3], w.dtype) if b is None else b, stride, groups, extra)


@primitive
def _conv2d(x, w, b, stride, groups, extra):
    pads = _pads(x, w, stride, extra)
    return _joined([_convolve(*part, stride, pads) for part in _groups(groups, x, w, b)])


def _conv2d_vjp(argnums, ans, args, kwargs):
    x, w, _, stride, groups, extra = args
    pads = _pads(x, w, stride, extra)

    def backward(g):
        parts = _groups(groups, g, x, w)
        gradients = [None, None, None]
        if 0 in argnums:
            gradients[0] = _joined([_input_gradient(*part, stride, pads) for part in parts])
        if 1 in argnums or 2 in argnums:
            gradients[1:] = map(_joined, zip(*(_weight_gradients(*part, stride, pads) for part in parts), strict=True))
        return tuple(gradients[i] for i in argnums)

    return backward


defvjp_argnums(_conv2d, _conv2d_vjp)


def _groups(groups, *arrays):
    """The arrays of each group: the last axis is cut into equal contiguous parts."""
    if groups == 1:  # np.split takes about as long as all else around a small convolution
        return [tuple(map(np.ascontiguousarray, arrays))]
    parts = ([np.ascontiguousarray(part) for part in np.split(x, groups, axis=-1)] for x in arrays)
    return list(zip(*parts, strict=True))


def _joined(parts):
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


# ---------------------------------------------------------------- the three products, for one group


def _pads(x, w, stride, extra):
    """SAME padding: top, bottom, left, right."""
    return (*same_padding(x.shape[1], w.shape[0], stride, extra), *same_padding(x.shape[2], w.shape[1], stride, extra))


def _convolve(x, w, b, stride, pads):
    (B, Y, X, _), (kh, kw, _, Cout) = x.shape, w.shape
    top, bottom, left, right = pads
    out_y, out_x = (Y + top + bottom - kh) // stride + 1, (X + left + right - kw) // stride + 1
    out = np.empty((B, out_y, out_x, Cout), x.dtype)
    kernels.convolve(x, w, b, stride, top, left, out)
    return out


def _weight_gradients(g, x, w, stride, pads):
    """The gradients of weights and bias."""
    dw, db = np.zeros(w.shape, x.dtype), np.zeros(w.shape[3], x.dtype)
    top, _, left, _ = pads
    kernels.weight_gradients(g, x, stride, top, left, dw, db)
    return dw, db


def _input_gradient(g, x, w, stride, pads):
    """Convolutions of g with parts of the kernel, flipped: every stride-th row and column of x meets the same taps."""
    dx = np.empty(x.shape, x.dtype)
    for i, j in np.ndindex(stride, stride):
        (y, top), (x, left) = _phase(i, pads[0], len(w), stride), _phase(j, pads[2], w.shape[1], stride)
        part, pixels = w[i::stride, j::stride], dx[:, y::stride, x::stride]
        flipped = np.ascontiguousarray(part[::-1, ::-1].swapaxes(2, 3))
        if part.size:
            near = np.ascontiguousarray(g[:, max(-top, 0) :, max(-left, 0) :])
            kernels.convolve(near, flipped, np.zeros(w.shape[2], w.dtype), 1, max(top, 0), max(left, 0), pixels)
        else:
            pixels[...] = 0
    return dx


def _phase(tap, padding, size, stride):
    """First pixel with taps ``tap``, ``tap + stride`` ... (pixel + padding = output stride + tap); zeros before g."""
    pixel = (tap - padding) % stride
    return pixel, (size - 1 - tap) // stride - (pixel + padding - tap) // stride


# ---------------------------------------------------------------- weights, pixels and channels


def standardise_weight(w: Array, gain: Array) -> Array:
    """``reference.standardise_weight``: 1r 1w of the weights; saves the centred weights."""
    return _standardise_weight(w, gain, {})


@primitive
def _standardise_weight(w, gain, saved):
    rows = w.reshape(-1, w.shape[3])
    centred = saved["centred"] = rows - rows.sum(axis=0) * w.dtype.type(1.0 / len(rows))
    spread = np.einsum("nc,nc->c", centred, centred)
    saved["floored"] = spread < STANDARDISE_FLOOR
    inverse = saved["inverse"] = np.maximum(spread, w.dtype.type(STANDARDISE_FLOOR)) ** w.dtype.type(-0.5)
    return (centred * (gain * inverse)).reshape(w.shape)


def _standardise_weight_backward(g, w, gain, saved):
    centred, inverse = saved["centred"], saved["inverse"]
    g = g.reshape(centred.shape)
    along = np.einsum("nc,nc->c", g, centred)
    pull = np.where(saved["floored"], 0, along * inverse**2).astype(w.dtype)  # below the limit inverse is constant
    dw = (g - centred * pull) * (gain * inverse)
    dw -= dw.sum(axis=0) * w.dtype.type(1.0 / len(dw))
    return dw.reshape(w.shape), along * inverse


defvjp_all(_standardise_weight, _standardise_weight_backward)


@primitive
def gated_residual(shortcut: Array, branch: Array, gates: Array) -> Array:
    """``reference.gated_residual``: 2r 1w, no temporary array."""
    out = np.empty_like(branch)
    kernels.gated_residual_forward(shortcut, branch, gates, out)
    return out


def _gated_residual_backward(g, shortcut, branch, gates):
    dbranch, dgates = np.empty_like(branch), np.empty_like(gates)
    kernels.gated_residual_backward(np.ascontiguousarray(g), branch, gates, dbranch, dgates)
    return g, dbranch, dgates


defvjp_all(gated_residual, _gated_residual_backward)


@primitive
def mean_pixels(x: Array) -> Array:
    """``reference.mean_pixels``: 1r. The gradient is a broadcast view, so backward writes nothing large."""
    B, Y, X, C = x.shape
    out = np.empty((B, C), x.dtype)
    kernels.mean_pixels_forward(np.ascontiguousarray(x).reshape(B, Y * X, C), out)
    return out


def _mean_pixels_backward(g, x):
    return np.broadcast_to((g * x.dtype.type(1.0 / (x.shape[1] * x.shape[2])))[:, None, None, :], x.shape)


defvjp_all(mean_pixels, _mean_pixels_backward)


def max_pool3(x: Array, extra: str) -> Array:
    """``reference.max_pool3``: nine strided passes over x; saves one byte for each output, the number of its tap."""
    return _max_pool3(x, extra, {})


@primitive
def _max_pool3(x, extra, saved):
    first, *others = windows(x, 3, 3, 2, extra, -np.inf)
    out, winner = first.copy(), np.zeros(first.shape, np.int8)
    for i, tap in enumerate(others, start=1):
        larger = tap > out
        out[larger], winner[larger] = tap[larger], i
    saved["winner"] = winner
    return out


def _max_pool3_backward(g, x, extra, saved):
    B, Y, X, C = x.shape
    (top, bottom), (left, right) = same_padding(Y, 3, 2, extra), same_padding(X, 3, 2, extra)
    dx = np.zeros((B, Y + top + bottom, X + left + right, C), g.dtype)
    for i in range(9):
        rows, columns = slice(i // 3, i // 3 + 2 * g.shape[1] - 1, 2), slice(i % 3, i % 3 + 2 * g.shape[2] - 1, 2)
        dx[:, rows, columns] += g * (saved["winner"] == i)
    return np.ascontiguousarray(dx[:, top : top + Y, left : left + X])


defvjp_all(_max_pool3, _max_pool3_backward)


@primitive
def avg_pool2(x: Array) -> Array:
    """``reference.avg_pool2``: reads x once, writes a quarter of its size; no padded copy for odd sizes."""
    B, Y, X, C = x.shape
    half = x[:, 0::2].copy()  # lines first: they are contiguous
    half[:, : Y // 2] += x[:, 1::2]
    out = half[:, :, 0::2].copy()
    out[:, :, : X // 2] += half[:, :, 1::2]
    out *= pool_weights(Y, X, x.dtype)
    return out


def _avg_pool2_backward(g, x):
    _, Y, X, _ = x.shape
    g = g * pool_weights(Y, X, g.dtype)
    dx = np.empty(x.shape, g.dtype)
    dx[:, 0::2, 0::2] = g
    dx[:, 1::2, 0::2] = g[:, : Y // 2]
    dx[:, 0::2, 1::2] = g[:, :, : X // 2]
    dx[:, 1::2, 1::2] = g[:, : Y // 2, : X // 2]
    return dx


defvjp_all(avg_pool2, _avg_pool2_backward)
