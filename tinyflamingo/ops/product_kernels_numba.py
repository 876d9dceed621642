"""Convolution (§2) and attention by runs of tokens (§4) as Numba loops: many small matrix products.

For BLAS they are too small and of too many sizes. They read their operands in place, with the register tile of
``register_tile.py``. The code is the same for every width, so it is compiled once.

Kernels and helpers of one file, scalars with the dtype of the arrays, and loops that count from 0: ``kernels_numba.py``
says why. Not here: large products, which BLAS computes.
"""

import functools

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import kernels_numpy
from .jit import EXACT, SUMS, helper, kernel
from .kernels_numba import maximum
from .register_tile import add_product

WIDE = 256  # channels; BLAS computes wider convolutions (it is faster from some 64 pixels on)
PIXELS = 256  # of output in one product: their windows and gradients stay in L1 and L2
FEW = 8  # queries; NumPy computes causal attention for fewer, as in decoding
QUERIES, UNIT = 24, 16  # in a block of causal attention; its number of keys is a multiple of UNIT


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


# ---------------------------------------------------------------- attention by runs
#
# Tokens (T, H, K) and keys (M, H, K) are those of the whole batch, flat. A row of ``runs`` is (begin, end, low, high):
# the tokens from ``begin`` to ``end`` attend to the keys from ``low`` to ``high``. The probabilities of all runs, each
# (tokens, H, keys), are in one flat array. NumPy's exp is vectorised, ``math.exp`` in a Numba loop is not. So: a
# kernel, NumPy's exp, a kernel.
#
# Causal attention with relative positions is the same: a run is a block of queries and the keys from the first one that
# a query of the block sees to its last query's own. To the scores it adds those of the distances, which are a second
# kind of keys (S, H, K), the largest first, after UNIT rows of zeros; the last one belongs to the query's own key.


def segment_forward(q, k, v, runs, scale, out):
    """Add ``segment_attention`` to `out`; returns the probabilities."""
    plan, no = _plan(runs, q), q[:0].reshape(-1)
    p = np.empty(_count(runs) * q.shape[1], q.dtype)
    _scores(q.reshape(-1), *_columns(k), runs, plan, scale, (no, no, 0, 0, runs[:0, 0], no), p)
    np.exp(p, out=p)
    _weighted(p, v.reshape(-1), runs, plan, out.reshape(-1))
    return p


def segment_backward(g, q, k, v, p, runs, scale, dq, dk, dv):
    """Add the gradients of ``segment_attention`` to dq, dk and dv. p: the result of `segment_forward`."""
    flat, no = [x.reshape(-1) for x in (g, q, k)], q[:0].reshape(-1)
    relative = no, no, 0, no, no, _room(runs, q), no
    results = [x.reshape(-1) for x in (dq, dk, dv)]
    _gradients(*flat, *_columns(v), p, runs, _plan(runs, q), scale, relative, *results)


def relative_forward(qu, qv, k, v, far_first, visible_from, out):
    """Add ``relative_attention`` of the scaled queries with u and with vb to `out`; returns runs and probabilities."""
    (B, T, H, _), S = qu.shape, k.shape[1]
    if T < FEW:
        return kernels_numpy.relative_forward(qu, qv, k, v, far_first, visible_from, out)
    runs, start = _blocks(visible_from, S), (np.maximum(visible_from, 0) + S * np.arange(B)[:, None]).reshape(-1)
    plan, p = _plan(runs, qu), np.empty(_count(runs) * H, qu.dtype)
    relative = qv.reshape(-1), *_columns(_padded(far_first)), UNIT + S, start, _room(runs, qu)
    _scores(qu.reshape(-1), *_columns(k), runs, plan, qu.dtype.type(1), relative, p)
    np.exp(p, out=p)
    _weighted(p, np.ascontiguousarray(v).reshape(-1), runs, plan, out.reshape(-1))
    return runs, p


def relative_backward(g, qu, qv, k, v, far_first, saved, by_content, by_position, dk, dv, dfar):
    """Add the gradients of ``relative_attention`` for scaled queries, keys, values, and distances if dfar has rows."""
    if qu.shape[1] < FEW:
        return kernels_numpy.relative_backward(g, qu, qv, k, v, far_first, saved, by_content, by_position, dk, dv, dfar)
    (runs, p), padded = saved, _padded(dfar) if len(dfar) else dfar
    flat = [np.ascontiguousarray(x).reshape(-1) for x in (g, qu, k, qv, _padded(far_first))]
    relative = *flat[3:], UNIT + k.shape[1], by_position.reshape(-1), padded.reshape(-1), _room(runs, g), _room(runs, g)
    results = [x.reshape(-1) for x in (by_content, dk, dv)]
    _gradients(*flat[:3], *_columns(v), p, runs, _plan(runs, qu), g.dtype.type(1), relative, *results)
    dfar += padded[len(padded) - len(dfar) :]


def _blocks(visible_from, S):
    """The runs of causal attention. One may begin with keys of the row before, which no query sees (probability 0)."""
    B, T = visible_from.shape
    begin, row = np.arange(0, T, QUERIES), np.arange(B)[:, None]
    end = np.minimum(begin + QUERIES, T)
    high = S - T + end
    first = np.clip(np.minimum.reduceat(visible_from, begin, axis=1), 0, high - 1)
    low = np.maximum(row * S + high + (first - high) // UNIT * UNIT, 0)
    return np.stack(np.broadcast_arrays(row * T + begin, row * T + end, low, row * S + high), axis=-1).reshape(-1, 4)


def _padded(distances):
    """UNIT rows of zeros before the distances: a run may have more keys than there are distances."""
    return np.concatenate([np.zeros((UNIT, *distances.shape[1:]), distances.dtype), distances])


def _count(runs):
    """The number of pairs of a token and a key."""
    return (runs[:, 1] - runs[:, 0]) @ (runs[:, 3] - runs[:, 2])


def _room(runs, q):
    """Space for the scores of any of the runs."""
    return np.empty(np.prod(np.diff(runs)[:, ::2].max(axis=0)) * q.shape[-2], q.dtype)


def _plan(runs, q):
    """What the products of a run need to know: sizes, tables of numbers and of tokens, room for a table, zeros."""
    H, K = q.shape[-2:]
    numbers = np.arange(max(K, np.diff(runs)[:, ::2].max()))
    return H, K, numbers, numbers * (H * K), np.empty_like(numbers), np.zeros(len(numbers), q.dtype)


def _columns(x):
    """Keys (..., H, K) as the columns of a matrix (H K, pitch), flat, and the pitch: an odd number of cache lines."""
    rows = x.reshape(-1, x.shape[-2] * x.shape[-1])
    columns = np.empty((rows.shape[1], len(rows) // 32 * 32 + 48), x.dtype)
    columns[:, : len(rows)] = rows.T
    return columns.reshape(-1), columns.shape[1]


@helper(EXACT)
def _products(x, columns, pitch, run, plan, out):
    """x . key for every pair of a token and a key of a run; 2 H K flops per pair, as in the next two."""
    (begin, end, low, high), (H, K, numbers, tokens, own, zeros) = run, plan
    n, S = end - begin, high - low
    for t in range(n):
        own[t] = t * H * S
    for h in range(H):
        left, right = x[(begin * H + h) * K :], columns[h * K * pitch + low :]
        add_product(left, tokens[:n], numbers[:K], right, pitch, S, zeros, out[h * S :], own[:n], False)


@helper(EXACT)
def _mix(p, y, run, plan, out):
    """out[token] += sum of p times y of its keys."""
    (begin, end, low, high), (H, K, numbers, tokens, own, _) = run, plan
    n, S = end - begin, high - low
    for t in range(n):
        own[t] = t * H * S
    for h in range(H):
        right, to = y[(low * H + h) * K :], out[(begin * H + h) * K :]
        add_product(p[h * S :], own[:n], numbers[:S], right, H * K, K, to, to, tokens[:n], True)


@helper(EXACT)
def _mix_back(p, x, run, plan, out):
    """out[key] += sum of p times x of its tokens."""
    (begin, end, low, high), (H, K, numbers, tokens, own, _) = run, plan
    n, S = end - begin, high - low
    for t in range(n):
        own[t] = t * H * S
    for h in range(H):
        right, to = x[(begin * H + h) * K :], out[(low * H + h) * K :]
        add_product(p[h * S :], numbers[:S], own[:n], right, H * K, K, to, to, tokens[:S], True)


@kernel(SUMS)
def _scores(q, keys, pitch, runs, plan, scale, relative, p):
    """Scores minus the maximum of their row, times the scale; -inf for keys that a query does not see."""
    (qv, distances, far_pitch, last, start, position), H, at = relative, plan[0], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        n, S = end - begin, high - low
        _products(q, keys, pitch, (begin, end, low, high), plan, p[at:])
        if len(start):
            _products(qv, distances, far_pitch, (begin, end, last - S, last), plan, position)
        for j in range(n * H):
            row, own = p[at + j * S : at + (j + 1) * S], S - n + 1 + j // H
            if len(start):
                _add_shifted(row, position[j * S :], min(max(start[begin + j // H] - low, 0), own), own)
            top = maximum(row)
            if top != -np.inf:
                for s in range(S):
                    row[s] = (row[s] - top) * scale
        at += n * H * S


@helper(SUMS)
def _add_shifted(row, position, start, end):
    """Add the scores by distance to those from ``start`` to ``end``, the query's own; the others become -inf."""
    before, visible, after = row[:start], row[start:end], row[end:]
    shifted = position[len(row) - len(visible) :]
    for j in range(len(visible)):
        visible[j] += shifted[j]
    for j in range(len(before)):
        before[j] = -np.inf
    for j in range(len(after)):
        after[j] = -np.inf


@kernel(SUMS)
def _weighted(p, v, runs, plan, out):
    """p / sum p in place (a row of zeros stays), and the sum of the values with these weights, added to `out`."""
    H, at = plan[0], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        n, S = end - begin, high - low
        for j in range(n * H):
            row = p[at + j * S : at + (j + 1) * S]
            total = row[0] - row[0]
            for s in range(S):
                total += row[s]
            if total != 0:
                for s in range(S):
                    row[s] /= total
        _mix(p[at:], v, (begin, end, low, high), plan, out)
        at += n * H * S


@kernel(SUMS)
def _gradients(g, q, k, values, pitch, p, runs, plan, scale, relative, dq, dk, dv):
    """See `segment_backward`; with distances `relative_backward`. Keys without a token are not read."""
    (qv, far, last, dqv, dfar, ds, dposition), H, at = relative, plan[0], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        n, S, run, near = end - begin, high - low, (begin, end, low, high), (begin, end, last - high + low, last)
        part = p[at : at + n * H * S]
        _products(g, values, pitch, run, plan, ds)
        for j in range(n * H):
            _score_gradients(part[j * S : (j + 1) * S], ds[j * S :], scale)
        _mix(ds, k, run, plan, dq)
        _mix_back(ds, q, run, plan, dk)
        _mix_back(part, g, run, plan, dv)
        if len(qv):
            for j in range(n * H):
                _shift_back(ds[j * S : (j + 1) * S], S - n + 1 + j // H, dposition[j * S :])
            _mix(dposition, far, near, plan, dqv)
        if len(dfar):
            _mix_back(dposition, qv, near, plan, dfar)
        at += n * H * S


@helper(SUMS)
def _score_gradients(p, ds, scale):
    """ds <- p (ds - sum p ds) scale for a row."""
    mean = scale - scale
    for s in range(len(p)):
        mean += p[s] * ds[s]
    for s in range(len(p)):
        ds[s] = p[s] * (ds[s] - mean) * scale


@helper(SUMS)
def _shift_back(ds, end, dposition):
    """The gradients of a row's scores by distance: those of the scores up to the own key; 0 for farther distances."""
    far, near = dposition[: len(ds) - end], dposition[len(ds) - end :]
    for s in range(len(far)):
        far[s] = 0
    for s in range(end):
        near[s] = ds[s]
