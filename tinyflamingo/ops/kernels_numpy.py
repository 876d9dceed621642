"""The kernels in vectorised NumPy, with the same names and arguments.

They serve machines without Numba, wide convolutions, and causal attention of few queries, as in decoding. Each equals
the loop of the same name in ``kernels_numba.py`` or ``product_kernels_numba.py``, which describes it. They fill the
arrays that they get, but need temporary arrays. Implements no section of the chapter. Not here: masked cross-attention
(``segment_blocks.py``).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .reference import adamw  # noqa: F401  # it is vectorised already
from .shapes import heads_first, transposed

GELU_C = 0.7978845608028654  # sqrt(2 / pi)
GELU_A = 0.044715
PICTURES = 8  # pictures whose columns are made at a time


def rms_norm_forward(x, gain, eps, out, inverse):
    inverse[:] = 1.0 / np.sqrt(np.einsum("md,md->m", x, x) * x.dtype.type(1 / x.shape[1]) + eps)
    np.multiply(x, inverse[:, None], out=out)
    out *= gain


def rms_norm_backward(g, x, gain, inverse, dx, dgain):
    dgain[:] = np.einsum("md,md,m->d", g, x, inverse)
    np.multiply(g, gain, out=dx)
    pull = np.einsum("md,md->m", dx, x) * inverse**3 * x.dtype.type(1 / x.shape[1])
    dx *= inverse[:, None]
    dx -= x * pull[:, None]


def layer_norm_forward(x, gain, bias, eps, out, mean, inverse):
    mean[:] = x.mean(axis=1)
    np.subtract(x, mean[:, None], out=out)
    variance = np.einsum("md,md->m", out, out) * x.dtype.type(1 / x.shape[1])
    inverse[:] = 1.0 / np.sqrt(variance + eps)
    out *= inverse[:, None]
    out *= gain
    out += bias


def layer_norm_backward(g, x, gain, mean, inverse, dx, dgain, dbias):
    normal = (x - mean[:, None]) * inverse[:, None]
    dgain[:] = np.einsum("md,md->d", g, normal)
    dbias[:] = g.sum(axis=0)
    np.multiply(g, gain, out=dx)
    pull = np.einsum("md,md->m", dx, normal) * x.dtype.type(1 / x.shape[1])
    dx -= dx.mean(axis=1)[:, None]
    dx -= normal * pull[:, None]
    dx *= inverse[:, None]


def gelu_forward(x, gain, out):
    np.multiply(x, x, out=out)
    out *= GELU_C * GELU_A
    out += GELU_C
    out *= x
    np.tanh(out, out=out)
    out += 1.0
    out *= x
    out *= 0.5 * gain


def gelu_backward(g, x, gain, dx):
    np.multiply(x, x, out=dx)
    dx *= GELU_C * GELU_A
    t = np.tanh(x * (dx + GELU_C))
    dx *= 3.0
    dx += GELU_C
    dx *= x
    dx *= 1.0 - t * t
    dx += t
    dx += 1.0
    dx *= g
    dx *= 0.5 * gain


def _phi(x):
    """The normal distribution function. NumPy has no erf, so `math.erf` runs element by element."""
    return 0.5 + 0.5 * np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5))


def gelu_erf_forward(x, out):
    np.multiply(x, _phi(x), out=out)


def gelu_erf_backward(g, x, dx):
    np.multiply(x, x, out=dx)
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= x
    dx *= (2 * math.pi) ** -0.5
    dx += _phi(x)
    dx *= g


def squared_relu_forward(x, out):
    np.maximum(x, 0, out=out)
    out *= out


def squared_relu_backward(g, x, dx):
    np.maximum(x, 0, out=dx)
    dx += dx
    dx *= g


def scatter_add_rows(g, ids, dtable):
    if len(ids) == 0:
        return
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    dtable[ordered[first]] += np.add.reduceat(g[order], first, axis=0)


def subtract_row_max(scores):
    scores -= scores.max(axis=1, keepdims=True)


def mask_and_subtract_row_max(scores, key_mask):
    np.copyto(scores, -np.inf, where=~key_mask[:, None, None, :])
    top = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isneginf(top), 0, top).astype(scores.dtype)


def normalise_rows(weights):
    total = weights.sum(axis=-1, keepdims=True)
    np.divide(weights, total, out=weights, where=total != 0)


def softmax_backward(p, dp):
    dp -= np.einsum("...s,...s->...", p, dp)[..., None]
    dp *= p


def relative_forward(qu, qv, k, v, far_first, visible_from, out):
    (B, T, H, _), S = qu.shape, k.shape[1]
    by_distance = np.matmul(heads_first(qv), transposed(heads_first(far_first[None])))
    padded = np.concatenate([np.zeros((B, H, T, 1), qu.dtype), by_distance], axis=3).reshape(B, H, -1)
    p = np.matmul(heads_first(qu), transposed(heads_first(k)))
    p += padded[:, :, T:].reshape(p.shape)  # row i begins T - 1 - i places later; what follows its own key is masked
    own, key = S - T + np.arange(T)[:, None], np.arange(S)
    visible = (key <= own) & (key >= visible_from[:, :, None])
    np.copyto(p, -np.inf, where=~visible[:, None])
    top = p.max(axis=-1, keepdims=True)
    p -= np.where(np.isneginf(top), 0, top).astype(p.dtype)
    np.exp(p, out=p)
    normalise_rows(p)
    np.matmul(p, heads_first(v), out=heads_first(out))
    return p


def relative_backward(g, qu, qv, k, v, far_first, p, by_content, by_position, dk, dv, dfar):
    (B, H, T, S), g = p.shape, heads_first(g)
    ds = np.matmul(g, transposed(heads_first(v)))
    softmax_backward(p, ds)
    padded = np.concatenate([np.zeros((B, H, T), p.dtype), ds.reshape(B, H, -1)], axis=2)
    by_distance = padded.reshape(B, H, T, S + 1)[..., 1:]  # the inverse of the shift in `relative_forward`
    np.matmul(ds, heads_first(k), out=heads_first(by_content))
    np.matmul(by_distance, heads_first(far_first[None]), out=heads_first(by_position))
    heads_first(dk)[...] += np.matmul(transposed(ds), heads_first(qu))
    heads_first(dv)[...] += np.matmul(transposed(p), g)
    if len(dfar):
        heads_first(dfar[None])[0] += np.matmul(transposed(by_distance), heads_first(qv)).sum(axis=0)


def convolve(x, w, b, stride, top, left, out):
    for part, columns in _columns(x, w.shape, stride, top, left, out.shape):
        out[part] = (columns @ w.reshape(-1, w.shape[3]) + b).reshape(out[part].shape)


def weight_gradients(g, x, stride, top, left, dw, db):
    for part, columns in _columns(x, dw.shape, stride, top, left, g.shape):
        dw += (columns.T @ g[part].reshape(-1, g.shape[3])).reshape(dw.shape)
    db += g.sum(axis=(0, 1, 2))


def _columns(x, w_shape, stride, top, left, out_shape):
    """(slice of pictures, their windows (pixels of output, kh kw C)), for a few pictures at a time."""
    (B, Y, X, C), (kh, kw) = x.shape, w_shape[:2]
    _, out_y, out_x, _ = out_shape
    height, width = max((out_y - 1) * stride + kh, Y + top), max((out_x - 1) * stride + kw, X + left)
    padded = np.zeros((B, height, width, C), x.dtype)
    padded[:, top : top + Y, left : left + X] = x
    sb, sy, sx, sc = padded.strides
    shape, strides = (B, out_y, out_x, kh, kw, C), (sb, sy * stride, sx * stride, sy, sx, sc)
    windows = as_strided(padded, shape, strides, writeable=False)
    for i in range(0, B, PICTURES):
        part = slice(i, i + PICTURES)
        yield part, windows[part].reshape(-1, kh * kw * C)


def gated_residual_forward(shortcut, branch, gates, out):
    np.multiply(branch, gates[:, None, None], out=out)
    out += shortcut


def gated_residual_backward(g, branch, gates, dbranch, dgates):
    np.multiply(g, gates[:, None, None], out=dbranch)
    dgates[:] = np.einsum("byxc,byxc->bc", g, branch)


def mean_pixels_forward(x, out):
    x.mean(axis=1, out=out)
