"""Causal Transformer-XL attention as one primitive (Dai et al. 2019, equation for A^rel in §3.3).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K),   start_i <= j <= own_i

Nothing here makes a shifted copy of the second term ("relative shift"): it is computed for every distance, and a kernel
begins to read a row where the query's own distances begin. For the language model (§4). Not here: the projection of r
(the caller multiplies the sinusoids by their weight) and the products (``product_kernels_numba.py``).
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .gradients import defvjp_argnums, primitive
from .types import Array


def relative_attention(q: Array, k: Array, v: Array, r: Array, u: Array, vb: Array, visible_from: Array) -> Array:
    """``reference.relative_attention``: 6 H K flops for each visible pair of a query and a key, and some for others.

    A block of queries computes no key before the first one that it sees, and none after its last query. Saves the
    probabilities of the blocks. Makes no mask.
    """
    return _relative_attention(q, k, v, r, u, vb, visible_from, {})


def _operands(q, r, u, vb):
    """Both scaled queries, r from the largest distance to 0, in the order of keys, and the scale."""
    scale = q.dtype.type(q.shape[3] ** -0.5)
    return (q + u) * scale, (q + vb) * scale, np.ascontiguousarray(r[::-1]), scale


@primitive
def _relative_attention(q, k, v, r, u, vb, visible_from, saved):
    qu, qv, far_first, _ = _operands(q, r, u, vb)
    out = np.zeros_like(q, order="C")
    saved["p"] = kernels.relative_forward(qu, qv, k, v, far_first, visible_from, out)
    return out


def _relative_attention_vjp(argnums, ans, args, kwargs):
    q, k, v, r, u, vb, _, saved = args

    def backward(g):
        qu, qv, far_first, scale = _operands(q, r, u, vb)
        by_content, by_position, dk, dv = (np.zeros_like(x, order="C") for x in (q, q, k, v))
        dfar = np.zeros_like(far_first if 3 in argnums else far_first[:0])  # empty: a frozen r
        kernels.relative_backward(g, qu, qv, k, v, far_first, saved["p"], by_content, by_position, dk, dv, dfar)
        by_content *= scale
        by_position *= scale
        du, dvb = by_content.sum(axis=(0, 1)), by_position.sum(axis=(0, 1))
        by_content += by_position
        return tuple((by_content, dk, dv, dfar[::-1], du, dvb)[i] for i in argnums)

    return backward


defvjp_argnums(_relative_attention, _relative_attention_vjp)
