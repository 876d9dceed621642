"""Masked cross-attention by segments as batched products of BLAS (§4; section 2.3 of arXiv 2204.14198).

Runs of tokens (``fast_segment.py``) are cut into blocks of equally many tokens that lie side by side,
so that each product is one batched GEMM over blocks and heads. This serves wherever matrices are
large enough for BLAS, and everywhere on machines without Numba; for the small ones
``product_kernels_numba.py`` has the same two functions as loops.

Tokens (T, H, K) and latents (M, H, K) are those of the whole batch.
"""

import numpy as np

from . import kernels
from .fast_attention import BUDGET, heads_first, transposed


def segment_forward(q, k, v, runs, scale, out):
    """``segment_attention`` into `out`; returns what `segment_backward` wants back.

    4 H K flops for a token and a latent it sees. Copies q, k and v once, unless blocks lie in
    memory as they are. `out` has one row more than q: there padding goes.
    """
    parts = []
    for tokens, latents in _blocks(runs, q):
        p = np.matmul(heads_first(_take(q, tokens)), transposed(heads_first(_take(k, latents))))
        p *= scale
        kernels.subtract_row_max(p.reshape(-1, p.shape[-1]))
        np.exp(p, out=p)
        kernels.normalise_rows(p)
        _put(_product(p, heads_first(_take(v, latents))), tokens, out)
        parts.append((tokens, latents, p))
    return parts


def segment_backward(g, q, k, v, parts, runs, scale, dq, dk, dv):
    """Gradients of ``segment_attention``, added to dk and dv and put into dq; four GEMMs, 8 H K flops."""
    for tokens, latents, p in parts:
        q_part, g_part = heads_first(_take(q, tokens)), heads_first(_take(g, tokens))
        ds = np.matmul(g_part, transposed(heads_first(_take(v, latents))))
        kernels.softmax_backward(p, ds)
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
    """Pairs of tokens (G, t) and latents (G, S): the tokens of row i see the latents of row i.

    Runs that see equally many latents are cut together, and then done a part at a time, so that
    what one product leaves in L2 is there for the next.
    """
    T, H, K = q.shape
    begin, end, low, high = runs.T
    found = []
    for S in np.unique(high - low):
        here = high - low == S
        tokens, run = _cut(begin[here], end[here], T, S)
        latents = low[here][run, None] + np.arange(S)
        step = max(BUDGET // (tokens.shape[1] * H * max(S, K)), 1)
        found += [(tokens[i : i + step], latents[i : i + step]) for i in range(0, len(run), step)]
    return found


def _cut(begin, end, padding, S):
    """Tokens of the blocks (G, t), each run filled up with `padding`; and the run of each block."""
    size = _block_size(end - begin, S)
    pieces = -(-(end - begin) // size)
    run = np.repeat(np.arange(len(begin)), pieces)
    piece = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    tokens = (begin[run] + piece * size)[:, None] + np.arange(size)
    return np.where(tokens < end[run, None], tokens, padding), run


def _block_size(lengths, S):
    """Tokens in a block. Small blocks need little padding, large ones are few.

    A block costs about as much as 8 + S / 4 tokens more: measured.
    """
    longest = int(lengths.max())
    sizes = np.minimum(2 ** np.arange((longest - 1).bit_length() + 1), longest)
    blocks = np.sum(-(-lengths[:, None] // sizes), axis=0)
    return int(sizes[np.argmin(blocks * (sizes + 8 + S / 4))])


# ---------------------------------------------------------------- rows there and back


def _index(numbers, limit):
    """The numbers as a slice if they follow each other, without padding: it copies nothing."""
    flat = numbers.ravel()
    begin, end = int(flat[0]), int(flat[0]) + len(flat)
    follow = flat[-1] == end - 1 and end <= limit and np.all(flat[1:] > flat[:-1])
    return slice(begin, end) if follow else flat


def _take(x, numbers):
    """Rows of x, one for each number; zeros for the padding."""
    index = _index(numbers, len(x))
    if isinstance(index, slice):
        return x[index].reshape(*numbers.shape, *x.shape[1:])
    rows = np.take(x, numbers, axis=0, mode="clip")
    rows[numbers == len(x)] = 0
    return rows


def _put(rows, numbers, x):
    """Rows to their places; x has a last one for the padding."""
    x[_index(numbers, len(x) - 1)] = rows.reshape(-1, *x.shape[1:])


def _add(rows, numbers, x):
    """Rows added to those of x. Numbers may repeat: latents are seen from more than one block."""
    index = _index(numbers, len(x))
    if isinstance(index, slice):
        x[index] += rows.reshape(-1, *x.shape[1:])
    else:
        kernels.scatter_add_rows(rows.reshape(len(index), -1), index, x.reshape(len(x), -1))
