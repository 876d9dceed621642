"""Convolution and pooling, channels last, as primitives: GEMM on cache-sized blocks of pictures.

A k x k convolution is a GEMM once every output pixel has its k k Cin inputs in a row ("im2col").
Done for a whole batch those rows fill memory nine times over, and the copy costs more than the
GEMM; done for a few pictures at a time they stay in L2. Backward makes them again, it keeps none.
"""

import numpy as np
from autograd.extend import defvjp, defvjp_argnums, primitive

from . import kernels
from .reference import pool_weights, same_padding

COLUMN_BYTES = 1 << 19  # half of a common L2 cache: the other half is for the GEMM


def conv2d(x, w, b=None, stride=1, groups=1):
    """``reference.conv2d``: 2 B Yo Xo kh kw Cin/groups Cout flops, a GEMM a block and group.

    Backward: the same twice. Never holds the columns of more than a few pictures.
    """
    y = _conv2d(x, w, stride, groups)
    return y if b is None else _add_bias(y, b)


@primitive
def _add_bias(y, b):
    return y + b


defvjp(
    _add_bias,
    lambda ans, y, b: lambda g: g,
    lambda ans, y, b: lambda g: g.reshape(-1, g.shape[-1]).sum(axis=0),
)


@primitive
def _conv2d(x, w, stride, groups):
    kh, kw, _, Cout = w.shape
    pads = (*same_padding(x.shape[1], kh, stride), *same_padding(x.shape[2], kw, stride))
    return _correlate(x, w, stride, groups, pads)


def _conv2d_vjp(argnums, ans, args, kwargs):
    x, w, stride, groups = args

    def backward(g):
        g = np.ascontiguousarray(g)
        makers = (_input_gradient, _weight_gradient)
        return tuple(makers[i](g, x, w, stride, groups) for i in argnums)

    return backward


defvjp_argnums(_conv2d, _conv2d_vjp)


# ---------------------------------------------------------------- the three products


def _correlate(x, w, stride, groups, pads):
    """Forward: columns times weights, block by block. ``pads``: top, bottom, left, right."""
    B, Y, X, _ = x.shape
    kh, kw, _, Cout = w.shape
    out_y = (Y + pads[0] + pads[1] - kh) // stride + 1
    out_x = (X + pads[2] + pads[3] - kw) // stride + 1
    matrix = _by_group(w, groups)
    out = np.empty((B, out_y, out_x, Cout), x.dtype)
    flat = out.reshape(B, -1, Cout)
    for block, columns in _column_blocks(x, kh, kw, stride, groups, pads, (out_y, out_x)):
        target = flat[block].reshape(-1, groups, Cout // groups).swapaxes(0, 1)
        np.matmul(columns, matrix, out=target)
    return out


def _weight_gradient(g, x, w, stride, groups):
    """columns^T g, summed over the blocks."""
    kh, kw, width, Cout = w.shape
    pads = (*same_padding(x.shape[1], kh, stride), *same_padding(x.shape[2], kw, stride))
    total = np.zeros((groups, kh * kw * width, Cout // groups), x.dtype)
    for block, columns in _column_blocks(x, kh, kw, stride, groups, pads, g.shape[1:3]):
        gradient = g[block].reshape(-1, groups, Cout // groups).swapaxes(0, 1)
        total += np.matmul(columns.swapaxes(1, 2), gradient)
    return total.transpose(1, 0, 2).reshape(w.shape)


def _input_gradient(g, x, w, stride, groups):
    """Stride 1: a convolution of g with the flipped kernel. Otherwise columns, added back."""
    kh, kw, width, Cout = w.shape
    top, bottom = same_padding(x.shape[1], kh, stride)
    left, right = same_padding(x.shape[2], kw, stride)
    if stride > 1:
        return _columns_back(g, x, w, stride, groups, (top, bottom, left, right))
    parts = w[::-1, ::-1].reshape(kh, kw, width, groups, Cout // groups)
    flipped = parts.transpose(0, 1, 4, 3, 2).reshape(kh, kw, Cout // groups, groups * width)
    return _correlate(g, flipped, 1, groups, (bottom, top, right, left))


def _columns_back(g, x, w, stride, groups, pads):
    """g times weights^T gives the columns' gradient; each tap adds its share to the picture."""
    B, Y, X, C = x.shape
    kh, kw, width, Cout = w.shape
    out_y, out_x = g.shape[1:3]
    dx = np.zeros((B, Y + pads[0] + pads[1], X + pads[2] + pads[3], C), x.dtype)
    matrix = _by_group(w, groups).swapaxes(1, 2)
    for block in _picture_blocks(B, out_y * out_x * kh * kw * C * x.itemsize):
        gradient = g[block].reshape(-1, groups, Cout // groups).swapaxes(0, 1)
        taps = np.matmul(gradient, matrix).reshape(groups, -1, out_y, out_x, kh, kw, width)
        taps = taps.transpose(4, 5, 1, 2, 3, 0, 6)
        for dy in range(kh):
            for dx_ in range(kw):
                rows = slice(dy, dy + (out_y - 1) * stride + 1, stride)
                cols = slice(dx_, dx_ + (out_x - 1) * stride + 1, stride)
                share = taps[dy, dx_]
                dx[block, rows, cols] += share.reshape(*share.shape[:3], C)
    return dx[:, pads[0] : pads[0] + Y, pads[2] : pads[2] + X]


# ---------------------------------------------------------------- columns


def _by_group(w, groups):
    """(kh, kw, Cin/groups, Cout) -> (groups, kh kw Cin/groups, Cout/groups)."""
    kh, kw, width, Cout = w.shape
    return w.reshape(kh * kw * width, groups, Cout // groups).swapaxes(0, 1)


def _picture_blocks(B, picture_bytes):
    step = max(COLUMN_BYTES // max(picture_bytes, 1), 1)
    return [slice(i, min(i + step, B)) for i in range(0, B, step)]


def _column_blocks(x, kh, kw, stride, groups, pads, out_shape):
    """Yield (pictures, columns (groups, pixels, kh kw Cin/groups)); the buffer is reused.

    A 1x1 kernel needs no columns: its blocks are views of x (a strided copy if stride > 1).
    """
    B, Y, X, C = x.shape
    if kh == kw == 1:
        pixels = x if stride == 1 else x[:, ::stride, ::stride]
        yield slice(0, B), pixels.reshape(-1, groups, C // groups).swapaxes(0, 1)
        return
    pixels = out_shape[0] * out_shape[1]
    taps = kh * kw * C // groups
    blocks = _picture_blocks(B, pixels * kh * kw * C * x.itemsize)
    step = blocks[0].stop if blocks else 0
    padded = np.zeros((step, Y + pads[0] + pads[1], X + pads[2] + pads[3], C), x.dtype)
    lines = padded.reshape(step, padded.shape[1], -1)
    inner = padded[:, pads[0] : pads[0] + Y, pads[2] : pads[2] + X]
    buffer = np.empty(step * pixels * kh * kw * C, x.dtype)
    for block in blocks:
        n = block.stop - block.start
        inner[:n] = x[block]
        columns = buffer[: n * pixels * taps * groups]
        windows = columns.reshape(groups, n, *out_shape, kh, -1)
        kernels.columns(lines[:n], kh, kw, stride, C, windows)
        yield block, columns.reshape(groups, n * pixels, taps)


# ---------------------------------------------------------------- pooling


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
