"""Flamingo's masked cross-attention by segments (§4, and section 2.3 of arXiv 2204.14198).

A token attends to the latents of one medium, ``phi``, or of all media from ``first_medium`` to ``phi``. Only these
scores are computed, so the cost does not depend on the number of media. The dense definition computes scores for all
latents and then masks most of them.

``phi`` is constant over runs of tokens, and all tokens of a run attend to the same latents. Not here: the work on a
run, in ``product_kernels_numba.py`` (loops) and ``segment_blocks.py`` (BLAS).
"""

from __future__ import annotations

import functools

import numpy as np

from . import kernels, segment_blocks
from .gradients import defvjp_all, primitive
from .types import Array

FEW_TOKENS = 8  # loops are faster than BLAS for fewer tokens than this ...
FEW_LATENTS = 16  # ... or for at most 16 latents, if H K is at most NARROW (measured)
NARROW = 512
PIECE = 64  # tokens that the loops compute together: what one product leaves in L1 or L2, the next reads


def segment_attention(q: Array, k: Array, v: Array, phi: Array, first_medium: Array | None = None) -> Array:
    """``reference.segment_attention``: 4 H K flops for each pair of a token and a visible latent, backward 8 H K.

    Without ``first_medium`` the sum is 4 B T H R K for any N. Saves the probabilities of the visible latents. Makes no
    mask and no scores of other media.
    """
    return _segment_attention(q, k, v, phi, first_medium, {})


def _plan(phi, first_medium, N, R, width):
    """`_runs` by module. All gated blocks of a forward pass and all tokens of a completion share it."""
    visible = phi if first_medium is None else np.stack([phi, first_medium])
    return _plan_once(visible.tobytes(), visible.dtype, visible.shape, N, R, width, kernels.ENGINE)


@functools.lru_cache(maxsize=64)
def _plan_once(visible, dtype, shape, N, R, width, engine):
    """(module, runs) pairs: the runs that each module computes. width: H K.

    visible: the bytes of phi, or of phi and first_medium.
    """
    visible = np.frombuffer(visible, dtype).reshape(shape)
    runs = _runs(visible, None, N, R) if len(shape) == 2 else _runs(*visible, N, R)
    if engine == "numpy":
        return [(segment_blocks, runs)]
    latents = FEW_LATENTS if width <= NARROW else 0
    few = (runs[:, 3] - runs[:, 2] <= latents) | (runs[:, 1] - runs[:, 0] < FEW_TOKENS)
    parts = [(kernels, _pieces(runs[few])), (segment_blocks, runs[~few])]
    return [part for part in parts if len(part[1])]


def _pieces(runs):
    """The same runs, at most PIECE tokens each."""
    pieces = [(i, min(i + PIECE, end), *latents) for begin, end, *latents in runs for i in range(begin, end, PIECE)]
    return np.array(pieces, int).reshape(-1, 4)


def _runs(phi, first_medium, N, R):
    """Runs of tokens that attend to the same latents: rows of (begin, end, low, high).

    The tokens from ``begin`` to ``end`` and the latents from ``low`` to ``high`` are counted over the whole batch, so
    no run continues from one row of the batch to the next. Tokens with phi 0 are in no run.
    """
    before = N * np.arange(len(phi))[:, None]
    high = np.where(phi > 0, phi + before, 0).ravel()
    low = high - 1 if first_medium is None else np.where(phi > 0, first_medium + before - 1, 0).ravel()
    changes = np.flatnonzero((high[1:] != high[:-1]) | (low[1:] != low[:-1])) + 1
    edges = np.concatenate([[0], changes, [phi.size]])
    with_medium = np.flatnonzero(high[edges[:-1]])
    begin, end = edges[with_medium], edges[with_medium + 1]
    return np.stack([begin, end, R * low[begin], R * high[begin]], axis=1)


def _flat(dtype, *arrays):
    """The tokens and the latents of the whole batch, each as (rows, H, K)."""
    return [np.ascontiguousarray(x, dtype).reshape(-1, *x.shape[-2:]) for x in arrays]


@primitive
def _segment_attention(q, k, v, phi, first_medium, saved):
    flat = _flat(q.dtype, q, k, v)
    out = np.zeros((len(flat[0]) + 1, *q.shape[2:]), q.dtype)  # the last row receives the padding of blocks
    saved["parts"] = []
    for module, runs in _plan(phi, first_medium, *k.shape[1:3], q[0, 0].size) if k.size and q.size else []:
        p = module.segment_forward(*flat, runs, q.dtype.type(q.shape[-1] ** -0.5), out)
        saved["parts"].append((module, runs, p))
    return out[:-1].reshape(q.shape)


def _segment_attention_backward(g, q, k, v, phi, first_medium, saved):
    flat = _flat(q.dtype, g, q, k, v)
    dq = np.zeros((len(flat[0]) + 1, *q.shape[2:]), q.dtype)
    dk, dv = np.zeros_like(flat[2]), np.zeros_like(flat[3])
    for module, runs, p in saved["parts"]:
        module.segment_backward(*flat, p, runs, q.dtype.type(q.shape[-1] ** -0.5), dq, dk, dv)
    return dq[:-1].reshape(q.shape), *(d.reshape(x.shape).astype(x.dtype) for d, x in ((dk, k), (dv, v)))


defvjp_all(_segment_attention, _segment_attention_backward)
