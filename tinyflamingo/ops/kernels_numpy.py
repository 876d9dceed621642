"""The kernels in vectorised NumPy, for machines without Numba: same names, same arguments.

Each equals the loop of the same name in ``kernels_numba.py``, where costs are written down. They
fill the arrays they are given; their temporaries are the price of having no loops.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

GELU_C = 0.7978845608028654  # sqrt(2 / pi)
GELU_A = 0.044715


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


def gelu_inner(x, out):
    np.multiply(x, x, out=out)
    out *= GELU_C * GELU_A
    out += GELU_C
    out *= x


def gelu_outer(x, t, out):
    np.add(t, 1.0, out=out)
    out *= x
    out *= 0.5


def gelu_backward(g, x, t, dx):
    np.multiply(x, x, out=dx)
    dx *= 3.0 * GELU_C * GELU_A
    dx += GELU_C
    dx *= x
    dx *= 1.0 - t * t
    dx += t
    dx += 1.0
    dx *= g
    dx *= 0.5


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
    dtable[ordered[first]] = np.add.reduceat(g[order], first, axis=0)


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


def relative_scores(content, position, start, own):
    b, H, t, J = content.shape
    shifted = _shifted(position, own)
    key = np.arange(J)
    last = own + np.arange(t)[:, None]
    visible = (key <= last)[None] & (key[None] >= start[:, :, None])
    np.add(content, shifted, out=content, where=visible[:, None])
    np.copyto(content, -np.inf, where=~visible[:, None])
    top = content.max(axis=-1, keepdims=True)
    content -= np.where(np.isneginf(top), 0, top).astype(content.dtype)


def relative_softmax_backward(p, dp, dposition, own):
    softmax_backward(p, dp)
    dposition[...] = 0
    t, J = p.shape[2:]
    for i in range(t):
        last = own + i
        dposition[:, :, i, J - 1 - last :] = dp[:, :, i, : last + 1]


def _shifted(position, own):
    """position[i, J - 1 - own - i + j] at (i, j) for j <= own + i; beyond, 0."""
    t, J = position.shape[2:]
    out = np.zeros_like(position)
    for i in range(t):
        last = own + i
        out[:, :, i, : last + 1] = position[:, :, i, J - 1 - last :]
    return out


def segment_scores(q, k, phi, scale, scores):
    picked = _pick(k, phi)
    np.einsum("bthk,btrhk->bthr", q * scale, picked, out=scores, optimize=False)
    scores -= scores.max(axis=-1, keepdims=True)
    scores[phi == 0] = -np.inf


def segment_mix(p, v, phi, out):
    np.einsum("bthr,btrhk->bthk", p, _pick(v, phi), out=out)
    out[phi == 0] = 0


def segment_backward(g, q, k, v, p, out, phi, scale, dq, dk, dv):
    B, N, R, H, K = k.shape
    dp = np.einsum("bthk,btrhk->bthr", g, _pick(v, phi))
    dp -= np.einsum("bthk,bthk->bth", g, out)[..., None]
    dp *= p  # p is 0 where phi is 0, and so is dp from here on
    dp *= scale
    np.einsum("bthr,btrhk->bthk", dp, _pick(k, phi), out=dq)
    for n in range(N):  # one medium at a time: the tokens of the others weigh 0
        here = (phi == n + 1)[:, :, None, None]
        dk[:, n] = np.einsum("bthr,bthk->brhk", dp * here, q)
        dv[:, n] = np.einsum("bthr,bthk->brhk", p * here, g)


def _pick(k, phi):
    """(B, T, R, H, K): the latents of each token's medium; medium 1 where phi is 0, unused."""
    return k[np.arange(len(phi))[:, None], np.maximum(phi - 1, 0)]


def columns(lines, kh, kw, stride, C, out):
    groups, n, out_y, out_x = out.shape[:4]
    width = C // groups
    sn, sy, sc = lines.strides
    sx = sc * C
    shape = (groups, n, out_y, out_x, kh, kw, width)
    strides = (sc * width, sn, sy * stride, sx * stride, sy, sx, sc)
    np.copyto(out.reshape(shape), as_strided(lines, shape, strides, writeable=False))
