"""Causal attention with relative positions (§4) as Numba loops over blocks of queries, on the register tile.

A row of ``blocks`` is (b, begin, end, low, high): the queries from ``begin`` to ``end`` of row b of the batch see at
most the keys from ``low`` to ``high``. So keys of earlier documents and of the future cost little. ``low`` may be
negative: before the first key are zeros. All arrays in the loops are flat: queries (B, T, H, K), keys (B, S, H, K),
distances (S, H, K), the largest first, and the probabilities (H, queries, keys) of one block after the other.

Not here: the scaled queries, and the gradients of u and vb (``fast_relative.py``).
"""

import numpy as np

from . import kernels_numpy
from .jit import EXACT, SUMS, helper, kernel
from .kernels_numba import maximum
from .register_tile import add_product

FEW = 8  # queries; NumPy computes fewer, as in decoding
QUERIES, UNIT = 24, 16  # queries in a block; its number of keys is a multiple of UNIT


def relative_forward(qu, qv, k, v, far_first, visible_from, out):
    """``relative_attention`` of the scaled queries with u and with vb; returns what `relative_backward` needs."""
    T, S, H, K = sizes = qu.shape[1], *k.shape[1:]
    if T < FEW:
        return kernels_numpy.relative_forward(qu, qv, k, v, far_first, visible_from, out)
    blocks = _blocks(visible_from, S)
    widths = blocks[:, 4] - blocks[:, 3]
    p, position = np.empty(widths @ (blocks[:, 2] - blocks[:, 1]) * H, qu.dtype), _room(blocks, qu)
    keys, distances = _in_columns(k, qu.dtype), _in_columns(far_first[None], qu.dtype)
    tables = _tables_of_blocks(blocks, sizes, qu.dtype)
    _relative_scores(qu.reshape(-1), qv.reshape(-1), keys, distances, visible_from, blocks, sizes, *tables, position, p)
    np.exp(p, out=p)
    _relative_mix(p, np.ascontiguousarray(v).reshape(-1), blocks, sizes, *tables, out.reshape(-1))
    return blocks, p


def relative_backward(g, qu, qv, k, v, far_first, saved, by_content, by_position, dk, dv, dfar):
    """Gradients of ``relative_attention`` for both scaled queries; added to those for keys, values, distances."""
    T, S, H, K = sizes = qu.shape[1], *k.shape[1:]
    if T < FEW:
        return kernels_numpy.relative_backward(g, qu, qv, k, v, far_first, saved, by_content, by_position, dk, dv, dfar)
    blocks, p = saved
    flat = [np.ascontiguousarray(x, qu.dtype).reshape(-1) for x in (g, qu, qv, k, far_first)]
    results = [x.reshape(-1) for x in (by_content, by_position, dk, dv, dfar)]
    tables, room = _tables_of_blocks(blocks, sizes, qu.dtype), (_room(blocks, qu), _room(blocks, qu))
    _relative_gradients(*flat, _in_columns(v, qu.dtype), p, blocks, sizes, *tables, *room, *results)


def _blocks(visible_from, S):
    """QUERIES rows of queries, and keys from the first one that they see to the last query's own, in whole units."""
    B, T = visible_from.shape
    begin = np.arange(0, T, QUERIES)
    end = np.minimum(begin + QUERIES, T)
    high = S - T + end
    first = np.clip(np.minimum.reduceat(visible_from, begin, axis=1), 0, high - 1)
    low = high + (first - high) // UNIT * UNIT
    return np.stack(np.broadcast_arrays(np.arange(B)[:, None], begin, end, low, high), axis=-1).reshape(-1, 5)


def _room(blocks, q):
    """Space for the numbers of a block, for one head."""
    return np.empty(QUERIES * (blocks[:, 4] - blocks[:, 3]).max(), q.dtype)


def _tables_of_blocks(blocks, sizes, dtype):
    """For `add_product`: tables of adjacent numbers and of tokens, room for one of the rows of a block, and zeros."""
    numbers = np.arange(max((blocks[:, 4] - blocks[:, 3]).max(), QUERIES, sizes[3]))
    return numbers, numbers * (sizes[2] * sizes[3]), np.empty(QUERIES, np.int64), np.zeros(len(numbers), dtype)


def _in_columns(x, dtype):
    """(B, S, H, K) -> (B, H, K, UNIT + S), flat: a key is a column; zeros before the first one."""
    B, S, H, K = x.shape
    columns = np.zeros((B, H, K, UNIT + S), dtype)
    columns[..., UNIT:] = x.transpose(0, 2, 3, 1)
    return columns.reshape(-1)


@kernel(SUMS)
def _relative_scores(qu, qv, keys, far, first, blocks, sizes, numbers, tokens, rows, zeros, position, p):
    """Scores minus the maximum of the query, -inf where no key is visible; 4 H K flops for each pair in a block."""
    (T, S, H, K), at = sizes, 0
    for i in range(len(blocks)):
        b, begin, end, low, high = blocks[i]
        n, W, pitch = end - begin, high - low, UNIT + S
        _fill(rows, n, W)
        for h in range(H):
            query, scores = ((b * T + begin) * H + h) * K, p[at : at + n * W]
            right, near = keys[(b * H + h) * K * pitch + UNIT + low :], far[h * K * pitch + pitch - W :]
            add_product(qu[query:], tokens[:n], numbers[:K], right, pitch, W, zeros, scores, rows[:n], False)
            add_product(qv[query:], tokens[:n], numbers[:K], near, pitch, W, zeros, position, rows[:n], False)
            for t in range(n):
                own = W - n + t + 1
                start = min(max(first[b, begin + t] - low, max(-low, 0)), own)
                _shifted_scores(scores[t * W : (t + 1) * W], position[t * W : (t + 1) * W], start, own)
            at += n * W


@helper(EXACT)
def _fill(rows, n, W):
    """The places of n rows of W numbers."""
    for t in range(n):
        rows[t] = t * W


@helper(SUMS)
def _shifted_scores(row, position, start, end):
    """The row of a query that sees the columns from ``start`` to ``end``. The last distance belongs to its own key."""
    before, visible, after = row[:start], row[start:end], row[end:]
    shifted = position[len(row) - len(visible) :]
    for j in range(len(visible)):
        visible[j] += shifted[j]
    for j in range(len(before)):
        before[j] = -np.inf
    for j in range(len(after)):
        after[j] = -np.inf
    if len(visible):
        top = maximum(visible)
        for j in range(len(visible)):
            visible[j] -= top


@kernel(SUMS)
def _relative_mix(p, v, blocks, sizes, numbers, tokens, rows, zeros, out):
    """Normalise p, and write the mean of the values with weights p; 2 H K flops for each pair in a block."""
    (T, S, H, K), at = sizes, 0
    for i in range(len(blocks)):
        b, begin, end, low, high = blocks[i]
        n, W, skip = end - begin, high - low, max(-low, 0)
        _fill(rows, n, W)
        for h in range(H):
            for t in range(n):
                row = p[at + t * W : at + (t + 1) * W]
                total = row[0] - row[0]
                for j in range(W):
                    total += row[j]
                scale = 1 / total if total > 0 else total
                for j in range(W):
                    row[j] *= scale
            values, to = v[((b * S + low + skip) * H + h) * K :], out[((b * T + begin) * H + h) * K :]
            add_product(p[at + skip :], rows[:n], numbers[: W - skip], values, H * K, K, zeros, to, tokens[:n], False)
            at += n * W


@kernel(SUMS)
def _relative_gradients(
    g,
    qu,
    qv,
    k,
    far,
    values,
    p,
    blocks,
    sizes,
    numbers,
    tokens,
    rows,
    zeros,
    ds,
    dposition,
    to_content,
    to_position,
    dk,
    dv,
    dfar,
):
    """See `relative_backward`; 10 H K flops for each pair in a block, 2 more for the distances."""
    (T, S, H, K), at = sizes, 0
    D = H * K
    for i in range(len(blocks)):
        b, begin, end, low, high = blocks[i]
        n, W, skip = end - begin, high - low, max(-low, 0)
        seen, near = W - skip, min(W, S)
        _fill(rows, n, W)
        for h in range(H):
            query, key, far_key = (b * T + begin) * D + h * K, (b * S + low + skip) * D + h * K, (S - near) * D + h * K
            right = values[(b * H + h) * K * (UNIT + S) + UNIT + low :]
            add_product(g[query:], tokens[:n], numbers[:K], right, UNIT + S, W, zeros, ds, rows[:n], False)
            for t in range(n):
                _score_gradients_of(p[at + t * W : at + (t + 1) * W], ds[t * W :], dposition[t * W :], W - n + t + 1)
            here, place, to_q = ds[skip:], dposition[W - near :], to_content[query:]
            add_product(here, rows[:n], numbers[:seen], k[key:], D, K, zeros, to_q, tokens[:n], False)
            to_q = to_position[query:]
            add_product(place, rows[:n], numbers[:near], far[far_key:], D, K, zeros, to_q, tokens[:n], False)
            to_k, to_v = dk[key:], dv[key:]
            add_product(here, numbers[:seen], rows[:n], qu[query:], D, K, zeros, to_k, tokens[:seen], True)
            add_product(p[at + skip :], numbers[:seen], rows[:n], g[query:], D, K, zeros, to_v, tokens[:seen], True)
            if len(dfar):
                to_far = dfar[far_key:]
                add_product(place, numbers[:near], rows[:n], qv[query:], D, K, zeros, to_far, tokens[:near], True)
            at += n * W


@helper(SUMS)
def _score_gradients_of(p, ds, dposition, end):
    """ds <- p (ds - sum p ds), and the same shifted to its distances: the own key, before ``end``, has the last one."""
    far, near = dposition[: len(p) - end], dposition[len(p) - end :]
    total = p[0] - p[0]
    for j in range(len(p)):
        total += p[j] * ds[j]
    for j in range(len(p)):
        ds[j] = p[j] * (ds[j] - total)
    for j in range(len(far)):
        far[j] = 0
    for j in range(end):
        near[j] = ds[j]
