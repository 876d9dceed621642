"""Masked cross-attention by segments as batched products of BLAS (§4; section 2.3 of arXiv 2204.14198).

Runs of tokens (``fast_segment.py``) are cut into blocks of equal length, so that each product is one batched GEMM over
blocks and heads. Used where matrices are large enough for BLAS, and everywhere without Numba. Not here: small matrices;
``product_kernels_numba.py`` has the same two functions as loops.

Tokens (T, H, K) and latents (M, H, K) are those of the whole batch.
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .fast_attention import BUDGET
from .shapes import heads_first, transposed
from .types import Array


def segment_forward(q: Array, k: Array, v: Array, runs: Array, scale: float, out: Array) -> list[tuple]:
    """Write ``segment_attention`` to `out`; returns the parts that `segment_backward` needs.

    4 H K flops for each pair of a token and a visible latent. Copies q, k and v once, except blocks that are contiguous
    in memory. `out` has one row more than q, for the padding.
    """
    parts = []
    for tokens, latents in _blocks(runs, q):
        p = np.matmul(heads_first(_take(q, tokens)), transposed(heads_first(_take(k, latents))))
        p *= scale
        kernels.subtract_row_max(p.reshape(-1, p.shape[-1]))
        np.exp(p, out=p)
        kernels.normalise_rows(p.reshape(-1, p.shape[-1]))
        _put(_product(p, heads_first(_take(v, latents))), tokens, out)
        parts.append((tokens, latents, p))
    return parts


def segment_backward(
    g: Array, q: Array, k: Array, v: Array, parts: list, runs: Array, scale: float, dq: Array, dk: Array, dv: Array
) -> None:
    """Gradients of ``segment_attention``: added to dk and dv, written to dq. Four GEMMs, 8 H K flops for each pair."""
    for tokens, latents, p in parts:
        q_part, g_part = heads_first(_take(q, tokens)), heads_first(_take(g, tokens))
        ds = np.matmul(g_part, transposed(heads_first(_take(v, latents))))
        kernels.softmax_backward(p.reshape(-1, p.shape[-1]), ds.reshape(-1, p.shape[-1]))
        ds *= scale
        _put(_product(ds, heads_first(_take(k, latents))), tokens, dq)
        _add(_product(transposed(ds), q_part), latents, dk)
        _add(_product(transposed(p), g_part), latents, dv)


def _product(a, b):
    """a @ b for every block and head, written as (blocks, rows, H, columns)."""
    out = np.empty((a.shape[0], a.shape[2], a.shape[1], b.shape[3]), a.dtype)
    np.matmul(a, b, out=heads_first(out))
    return out


# ---------------------------------------------------------------- runs to blocks


def _blocks(runs, q):
    """Pairs of tokens (G, t) and latents (G, S): the tokens of row i attend to the latents of row i.

    Runs with the same number of latents are cut together. Each pair is small enough that what one product leaves in L2
    is still there for the next.
    """
    T, H, K = q.shape
    begin, end, low, high = runs.T
    pairs = []
    for S in np.unique(high - low):
        here = high - low == S
        tokens, run = _cut(begin[here], end[here], T, S)
        latents = low[here][run, None] + np.arange(S)
        step = max(BUDGET // (tokens.shape[1] * H * max(S, K)), 1)
        pairs += [(tokens[i : i + step], latents[i : i + step]) for i in range(0, len(run), step)]
    return pairs


def _cut(begin, end, padding, S):
    """The tokens of the blocks (G, t), and the run of each block. A run is filled up with `padding`."""
    size = _block_size(end - begin, S)
    pieces = -(-(end - begin) // size)
    run = np.repeat(np.arange(len(begin)), pieces)
    piece = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    tokens = (begin[run] + piece * size)[:, None] + np.arange(size)
    return np.where(tokens < end[run, None], tokens, padding), run


def _block_size(lengths, S):
    """Number of tokens in a block. Small blocks need little padding; of large blocks only a few are needed.

    A block costs about as much as 8 + S / 4 further tokens (measured).
    """
    longest = int(lengths.max())
    sizes = np.minimum(2 ** np.arange((longest - 1).bit_length() + 1), longest)
    blocks = np.sum(-(-lengths[:, None] // sizes), axis=0)
    return int(sizes[np.argmin(blocks * (sizes + 8 + S / 4))])


# ---------------------------------------------------------------- rows by their numbers


def _index(numbers, limit):
    """The numbers as a slice, which copies nothing, if they are consecutive and without padding."""
    flat = numbers.ravel()
    begin, end = int(flat[0]), int(flat[0]) + len(flat)
    follow = flat[-1] == end - 1 and end <= limit and np.all(flat[1:] > flat[:-1])
    return slice(begin, end) if follow else flat


def _take(x, numbers):
    """The row of x for each number; zeros for the padding."""
    index = _index(numbers, len(x))
    if isinstance(index, slice):
        return x[index].reshape(*numbers.shape, *x.shape[1:])
    rows = np.take(x, numbers, axis=0, mode="clip")
    rows[numbers == len(x)] = 0
    return rows


def _put(rows, numbers, x):
    """Write rows to their places in x, whose last row is for the padding."""
    x[_index(numbers, len(x) - 1)] = rows.reshape(-1, *x.shape[1:])


def _add(rows, numbers, x):
    """Add rows to rows of x. Numbers may repeat: several blocks may attend to the same latents."""
    index = _index(numbers, len(x))
    if isinstance(index, slice):
        x[index] += rows.reshape(-1, *x.shape[1:])
    else:
        kernels.scatter_add_rows(rows.reshape(len(index), -1), index, x.reshape(len(x), -1))
