"""Flamingo's masked cross-attention by segments (§4, and section 2.3 of arXiv 2204.14198).

A token attends to the latents of one medium, the one that ``phi`` names, or of all media from
``first_medium`` to ``phi``. So its cost is that of the latents it sees, whatever the number of media; the
dense definition computes a score against every latent and throws away those of the others.

``phi`` is constant over runs of tokens, and all tokens of a run see the same latents. What is done
with a run stands in ``product_kernels_numba.py`` (loops) and ``segment_blocks.py`` (BLAS).
"""

import numpy as np
from autograd.extend import defvjp_argnums, primitive

from . import kernels, segment_blocks

FEW_LATENTS = 16  # matrices narrower than this ...
FEW_TOKENS = 8  # ... or shorter are too small for BLAS: measured


def segment_attention(q, k, v, phi, first_medium=None):
    """``reference.segment_attention``: 4 H K flops for a token and a latent it sees, backward 8.

    Without ``first_medium`` these are 4 B T H R K, whatever N is. Keeps the probabilities of the latents
    seen, (B, T, H, R) of them without ``first_medium``. Allocates no mask and no scores of other media.
    """
    return _segment_attention(q, k, v, phi, first_medium, {})


def _runs(phi, first_medium, N, R):
    """Runs of tokens that see the same latents: rows of (begin, end, low, high).

    Tokens ``begin`` to ``end`` and latents ``low`` to ``high`` are counted over the whole batch, so
    that no run crosses from one row of it to the next. Tokens with phi 0 are in no run.
    """
    before = N * np.arange(len(phi))[:, None]
    high = np.where(phi > 0, phi + before, 0).ravel()
    low = high - 1 if first_medium is None else np.where(phi > 0, first_medium + before - 1, 0).ravel()
    changes = np.flatnonzero((high[1:] != high[:-1]) | (low[1:] != low[:-1])) + 1
    edges = np.concatenate([[0], changes, [phi.size]])
    sees = np.flatnonzero(high[edges[:-1]])
    begin, end = edges[sees], edges[sees + 1]
    return np.stack([begin, end, R * low[begin], R * high[begin]], axis=1)


def _shared(runs):
    """The runs with who works on them: (module, runs) pairs."""
    if kernels.ENGINE == "numpy":
        return [(segment_blocks, runs)]
    few = (runs[:, 3] - runs[:, 2] <= FEW_LATENTS) | (runs[:, 1] - runs[:, 0] < FEW_TOKENS)
    return [(kernels, runs)] if few.all() else [(kernels, runs[few]), (segment_blocks, runs[~few])]


def _flat(x):
    """The tokens of the whole batch, or its latents, as (rows, H, K)."""
    return np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])


@primitive
def _segment_attention(q, k, v, phi, first_medium, saved):
    flat = _flat(q), _flat(k), _flat(v)
    out = np.zeros((len(flat[0]) + 1, *q.shape[2:]), q.dtype)  # blocks write their padding to the last row
    saved["parts"] = []
    for module, runs in _shared(_runs(phi, first_medium, *k.shape[1:3])) if k.size and q.size else []:
        p = module.segment_forward(*flat, runs, q.dtype.type(q.shape[-1] ** -0.5), out)
        saved["parts"].append((module, runs, p))
    return out[:-1].reshape(q.shape)


def _segment_attention_vjp(argnums, ans, args, kwargs):
    q, k, v, _, _, saved = args

    def backward(g):
        flat = _flat(g), _flat(q), _flat(k), _flat(v)
        dq = np.zeros((len(flat[0]) + 1, *q.shape[2:]), q.dtype)
        dk, dv = np.zeros_like(flat[2]), np.zeros_like(flat[3])
        for module, runs, p in saved["parts"]:
            module.segment_backward(*flat, p, runs, q.dtype.type(q.shape[-1] ** -0.5), dq, dk, dv)
        found = dq[:-1].reshape(q.shape), dk.reshape(k.shape), dv.reshape(v.shape)
        return tuple(found[i] for i in argnums)

    return backward


defvjp_argnums(_segment_attention, _segment_attention_vjp)
