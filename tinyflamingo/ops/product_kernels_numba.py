"""Convolution (§2) and masked cross-attention by segments (§4) as Numba loops: many small matrix products.

For BLAS they are too small and of too many sizes. They read their operands in place and are sums of rows: four
coefficients times four rows of adjacent numbers, for four sums at once (``_add_product``). The innermost loop goes
along the row and is vectorised, and each number that it loads serves four sums.

The length of the innermost loop is part of a type: ``units`` and ``token`` are tuples of None with that length. The
compiler knows the length of a tuple but not of an array, and to start a short loop of unknown length takes as long as
the loop itself. So one kernel is compiled for every length up to ``LONGEST``. Above it BLAS computes the convolution,
and in cross-attention ``units`` and ``token`` are arrays, so that one kernel serves all lengths.

A kernel and its helpers are in one file, scalars have the dtype of the arrays, and unsigned numbers show that no index
is negative: ``kernels_numba.py`` says why. Not here: large products, which BLAS computes.
"""

import numpy as np

from . import kernels_numpy
from .jit import SUMS, helper, kernel

# The longest tuple. In longer rows a known length gains nothing, and BLAS is faster from some 64 pixels on (measured).
# But compilation takes longer: for both kernels of convolution 6 s with 17 channels, 10 s with 257, 61 s with 999.
# Numba refuses 1001.
LONGEST = 256
PIECE = 64  # tokens of a run that are computed together: what one product leaves in L1 or L2, the next reads


@helper(SUMS)
def _add_product(p, at, p_row, p_column, x, x_at, rows, columns, units, token, out, out_at):
    """out[i] += sum over j of p[i, j] x[j], four i and four j at a time, i < rows, j < columns.

    All arrays are flat. p[i, j] is at ``at + i p_row + j p_column``. A row of x or out has len(units) numbers, and the
    next row starts len(token) numbers later.
    """
    n = np.uint64(len(token))
    step, two, three = np.uint64(p_column), np.uint64(2 * p_column), np.uint64(3 * p_column)
    for i in range(0, rows - 3, 4):
        o = np.uint64(out_at + i * len(token))
        for j in range(0, columns - 3, 4):
            m, c = np.uint64(x_at + j * len(token)), np.uint64(at + i * p_row + j * p_column)
            a0, a1, a2, a3 = p[c], p[c + step], p[c + two], p[c + three]
            c += np.uint64(p_row)
            b0, b1, b2, b3 = p[c], p[c + step], p[c + two], p[c + three]
            c += np.uint64(p_row)
            c0, c1, c2, c3 = p[c], p[c + step], p[c + two], p[c + three]
            c += np.uint64(p_row)
            d0, d1, d2, d3 = p[c], p[c + step], p[c + two], p[c + three]
            for column in range(len(units)):
                e = np.uint64(column)
                x0, x1, x2, x3 = x[m + e], x[m + n + e], x[m + n + n + e], x[m + n + n + n + e]
                out[o + e] += (a0 * x0 + a1 * x1) + (a2 * x2 + a3 * x3)
                out[o + n + e] += (b0 * x0 + b1 * x1) + (b2 * x2 + b3 * x3)
                out[o + n + n + e] += (c0 * x0 + c1 * x1) + (c2 * x2 + c3 * x3)
                out[o + n + n + n + e] += (d0 * x0 + d1 * x1) + (d2 * x2 + d3 * x3)
    for i in range(0 if columns % 4 else rows - rows % 4, rows):  # the rest, outside the fours
        o = np.uint64(out_at + i * len(token))
        for j in range(columns - columns % 4 if i < rows - rows % 4 else 0, columns):
            a, m = p[np.uint64(at + i * p_row + j * p_column)], np.uint64(x_at + j * len(token))
            for column in range(len(units)):
                e = np.uint64(column)
                out[o + e] += a * x[m + e]


# ---------------------------------------------------------------- convolution, channels last


def convolve(x, w, b, stride, top, left, out):
    """Forward of ``conv2d``: x (B, Y, X, C), w (kh, kw, C, N), b (N,) fill out (B, Yo, Xo, N).

    The inputs of an output pixel are kh runs of kw C adjacent numbers, and so are their weights. 2 B Yo Xo kh kw C N
    flops; 1r of x and 1w of out, windows and weights are read from L1 and L2. Allocates one padded picture, or none for
    a 1x1 kernel; no columns. top, left: zeros before a picture. N above LONGEST: see ``kernels_numpy.py``.
    """
    kh, kw, C, N = w.shape
    if N > LONGEST:
        return kernels_numpy.convolve(x, w, b, stride, top, left, out)
    lines, rows, padded = _lines(x, out, kh, kw, stride, top, left)
    _convolve(lines, w.reshape(kh, -1), b, C, stride, top, left * C, (None,) * N, padded, rows)


def weight_gradients(g, x, stride, top, left, dw, db):
    """Gradients of ``conv2d`` for weights and bias, from g (B, Yo, Xo, N), added to dw and db.

    2 B Yo Xo kh kw C N flops; 1r of g and x, dw stays in L2. Allocates the same as `convolve`.
    """
    kh, kw, C, N = dw.shape
    if N > LONGEST:
        return kernels_numpy.weight_gradients(g, x, stride, top, left, dw, db)
    lines, rows, padded = _lines(x, g, kh, kw, stride, top, left)
    _correlate(rows, lines, C, stride, top, left * C, (None,) * N, padded, dw.reshape(kh, -1), db)


def _lines(x, out, kh, kw, stride, top, left):
    """x and out as lines of numbers, and zeros for one padded picture (empty if no window leaves the picture)."""
    (B, Y, X, C), (_, Yo, Xo, _) = x.shape, out.shape
    height, width = max((Yo - 1) * stride + kh, Y + top), max((Xo - 1) * stride + kw, X + left)
    padded = np.zeros((height, width * C) if (height, width) != (Y, X) else (0, 0), x.dtype)
    return x.reshape(B, Y, -1), out.reshape(B, Yo, -1), padded


@kernel(SUMS)
def _convolve(x, w, b, C, stride, top, left, units, padded, out):
    """One row of pixels after another: the coefficients are inputs, the rows are weights."""
    (B, Y, width), N = x.shape, len(units)
    Xo, run = out.shape[2] // N, w.shape[1] // N
    for picture in range(B):
        lines = x[picture]
        if len(padded):
            padded[top : top + Y, left : left + width] = lines
            lines = padded
        for y in range(out.shape[1]):
            row = out[picture, y]
            for pixel in range(Xo):
                for n in range(len(units)):
                    row[np.uint64(pixel * N + n)] = b[n]
            for dy in range(len(w)):
                _add_product(lines[y * stride + dy], 0, stride * C, 1, w[dy], 0, Xo, run, units, units, row, 0)


@kernel(SUMS)
def _correlate(g, x, C, stride, top, left, units, padded, dw, db):
    """One row of pixels after another: the coefficients are inputs, transposed, and the rows are gradients."""
    (B, Y, width), N = x.shape, len(units)
    Xo, run = g.shape[2] // N, dw.shape[1] // N
    for picture in range(B):
        lines = x[picture]
        if len(padded):
            padded[top : top + Y, left : left + width] = lines
            lines = padded
        for y in range(g.shape[1]):
            row = g[picture, y]
            for pixel in range(Xo):
                for n in range(len(units)):
                    db[n] += row[np.uint64(pixel * N + n)]
            for dy in range(len(dw)):
                _add_product(lines[y * stride + dy], 0, 1, stride * C, row, 0, run, Xo, units, units, dw[dy], 0)


@kernel(SUMS)
def columns_back(columns, stride, C, lines):
    """Add every window of columns (n, Yo, Xo, kh, kw C) to its pixels in lines (n, Y, X C): 1r of the columns."""
    n, Yo, Xo, kh, run = columns.shape
    for b in range(n):
        for y in range(Yo):
            for x in range(Xo):
                for dy in range(kh):
                    for i in range(run):
                        lines[b, y * stride + dy, np.uint64(x * stride * C + i)] += columns[b, y, x, dy, i]


# ---------------------------------------------------------------- cross-attention by segments
#
# Tokens (T, H, K) and latents (M, H, K) are those of the whole batch. A row of ``runs`` is (begin, end, low, high): the
# tokens from ``begin`` to ``end`` attend to the latents from ``low`` to ``high``. The probabilities of all runs,
# each (tokens, H, latents), are in one flat array.


def segment_forward(q, k, v, runs, scale, out):
    """Add ``segment_attention`` to `out`; returns the probabilities.

    NumPy's exp is vectorised, ``math.exp`` in a Numba loop is not. So: a kernel, NumPy's exp, a kernel.
    """
    pairs = (runs[:, 1] - runs[:, 0]) @ (runs[:, 3] - runs[:, 2])
    p = np.empty(pairs * q.shape[1], q.dtype)
    units, token = _lengths(*q.shape[1:])
    _scores(q, k, runs, scale, units, p)
    np.exp(p, out=p)
    _normalise(p, runs, q.shape[1])
    _mix(p, v.reshape(-1), runs, units, token, out.reshape(-1))
    return p


def _lengths(H, K):
    """Two objects, of the lengths K and H K: tuples, or arrays if H K is too long for a tuple."""
    return tuple((None,) * n if H * K <= LONGEST else np.empty(n, np.bool_) for n in (K, H * K))


def segment_backward(g, q, k, v, p, runs, scale, dq, dk, dv):
    """Add the gradients of ``segment_attention`` to dq, dk and dv. p: the result of `segment_forward`."""
    units, token = _lengths(*q.shape[1:])
    ds = np.empty_like(p)
    _score_gradients(g, v, p, runs, scale, units, ds)
    flat = [x.reshape(-1) for x in (g, q, k)]
    _add_gradients(*flat, p, ds, runs, units, token, *(x.reshape(-1) for x in (dq, dk, dv)))


@helper(SUMS)
def _rows_with_rows(x, y, h, units, out):
    """out[t, h, s] = x[t, h] . y[s, h], four s at a time, so that x is read from L1 once for all four."""
    zero = x.dtype.type(0)
    whole = len(y) - len(y) % 4
    for t in range(len(x)):
        row, products = x[t, h], out[t, h]
        for s in range(0, whole, 4):
            y0, y1, y2, y3 = y[s, h], y[s + 1, h], y[s + 2, h], y[s + 3, h]
            a = b = c = d = zero
            for i in range(len(units)):
                a += row[i] * y0[i]
                b += row[i] * y1[i]
                c += row[i] * y2[i]
                d += row[i] * y3[i]
            products[s], products[s + 1], products[s + 2], products[s + 3] = a, b, c, d
        for s in range(whole, len(y)):
            last, a = y[s, h], zero
            for i in range(len(units)):
                a += row[i] * last[i]
            products[s] = a


@kernel(SUMS)
def _scores(q, k, runs, scale, units, p):
    """Scores of each token and its visible latents, minus the maximum of the token; 2 H K flops per pair."""
    H, at = q.shape[1], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            last = min(first + PIECE, end)
            part = p[at : at + (last - first) * H * S].reshape(last - first, H, S)
            at += part.size
            for h in range(H):
                _rows_with_rows(q[first:last], k[low:high], h, units, part)
                for t in range(len(part)):
                    row = part[t, h]
                    top = row[0]
                    for s in range(S):
                        top = row[s] if row[s] > top else top
                    for s in range(S):
                        row[s] = (row[s] - top) * scale


@kernel(SUMS)
def _normalise(p, runs, H):
    """p / sum p in place. A separate pass, because numbers that were just stored are slow to load one by one."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for _ in range((end - begin) * H):
            row = p[at : at + S]
            total = row[0] - row[0]
            for s in range(S):
                total += row[s]
            for s in range(S):
                row[s] /= total
            at += S


@kernel(SUMS)
def _mix(p, v, runs, units, token, out):
    """The mean of the values with weights p, for every token; 2 H K flops per pair. Flat arrays."""
    K, H, at = len(units), len(token) // len(units), 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            tokens = min(PIECE, end - first)
            for h in range(H):
                latent, query = (low * H + h) * K, (first * H + h) * K
                _add_product(p, at + h * S, H * S, 1, v, latent, tokens, S, units, token, out, query)
            at += tokens * H * S


@kernel(SUMS)
def _score_gradients(g, v, p, runs, scale, units, ds):
    """ds = p (dp - sum p dp) scale, with dp = g . v; 2 H K flops per pair."""
    H, at = g.shape[1], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            last = min(first + PIECE, end)
            part = ds[at : at + (last - first) * H * S].reshape(last - first, H, S)
            for h in range(H):
                _rows_with_rows(g[first:last], v[low:high], h, units, part)
            for _ in range((last - first) * H):
                row, drow = p[at : at + S], ds[at : at + S]
                mean = scale - scale
                for s in range(S):
                    mean += row[s] * drow[s]
                for s in range(S):
                    drow[s] = row[s] * (drow[s] - mean) * scale
                at += S


@kernel(SUMS)
def _add_gradients(g, q, k, p, ds, runs, units, token, dq, dk, dv):
    """dq += ds k, dk += ds^T q, dv += p^T g; 6 H K flops per pair. Flat arrays. Media without a token are not read."""
    K, H, at = len(units), len(token) // len(units), 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            tokens = min(PIECE, end - first)
            for h in range(H):
                latent, query, place, wide = (low * H + h) * K, (first * H + h) * K, at + h * S, H * S
                _add_product(ds, place, wide, 1, k, latent, tokens, S, units, token, dq, query)
                _add_product(ds, place, 1, wide, q, query, S, tokens, units, token, dk, latent)
                _add_product(p, place, 1, wide, g, query, S, tokens, units, token, dv, latent)
            at += tokens * H * S
