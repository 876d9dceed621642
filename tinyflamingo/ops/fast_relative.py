"""Causal Transformer-XL attention as one primitive (Dai et al. 2019, equation for A^rel in §3.3).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K),   start_i <= j <= own_i

One GEMM computes the second term for every distance; a kernel then reads it along a diagonal. So the "relative shift"
is the place where the kernel starts to read, and no copy. For the language model (§4). Not here: the projection of r
(the caller multiplies the sinusoids by their weight).
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .fast_attention import blocks, heads_first, transposed
from .gradients import defvjp_argnums, primitive
from .types import Array

QUERIES = 64  # query rows in a block; a block needs no key after its last row's position


def relative_attention(q: Array, k: Array, v: Array, r: Array, u: Array, vb: Array, visible_from: Array) -> Array:
    """``reference.relative_attention`` with about 3/4 of its 6 B H T S K flops at T = S = 128.

    A block of queries uses only the keys up to its last row. The softmax is in place in L2. Saves the probabilities of
    the blocks. Makes no shifted copy, no mask and no scores of later blocks.
    """
    return _relative_attention(q, k, v, r, u, vb, visible_from, {})


def query_blocks(T: int, S: int) -> list[tuple[slice, int, int]]:
    """(rows, key position of the first row, number of keys) for each block. The last block, the longest, is first."""
    steps = [(i, min(i + QUERIES, T)) for i in range(0, T, QUERIES)]
    return [(slice(i, e), S - T + i, S - T + e) for i, e in reversed(steps)]


def _operands(q, k, v, r, u, vb):
    """Both scaled queries, keys, values and r, by head, and the scale. r starts at the largest distance, like keys."""
    scale = q.dtype.type(q.shape[3] ** -0.5)
    qu, qv = heads_first((q + u) * scale), heads_first((q + vb) * scale)
    far_first = np.ascontiguousarray(r[::-1].transpose(1, 0, 2))[None]
    return qu, qv, heads_first(k), heads_first(v), far_first, scale


@primitive
def _relative_attention(q, k, v, r, u, vb, visible_from, saved):
    B, T, H, K = q.shape
    S = k.shape[1]
    qu, qv, keys, values, far_first, _ = _operands(q, k, v, r, u, vb)
    out = np.empty_like(q, order="C")
    saved["p"] = []
    for b in blocks(B, H * T * S):
        for rows, own, J in query_blocks(T, S):
            p = np.matmul(qu[b, :, rows], transposed(keys[b, :, :J]))
            position = np.matmul(qv[b, :, rows], transposed(far_first[:, :, S - J :]))
            kernels.relative_scores(p, position, np.ascontiguousarray(visible_from[b, rows]), own)
            np.exp(p, out=p)
            kernels.normalise_rows(p.reshape(-1, J))
            np.matmul(p, values[b, :, :J], out=heads_first(out[b, rows]))
            saved["p"].append(p)
    return out


def _relative_attention_vjp(argnums, ans, args, kwargs):
    q, k, v, r, u, vb, visible_from, saved = args
    B, T, H, K = q.shape
    S = k.shape[1]

    def backward(g):
        g = heads_first(g)
        qu, qv, keys, values, far_first, scale = _operands(q, k, v, r, u, vb)
        by_content, by_position = np.empty_like(q, order="C"), np.empty_like(q, order="C")
        dk, dv = (np.zeros_like(x, order="C") for x in (k, v))
        dfar = np.zeros((H, S, K), q.dtype)
        probabilities = iter(saved["p"])
        for b in blocks(B, H * T * S):
            for rows, own, J in query_blocks(T, S):
                p, gb = next(probabilities), g[b, :, rows]
                dp = np.matmul(gb, transposed(values[b, :, :J]))
                dposition = np.empty_like(dp)
                kernels.relative_softmax_backward(p, dp, dposition, own)
                near = far_first[:, :, S - J :]
                np.matmul(dp, keys[b, :, :J], out=heads_first(by_content[b, rows]))
                np.matmul(dposition, near, out=heads_first(by_position[b, rows]))
                heads_first(dk[b, :J])[...] += np.matmul(transposed(dp), qu[b, :, rows])
                heads_first(dv[b, :J])[...] += np.matmul(transposed(p), gb)
                if 3 in argnums:
                    dfar[:, S - J :] += np.matmul(transposed(dposition), qv[b, :, rows]).sum(axis=0)
        by_content *= scale
        by_position *= scale
        du, dvb = by_content.sum(axis=(0, 1)), by_position.sum(axis=(0, 1))
        by_content += by_position
        dr = dfar.transpose(1, 0, 2)[::-1]
        return tuple((by_content, dk, dv, dr, du, dvb)[i] for i in argnums)

    return backward


defvjp_argnums(_relative_attention, _relative_attention_vjp)
