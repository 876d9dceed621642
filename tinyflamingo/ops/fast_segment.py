"""Flamingo's masked cross-attention by segments (§4, and section 2.3 of arXiv 2204.14198).

A token attends to the latents of one medium, the one that ``phi`` names. So its cost is R latents,
whatever the number of media; the dense definition computes N R scores and throws away all but R.
"""

import numpy as np
from autograd.extend import defvjp_argnums, primitive

from . import kernels


def segment_attention(q, k, v, phi):
    """``reference.segment_attention``: 4 B T H R K flops, backward 10, whatever N is.

    Keeps the probabilities (B, T, H, R). Allocates no mask and no scores against other media.
    """
    return _segment_attention(q, k, v, phi, {})


@primitive
def _segment_attention(q, k, v, phi, saved):
    B, T, H, K = q.shape
    N, R = k.shape[1:3]
    if N == 0 or R == 0:
        return np.zeros_like(q)
    q, k, v, phi = (np.ascontiguousarray(x) for x in (q, k, v, phi))
    p = saved["p"] = np.empty((B, T, H, R), q.dtype)
    out = np.empty_like(q)
    kernels.segment_scores(q, k, phi, q.dtype.type(K**-0.5), p)
    np.exp(p, out=p)
    kernels.normalise_rows(p)
    kernels.segment_mix(p, v, phi, out)
    return out


def _segment_attention_vjp(argnums, ans, args, kwargs):
    q, k, v, phi, saved = args

    def backward(g):
        dq, dk, dv = (np.zeros_like(x, order="C") for x in (q, k, v))
        if "p" in saved:
            arrays = [np.ascontiguousarray(x) for x in (g, q, k, v, saved["p"], ans, phi)]
            kernels.segment_backward(*arrays, q.dtype.type(q.shape[-1] ** -0.5), dq, dk, dv)
        return tuple((dq, dk, dv)[i] for i in argnums)

    return backward


defvjp_argnums(_segment_attention, _segment_attention_vjp)
