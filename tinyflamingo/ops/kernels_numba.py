"""The kernels as Numba loops. Each one fills the arrays that it gets and allocates nothing.

Each docstring names the operation of ``reference.py`` and the memory traffic: "2r 1w" reads two arrays of that size and
writes one. Kernels are compiled at their first call, not at import, and cached in ``__pycache__``. A kernel and its
helpers are in one file because Numba's cache does not notice a change in another file.

Two habits are for speed. Scalars such as ``eps`` have the dtype of the arrays, and a sum starts from ``eps - eps``: a
Python float would make the loop float64. And a loop over part of a row first takes a slice and then counts from 0.
Python counts a negative index from the end. So Numba adds a test where an index may be negative, and such a loop is not
vectorised.

Implements no section of the chapter. Not here: matrix products (BLAS), convolution and attention
(``product_kernels_numba.py``).
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from .jit import EXACT, SUMS
from .jit import helper as _helper
from .jit import kernel as _kernel
from .kernels_numpy import GELU_A, GELU_C

# ---------------------------------------------------------------- norms


@_kernel(SUMS)
def rms_norm_forward(x, gain, eps, out, inverse):
    """Forward of ``rms_norm``: 1r 1w, 4 flops per element; the second read of a row is from L1."""
    M, D = x.shape
    for m in range(M):
        total = eps - eps
        for d in range(D):
            total += x[m, d] * x[m, d]
        scale = 1 / np.sqrt(total / x.dtype.type(D) + eps)
        inverse[m] = scale
        for d in range(D):
            out[m, d] = x[m, d] * scale * gain[d]


@_kernel(SUMS)
def rms_norm_backward(g, x, gain, inverse, dx, dgain):
    """Gradient of ``rms_norm``: 2r 1w, 10 flops per element; dgain stays in L1."""
    M, D = x.shape
    for d in range(D):
        dgain[d] = 0
    for m in range(M):
        scale = inverse[m]
        total = scale - scale
        for d in range(D):
            total += g[m, d] * gain[d] * x[m, d]
            dgain[d] += g[m, d] * x[m, d] * scale
        pull = total * scale * scale * scale / x.dtype.type(D)
        for d in range(D):
            dx[m, d] = g[m, d] * gain[d] * scale - x[m, d] * pull


@_kernel(SUMS)
def layer_norm_forward(x, gain, bias, eps, out, mean, inverse):
    """Forward of ``layer_norm``: 1r 1w, 7 flops per element; two passes over a row, in L1."""
    M, D = x.shape
    for m in range(M):
        total = eps - eps
        for d in range(D):
            total += x[m, d]
        centre = total / x.dtype.type(D)
        total = eps - eps
        for d in range(D):
            total += (x[m, d] - centre) * (x[m, d] - centre)
        scale = 1 / np.sqrt(total / x.dtype.type(D) + eps)
        mean[m], inverse[m] = centre, scale
        for d in range(D):
            out[m, d] = (x[m, d] - centre) * scale * gain[d] + bias[d]


@_kernel(SUMS)
def layer_norm_backward(g, x, gain, mean, inverse, dx, dgain, dbias):
    """Gradient of ``layer_norm``: 2r 1w, 14 flops per element; dgain and dbias stay in L1."""
    M, D = x.shape
    for d in range(D):
        dgain[d] = dbias[d] = 0
    for m in range(M):
        centre, scale = mean[m], inverse[m]
        total = total_normal = scale - scale
        for d in range(D):
            normal = (x[m, d] - centre) * scale
            total += g[m, d] * gain[d]
            total_normal += g[m, d] * gain[d] * normal
            dgain[d] += g[m, d] * normal
            dbias[d] += g[m, d]
        total /= x.dtype.type(D)
        total_normal /= x.dtype.type(D)
        for d in range(D):
            normal = (x[m, d] - centre) * scale
            dx[m, d] = scale * (g[m, d] * gain[d] - total - normal * total_normal)


# ---------------------------------------------------------------- activations


def _tanh(x):
    """The tanh of a number. In compiled kernels `_quick_tanh` computes it for float32."""
    return math.tanh(x)


def _quick_tanh(x):
    """x P(x^2) / Q(x^2), fitted to tanh for |x| < 9: at most 6 units in the last place of float32 from it.

    ``math.tanh`` is a call for each number; this is arithmetic, which the compiler vectorises. Above 9 the square stays
    81, so the quotient grows beyond 1, and the result is exactly 1. NaN stays NaN.
    """
    f = np.float32
    y = x * x
    y = f(81) if y > f(81) else y
    p = f(0.99999998) + y * (f(0.13381027) + y * (f(0.0034955895) + y * (f(2.0609102e-05) + y * f(1.3354682e-08))))
    q = f(0.46714343) + y * (f(0.025876988) + y * (f(0.0003285637) + y * f(7.7765682e-07)))
    t = x * p / (f(1) + y * q)
    t = f(1) if t > f(1) else t
    return f(-1) if t < f(-1) else t


@overload(_tanh, jit_options={"fastmath": SUMS, "error_model": "numpy", "forceinline": True})
def _compiled_tanh(x):
    return _quick_tanh if x == types.float32 else lambda x: math.tanh(x)


@_kernel(SUMS)
def gelu_forward(x, gain, out):
    """Forward of ``gelu``: 1r 1w, 30 flops per element."""
    c, a = x.dtype.type(GELU_C), x.dtype.type(GELU_C * GELU_A)
    half, one = x.dtype.type(0.5) * gain, x.dtype.type(1)
    for i in range(len(x)):
        out[i] = half * x[i] * (one + _tanh(x[i] * (c + a * x[i] * x[i])))


@_kernel(SUMS)
def gelu_backward(g, x, gain, dx):
    """Gradient of ``gelu``: 2r 1w, 40 flops per element. To compute t again is faster than to store and load it."""
    c, a = x.dtype.type(GELU_C), x.dtype.type(GELU_C * GELU_A)
    half, one, three = x.dtype.type(0.5) * gain, x.dtype.type(1), x.dtype.type(3)
    for i in range(len(x)):
        bend = a * x[i] * x[i]
        t = _tanh(x[i] * (c + bend))
        dx[i] = half * g[i] * (one + t + x[i] * (one - t * t) * (c + three * bend))


@_kernel(SUMS)
def gelu_erf_forward(x, out):
    """Forward of ``gelu_erf``: 1r 1w, one call of the C library's erf for each element."""
    root, half, one = x.dtype.type(0.7071067811865476), x.dtype.type(0.5), x.dtype.type(1)
    for i in range(len(x)):
        out[i] = half * x[i] * (one + math.erf(root * x[i]))


@_kernel(SUMS)
def gelu_erf_backward(g, x, dx):
    """Gradient of ``gelu_erf``, Phi(x) + x Phi'(x): 2r 1w."""
    root, half, one = x.dtype.type(0.7071067811865476), x.dtype.type(0.5), x.dtype.type(1)
    density = x.dtype.type(0.3989422804014327)  # 1 / sqrt(2 pi)
    for i in range(len(x)):
        bell = density * math.exp(-half * x[i] * x[i])
        dx[i] = g[i] * (half * (one + math.erf(root * x[i])) + x[i] * bell)


@_kernel(SUMS)
def squared_relu_forward(x, out):
    """Forward of ``squared_relu``: 1r 1w. NaN stays NaN."""
    for i in range(len(x)):
        positive = x.dtype.type(0) if x[i] < 0 else x[i]
        out[i] = positive * positive


@_kernel(SUMS)
def squared_relu_backward(g, x, dx):
    """Gradient of ``squared_relu``: 2r 1w, 2 flops per element."""
    for i in range(len(x)):
        positive = x.dtype.type(0) if x[i] < 0 else x[i]
        dx[i] = g[i] * (positive + positive)


# ---------------------------------------------------------------- tables, softmax, the optimiser


@_kernel(SUMS)
def scatter_add_rows(g, ids, dtable):
    """Gradient of ``embed``: dtable[ids[m]] += g[m]. Reads g once, and only the rows of dtable that are used."""
    for m in range(len(ids)):
        row = ids[m]
        for d in range(g.shape[1]):
            dtable[row, d] += g[m, d]


@_helper(EXACT)
def maximum(row):
    """The maximum of a row by eight running maxima: a step of a single one would wait for the step before."""
    whole = len(row) - len(row) % 8
    a = b = c = d = e = f = g = h = row[0]
    for i in range(0, whole, 8):
        a, b = max(a, row[i]), max(b, row[i + 1])
        c, d = max(c, row[i + 2]), max(d, row[i + 3])
        e, f = max(e, row[i + 4]), max(f, row[i + 5])
        g, h = max(g, row[i + 6]), max(h, row[i + 7])
    for i in range(whole, len(row)):
        a = max(a, row[i])
    return max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))


@_kernel(SUMS)
def subtract_row_max(scores):
    """Subtract its maximum from each row (M, S), in place, so that exp cannot overflow: 1r 1w; rows stay in L1."""
    for m in range(scores.shape[0]):
        row = scores[m]
        top = maximum(row)
        for j in range(len(row)):
            row[j] -= top


@_kernel(SUMS)
def mask_and_subtract_row_max(scores, key_mask):
    """The same for scores (B, H, T, S) with a mask: masked scores become -inf. A row that is all masked stays -inf."""
    B, H, T, S = scores.shape
    for b in range(B):
        for h in range(H):
            for t in range(T):
                row = scores[b, h, t]
                for j in range(S):
                    if not key_mask[b, j]:
                        row[j] = -np.inf
                top = maximum(row)
                if top != -np.inf:
                    for j in range(S):
                        row[j] -= top


@_kernel(SUMS)
def normalise_rows(weights):
    """Divide each row (M, S) by its sum, in place: 1r 1w. A row of zeros stays zero."""
    for m in range(len(weights)):
        row = weights[m]
        total = row[0] - row[0]
        for j in range(len(row)):
            total += row[j]
        if total != 0:
            scale = 1 / total
            for j in range(len(row)):
                row[j] *= scale


@_kernel(SUMS)
def softmax_backward(p, dp):
    """dp <- p (dp - sum p dp) in place for each row (M, S): 2r 1w, 4 flops per element."""
    for m in range(len(p)):
        row, drow = p[m], dp[m]
        total = row[0] - row[0]
        for j in range(len(row)):
            total += row[j] * drow[j]
        for j in range(len(row)):
            drow[j] = row[j] * (drow[j] - total)


@_kernel(SUMS)
def adamw(x, m, v, g, decay, rate, beta_1, beta_2, unbias_1, unbias_2, epsilon):
    """``adamw`` in place: 5r 3w, 14 flops per parameter, no temporary arrays."""
    one = x.dtype.type(1)
    for i in range(len(x)):
        m[i] += (one - beta_1) * (g[i] - m[i])
        v[i] += (one - beta_2) * (g[i] * g[i] - v[i])
        x[i] -= rate * (m[i] / unbias_1 / (np.sqrt(v[i] / unbias_2) + epsilon) + decay[i] * x[i])


# ---------------------------------------------------------------- pixels and channels


@_kernel(SUMS)
def gated_residual_forward(shortcut, branch, gates, out):
    """Forward of ``gated_residual``: 2r 1w, 2 flops per element; the gates of a picture stay in L1."""
    B, Y, X, C = out.shape
    for b in range(B):
        for y in range(Y):
            for x in range(X):
                for c in range(C):
                    out[b, y, x, c] = shortcut[b, y, x, c] + branch[b, y, x, c] * gates[b, c]


@_kernel(SUMS)
def gated_residual_backward(g, branch, gates, dbranch, dgates):
    """Gradient of ``gated_residual`` (for the shortcut it is g itself): 2r 1w, 3 flops per element."""
    B, Y, X, C = g.shape
    for b in range(B):
        for c in range(C):
            dgates[b, c] = 0
        for y in range(Y):
            for x in range(X):
                for c in range(C):
                    dbranch[b, y, x, c] = g[b, y, x, c] * gates[b, c]
                    dgates[b, c] += g[b, y, x, c] * branch[b, y, x, c]


@_kernel(SUMS)
def mean_pixels_forward(x, out):
    """Forward of ``mean_pixels``, x (B, Y X, C): 1r, 1 flop per element; the sums stay in L1."""
    B, S, C = x.shape
    for b in range(B):
        row = out[b]
        for c in range(C):
            row[c] = 0
        for s in range(S):
            for c in range(C):
                row[c] += x[b, s, c]
        for c in range(C):
            row[c] *= x.dtype.type(1 / S)
