"""Dense attention as one primitive: ``softmax(q k^T / sqrt(K)) v`` (Vaswani et al. 2017).

The attention of the resampler (§3), and of the text tower and the ViT (§2). Not here: causal attention
(``fast_relative.py``) and Flamingo's masked cross-attention (``fast_segment.py``).
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .gradients import defvjp_all, primitive
from .shapes import heads_first, transposed
from .types import Array

BUDGET = 1 << 17  # scores in one block of examples: 512 KB of float32, half of a usual L2 cache


def blocks(B: int, scores: int) -> list[slice]:
    """Slices of the batch that have at most BUDGET scores, with ``scores`` for each example."""
    step = max(BUDGET // max(scores, 1), 1)
    return [slice(b, b + step) for b in range(0, B, step)]


def attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """``reference.attention``: two batched GEMMs, 4 B H T S K flops, softmax in place in L2.

    Saves the probabilities (B, H, T, S) for backward, which is four GEMMs. Makes no transposed copy of q, k or v and no
    broadcast mask.
    """
    return _attention(q, k, v, key_mask, {})


@primitive
def _attention(q, k, v, key_mask, saved):
    B, T, H, K = q.shape
    S = k.shape[1]
    scaled = heads_first(q * q.dtype.type(K**-0.5))
    keys, values = transposed(heads_first(k)), heads_first(v)
    p = saved["p"] = np.empty((B, H, T, S), q.dtype)
    out = np.empty_like(q, order="C")
    for b in blocks(B, H * T * S):
        part = p[b]
        np.matmul(scaled[b], keys[b], out=part)
        if key_mask is None:
            kernels.subtract_row_max(part.reshape(-1, S))
        else:
            kernels.mask_and_subtract_row_max(part, key_mask[b])
        np.exp(part, out=part)
        kernels.normalise_rows(part.reshape(-1, S))
        np.matmul(part, values[b], out=heads_first(out[b]))
    return out


def _attention_backward(g, q, k, v, key_mask, saved):
    B, T, H, K = q.shape
    S = k.shape[1]
    p, g = saved["p"], heads_first(g)
    dq, dk, dv = (np.empty_like(x, order="C") for x in (q, k, v))
    for b in blocks(B, H * T * S):
        dp = np.matmul(g[b], transposed(heads_first(v[b])))
        kernels.softmax_backward(p[b].reshape(-1, S), dp.reshape(-1, S))
        dp *= q.dtype.type(K**-0.5)
        np.matmul(dp, heads_first(k[b]), out=heads_first(dq[b]))
        np.matmul(transposed(dp), heads_first(q[b]), out=heads_first(dk[b]))
        np.matmul(transposed(p[b]), g[b], out=heads_first(dv[b]))
    return dq, dk, dv


defvjp_all(_attention, _attention_backward)
