"""Convolution (§2) and masked cross-attention by segments (§4) as Numba loops: many small matrix products.

For BLAS they are too small and of too many sizes. They read their operands in place, most of them with the register
tile of ``register_tile.py``. The code is the same for every width, so it is compiled once.

The scores of attention are sums along a row. A short loop of unknown length takes as long to start as to run. So the
length of the row is the length of a tuple of None (``units``): the compiler knows the length of a tuple, but not of an
array. One kernel is compiled for every length up to ``LONGEST``.

A kernel and its helpers are in one file, scalars have the dtype of the arrays, and a loop over part of a row counts
from 0: ``kernels_numba.py`` says why. Not here: large products, which BLAS computes.
"""

import functools

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import kernels_numpy
from .jit import EXACT, SUMS, helper, kernel
from .register_tile import add_product

WIDE = 256  # channels; BLAS computes wider convolutions (it is faster from some 64 pixels on)
PIXELS = 256  # of output in one product: their windows and gradients stay in L1 and L2
LONGEST = 256  # of a tuple: in longer rows a known length gains nothing, and compilation takes longer


# ---------------------------------------------------------------- convolution, channels last
#
# Number k of the window of pixel i is at ``pixels[i] + taps[k]``: two tables in place of the matrix of windows, for a
# group of pictures with about PIXELS pixels of output, or for one larger picture.


def convolve(x, w, b, stride, top, left, out):
    """Forward of ``conv2d``: x (B, Y, X, C), w (kh, kw, C, N), b (N,) fill out (B, Yo, Xo, N), which may be strided.

    2 B Yo Xo kh kw C N flops; 1r of x and 1w of out, windows and weights are read from L1 and L2. top, left: zeros
    before a picture. Allocates a group of padded pictures, or none if no window leaves a picture.
    """
    if w.shape[3] > WIDE:
        return kernels_numpy.convolve(x, w, b, stride, top, left, out)
    if out.size:
        padded, *tables = _tables(x.shape, w.shape[:2], out.shape, stride, top, left)
        steps = [step // out.itemsize for step in out.strides]
        pixels = _places(*zip((tables[3], *out.shape[1:3]), steps[:3], strict=True))
        length = 1 + sum((n - 1) * step for n, step in zip(out.shape, steps, strict=True))
        flat, w, b = as_strided(out, (length,), (out.itemsize,)), np.asarray(w, x.dtype), np.asarray(b, x.dtype)
        _convolve(x.reshape(-1), np.zeros(padded, x.dtype), *tables, w.reshape(-1), b, flat, steps[0], pixels)


def weight_gradients(g, x, stride, top, left, dw, db):
    """Gradients of ``conv2d`` for weights and bias, from g (B, Yo, Xo, N), added to dw and db.

    2 B Yo Xo kh kw C N flops; 1r of g and x, dw stays in L2. Allocates the same as `convolve`.
    """
    if dw.shape[3] > WIDE:
        return kernels_numpy.weight_gradients(g, x, stride, top, left, dw, db)
    if g.size:
        padded, *tables = _tables(x.shape, dw.shape[:2], g.shape, stride, top, left)
        g, rows = np.asarray(g, x.dtype).reshape(-1), _places((dw.size // len(db), len(db)))
        one, zeros = np.ones(1, x.dtype), np.zeros(PIXELS, np.int64)
        _correlate(x.reshape(-1), np.zeros(padded, x.dtype), *tables, g, rows, dw.reshape(-1), db, one, zeros)


@functools.lru_cache(maxsize=128)
def _tables(x_shape, kernel_shape, out_shape, stride, top, left):
    """Length of a padded group or 0, sizes of a picture and a line, padded lines, pictures in a group, both tables."""
    (B, Y, X, C), (kh, kw), (_, Yo, Xo, _) = x_shape, kernel_shape, out_shape
    height, width = max((Yo - 1) * stride + kh, Y + top), max((Xo - 1) * stride + kw, X + left)
    group, pitch, size = min(max(PIXELS // (Yo * Xo), 1), B), width * C, height * width * C
    lines = (top * width + left) * C + _places((group, size), (Y, pitch))
    pixels = _places((group, size), (Yo, stride * pitch), (Xo, stride * C))
    padded = group * size if (height, width) != (Y, X) else 0
    return padded, Y * X * C, X * C, lines, group, pixels, _places((kh, pitch), (kw * C, 1))


def _places(*axes):
    """The places of all elements of an array. axes: (length, distance between neighbours) of each."""
    places = np.zeros(1, np.int64)
    for length, distance in axes:
        places = np.add.outer(places, distance * np.arange(length)).ravel()
    return places


@helper(EXACT)
def _group(x, start, size, length, lines, padded):
    """The numbers of a group of pictures, flat; copied to their lines in padded pictures if there are any."""
    if len(padded) == 0:
        return x[start : start + size]
    for i in range(size // length):
        line, place = x[start + i * length : start + (i + 1) * length], padded[lines[i] : lines[i] + length]
        for j in range(length):
            place[j] = line[j]
    return padded


@kernel(SUMS)
def _convolve(x, padded, size, length, lines, group, pixels, taps, w, b, out, out_size, places):
    """PIXELS windows times the weights, again and again: the rows of the product are pixels of output."""
    pictures, N, of_one = len(x) // size, len(b), len(pixels) // group
    for first in range(0, pictures, group):
        count = min(group, pictures - first)
        source = _group(x, first * size, count * size, length, lines, padded)
        for i in range(0, count * of_one, PIXELS):
            end = min(i + PIXELS, count * of_one)
            add_product(source, pixels[i:end], taps, w, N, N, b, out[first * out_size :], places[i:end], False)


@kernel(SUMS)
def _correlate(x, padded, size, length, lines, group, pixels, taps, g, rows, dw, db, one, zeros):
    """Transposed windows times gradients. The bias is the weight of an input that is always 1."""
    pictures, N, of_one = len(x) // size, len(db), len(pixels) // group
    for first in range(0, pictures, group):
        count = min(group, pictures - first)
        source = _group(x, first * size, count * size, length, lines, padded)
        for i in range(0, count * of_one, PIXELS):
            end, right = min(i + PIXELS, count * of_one), g[(first * of_one + i) * N :]
            add_product(source, taps, pixels[i:end], right, N, N, dw, dw, rows, True)
            add_product(one, zeros[:1], zeros[: end - i], right, N, N, db, db, zeros[:1], True)


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
    units = _units(*q.shape[1:])
    _scores(q, k, runs, scale, units, p)
    np.exp(p, out=p)
    _normalise(p, runs, q.shape[1])
    _mix(p, v.reshape(-1), runs, *q.shape[1:], *_counts(runs, q), out.reshape(-1))
    return p


def _units(H, K):
    """An object of length K: a tuple, or an array if a head is too long for a tuple."""
    return (None,) * K if H * K <= LONGEST else np.empty(K, np.bool_)


def _counts(runs, q):
    """Tables for `add_product`: of adjacent numbers, of rows of q, and room for a third one."""
    numbers = np.arange(np.diff(runs)[:, ::2].max(initial=0))
    return numbers, numbers * q[0].size, np.empty_like(numbers)


def segment_backward(g, q, k, v, p, runs, scale, dq, dk, dv):
    """Add the gradients of ``segment_attention`` to dq, dk and dv. p: the result of `segment_forward`."""
    units = _units(*q.shape[1:])
    ds = np.empty_like(p)
    _score_gradients(g, v, p, runs, scale, units, ds)
    flat = [x.reshape(-1) for x in (g, q, k)]
    _add_gradients(*flat, p, ds, runs, *q.shape[1:], *_counts(runs, q), *(x.reshape(-1) for x in (dq, dk, dv)))


@helper(SUMS)
def _rows_with_rows(x, y, h, units, out):
    """out[t, h, s] = x[t, h] . y[s, h], four s at a time, so that x is read from L1 once for all four. out is flat."""
    zero, S = x.dtype.type(0), len(y)
    whole = S - S % 4
    for t in range(len(x)):
        place = (t * x.shape[1] + h) * S
        row, products = x[t, h], out[place : place + S]
        for s in range(0, whole, 4):
            y0, y1, y2, y3 = y[s, h], y[s + 1, h], y[s + 2, h], y[s + 3, h]
            a = b = c = d = zero
            for i in range(len(units)):
                a += row[i] * y0[i]
                b += row[i] * y1[i]
                c += row[i] * y2[i]
                d += row[i] * y3[i]
            products[s], products[s + 1], products[s + 2], products[s + 3] = a, b, c, d
        for s in range(whole, S):
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
        for h in range(H):
            _rows_with_rows(q[begin:end], k[low:high], h, units, p[at:])
        for _ in range((end - begin) * H):
            row = p[at : at + S]
            top = row[0]
            for s in range(S):
                top = row[s] if row[s] > top else top
            for s in range(S):
                row[s] = (row[s] - top) * scale
            at += S


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
def _mix(p, v, runs, H, K, numbers, rows, own, out):
    """The mean of the values with weights p, for every token; 2 H K flops per pair. Flat arrays."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        n, S = end - begin, high - low
        for t in range(n):
            own[t] = t * H * S
        for h in range(H):
            values, query = v[(low * H + h) * K :], out[(begin * H + h) * K :]
            add_product(p[at + h * S :], own[:n], numbers[:S], values, H * K, K, query, query, rows[:n], True)
        at += n * H * S


@kernel(SUMS)
def _score_gradients(g, v, p, runs, scale, units, ds):
    """ds = p (dp - sum p dp) scale, with dp = g . v; 2 H K flops per pair."""
    H, at = g.shape[1], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for h in range(H):
            _rows_with_rows(g[begin:end], v[low:high], h, units, ds[at:])
        for _ in range((end - begin) * H):
            row, drow = p[at : at + S], ds[at : at + S]
            mean = scale - scale
            for s in range(S):
                mean += row[s] * drow[s]
            for s in range(S):
                drow[s] = row[s] * (drow[s] - mean) * scale
            at += S


@kernel(SUMS)
def _add_gradients(g, q, k, p, ds, runs, H, K, numbers, rows, own, dq, dk, dv):
    """dq += ds k, dk += ds^T q, dv += p^T g; 6 H K flops per pair. Flat arrays. Media without a token are not read."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        n, S = end - begin, high - low
        for t in range(n):
            own[t] = t * H * S
        for h in range(H):
            latent, query, here = (low * H + h) * K, (begin * H + h) * K, at + h * S
            to_q, to_k, to_v = dq[query:], dk[latent:], dv[latent:]
            add_product(ds[here:], own[:n], numbers[:S], k[latent:], H * K, K, to_q, to_q, rows[:n], True)
            add_product(ds[here:], numbers[:S], own[:n], q[query:], H * K, K, to_k, to_k, rows[:S], True)
            add_product(p[here:], numbers[:S], own[:n], g[query:], H * K, K, to_v, to_v, rows[:S], True)
        at += n * H * S
