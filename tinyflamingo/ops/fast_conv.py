"""Convolution, pooling and channel gates, channels last, as primitives.

The loops (``product_kernels_numba.py``) read the pictures as they lie. Rows of windows for a GEMM
("im2col") would be nine times as large, and making them costs as much as using them; without Numba
that is what happens, a few pictures at a time (``kernels_numpy.py``).
"""

import numpy as np
from autograd.extend import defvjp, defvjp_argnums, primitive

from . import kernels
from .reference import STANDARDISE_FLOOR, pool_weights, same_padding, windows

COLUMN_BYTES = 1 << 19  # half of a common L2 cache: the other half is for the GEMM
FEW_CHANNELS = 16  # a row of so few is too short for the convolution's innermost loop


def conv2d(x, w, b=None, stride=1, groups=1, odd="end"):
    """``reference.conv2d``: 2 B Yo Xo kh kw Cin/groups Cout flops; backward the same twice.

    Keeps nothing but its arguments. Allocates no columns; strided ones need some pictures' in backward.
    """
    return _conv2d(x, w, np.zeros(w.shape[3], w.dtype) if b is None else b, stride, groups, odd)


@primitive
def _conv2d(x, w, b, stride, groups, odd):
    pads = _pads(x, w, stride, odd)
    parts = [_convolve(*part, stride, pads) for part in zip(*_grouped(groups, x, w, b), strict=True)]
    return _joined(parts)


def _conv2d_vjp(argnums, ans, args, kwargs):
    x, w, b, stride, groups, odd = args
    pads = _pads(x, w, stride, odd)

    def backward(g):
        x_parts, w_parts, _ = _grouped(groups, x, w, b)
        g_parts = _split(g, groups)
        found = [None, None, None]
        if 0 in argnums:
            parts = zip(g_parts, x_parts, w_parts, strict=True)
            found[0] = _joined([_input_gradient(*part, stride, pads) for part in parts])
        if 1 in argnums or 2 in argnums:
            parts = zip(g_parts, x_parts, w_parts, strict=True)
            found[1:] = map(_joined, zip(*(_weight_gradients(*part, stride, pads) for part in parts), strict=True))
        return tuple(found[i] for i in argnums)

    return backward


defvjp_argnums(_conv2d, _conv2d_vjp)


# ---------------------------------------------------------------- groups


def _grouped(groups, x, w, b):
    """Every group's channels of x, weights and bias. Inputs and weights are split by other axes:
    w (kh, kw, Cin/groups, Cout) holds the inputs of one group and the outputs of all."""
    return _split(x, groups), _split(w, groups), _split(b, groups)


def _split(x, groups):
    """The last axis in equal contiguous parts; x itself for one group."""
    return [np.ascontiguousarray(part) for part in np.split(x, groups, axis=-1)]


def _joined(parts):
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


# ---------------------------------------------------------------- the three products, for one group


def _pads(x, w, stride, odd):
    """SAME padding: top, bottom, left, right."""
    return (*same_padding(x.shape[1], w.shape[0], stride, odd), *same_padding(x.shape[2], w.shape[1], stride, odd))


def _convolve(x, w, b, stride, pads):
    (B, Y, X, _), (kh, kw, _, Cout) = x.shape, w.shape
    top, bottom, left, right = pads
    out_y, out_x = (Y + top + bottom - kh) // stride + 1, (X + left + right - kw) // stride + 1
    out = np.empty((B, out_y, out_x, Cout), x.dtype)
    kernels.convolve(x, w, b, stride, top, left, out)
    return out


def _weight_gradients(g, x, w, stride, pads):
    """Gradients of weights and bias."""
    dw, db = np.zeros(w.shape, x.dtype), np.zeros(w.shape[3], x.dtype)
    top, _, left, _ = pads
    kernels.weight_gradients(g, x, stride, top, left, dw, db)
    return dw, db


def _input_gradient(g, x, w, stride, pads):
    """Stride 1: a convolution of g with the flipped kernel. Else, and to few channels: columns, added back."""
    kh, kw, Cin, _ = w.shape
    if stride == 1 and Cin > FEW_CHANNELS:
        top, bottom, left, right = pads
        flipped = np.ascontiguousarray(w[::-1, ::-1].swapaxes(2, 3))
        pads = (kh - 1 - top, kh - 1 - bottom, kw - 1 - left, kw - 1 - right)
        return _convolve(g, flipped, np.zeros(Cin, w.dtype), 1, pads)
    return _columns_back(g, x, w, stride, pads)


def _columns_back(g, x, w, stride, pads):
    """g times weights^T gives the columns' gradient; each window adds its share to the picture."""
    (B, Y, X, C), (kh, kw, _, Cout) = x.shape, w.shape
    out_y, out_x = g.shape[1:3]
    dx = np.zeros((B, Y + pads[0] + pads[1], X + pads[2] + pads[3], C), x.dtype)
    lines = dx.reshape(B, dx.shape[1], -1)
    matrix = w.reshape(-1, Cout).T
    step = max(COLUMN_BYTES // (out_y * out_x * kh * kw * C * x.itemsize), 1)
    for i in range(0, B, step):
        columns = g[i : i + step].reshape(-1, Cout) @ matrix
        kernels.columns_back(columns.reshape(-1, out_y, out_x, kh, kw * C), stride, C, lines[i : i + step])
    return np.ascontiguousarray(dx[:, pads[0] : pads[0] + Y, pads[2] : pads[2] + X])


# ---------------------------------------------------------------- weights


def standardise_weight(w, gain):
    """``reference.standardise_weight``: 1r 1w of the weights; keeps them centred."""
    return _standardise_weight(w, gain, {})


@primitive
def _standardise_weight(w, gain, saved):
    rows = w.reshape(-1, w.shape[3])
    centred = saved["centred"] = rows - rows.sum(axis=0) * w.dtype.type(1.0 / len(rows))
    spread = np.einsum("nc,nc->c", centred, centred)
    saved["floored"] = spread < STANDARDISE_FLOOR
    inverse = saved["inverse"] = np.maximum(spread, w.dtype.type(STANDARDISE_FLOOR)) ** w.dtype.type(-0.5)
    return (centred * (gain * inverse)).reshape(w.shape)


def _standardise_weight_vjp(argnums, ans, args, kwargs):
    w, gain, saved = args
    centred, inverse = saved["centred"], saved["inverse"]

    def backward(g):
        g = g.reshape(centred.shape)
        along = np.einsum("nc,nc->c", g, centred)
        pull = np.where(saved["floored"], 0, along * inverse**2).astype(w.dtype)  # below the floor it is constant
        dw = (g - centred * pull) * (gain * inverse)
        dw -= dw.sum(axis=0) * w.dtype.type(1.0 / len(dw))
        return tuple((dw.reshape(w.shape), along * inverse)[i] for i in argnums)

    return backward


defvjp_argnums(_standardise_weight, _standardise_weight_vjp)


# ---------------------------------------------------------------- pixels and channels


@primitive
def gated_residual(shortcut, branch, gates):
    """``reference.gated_residual``: 2r 1w, nothing in between."""
    out = np.empty_like(branch)
    kernels.gated_residual_forward(shortcut, branch, gates, out)
    return out


def _gated_residual_vjp(argnums, ans, args, kwargs):
    _, branch, gates = args

    def backward(g):
        dbranch, dgates = np.empty_like(branch), np.empty_like(gates)
        kernels.gated_residual_backward(np.ascontiguousarray(g), branch, gates, dbranch, dgates)
        return tuple((g, dbranch, dgates)[i] for i in argnums)

    return backward


defvjp_argnums(gated_residual, _gated_residual_vjp)


@primitive
def mean_pixels(x):
    """``reference.mean_pixels``: 1r. Backward writes nothing: its gradient is a broadcast view."""
    B, Y, X, C = x.shape
    out = np.empty((B, C), x.dtype)
    kernels.mean_pixels_forward(np.ascontiguousarray(x).reshape(B, Y * X, C), out)
    return out


def _mean_pixels_vjp(ans, x):
    share = x.dtype.type(1.0 / (x.shape[1] * x.shape[2]))
    return lambda g: np.broadcast_to((g * share)[:, None, None, :], x.shape)


defvjp(mean_pixels, _mean_pixels_vjp)


# ---------------------------------------------------------------- pooling


def max_pool3(x, odd):
    """``reference.max_pool3``: nine strided passes over x; keeps a byte an output, which tap it was."""
    return _max_pool3(x, odd, {})


@primitive
def _max_pool3(x, odd, saved):
    first, *others = windows(x, 3, 3, 2, odd, -np.inf)
    out, winner = first.copy(), np.zeros(first.shape, np.int8)
    for i, tap in enumerate(others, start=1):
        larger = tap > out
        out[larger], winner[larger] = tap[larger], i
    saved["winner"] = winner
    return out


def _max_pool3_vjp(ans, x, odd, saved):
    _, Y, X, _ = x.shape
    (top, bottom), (left, right) = same_padding(Y, 3, 2, odd), same_padding(X, 3, 2, odd)

    def backward(g):
        dx = np.zeros((len(x), Y + top + bottom, X + left + right, x.shape[3]), g.dtype)
        for i in range(9):
            rows, columns = slice(i // 3, i // 3 + 2 * g.shape[1] - 1, 2), slice(i % 3, i % 3 + 2 * g.shape[2] - 1, 2)
            dx[:, rows, columns] += g * (saved["winner"] == i)
        return np.ascontiguousarray(dx[:, top : top + Y, left : left + X])

    return backward


defvjp(_max_pool3, _max_pool3_vjp)


@primitive
def avg_pool2(x):
    """``reference.avg_pool2``: 1r of x, 1w of a quarter; no padded copy at odd sizes."""
    B, Y, X, C = x.shape
    half = x[:, :, 0::2].copy()
    half[:, :, : X // 2] += x[:, :, 1::2]
    out = half[:, 0::2].copy()
    out[:, : Y // 2] += half[:, 1::2]
    out *= pool_weights(Y, X, x.dtype)
    return out


def _avg_pool2_vjp(ans, x):
    B, Y, X, C = x.shape

    def backward(g):
        share = g * pool_weights(Y, X, g.dtype)
        dx = np.empty((B, Y, X, C), g.dtype)
        dx[:, 0::2, 0::2] = share
        dx[:, 1::2, 0::2] = share[:, : Y // 2]
        dx[:, 0::2, 1::2] = share[:, :, : X // 2]
        dx[:, 1::2, 1::2] = share[:, : Y // 2, : X // 2]
        return dx

    return backward


defvjp(avg_pool2, _avg_pool2_vjp)
