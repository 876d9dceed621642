"""Causal Transformer-XL attention as one primitive (Dai et al. 2019, equation for A^rel in §3.3).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K),   start_i <= j <= own_i

The second term is computed against every distance by one GEMM and then read along a diagonal; the
famous "relative shift" is where the kernel begins to read, not a copy. It does not project r: the
sinusoids times their weight come in.
"""

import numpy as np
from autograd.extend import defvjp_argnums, primitive

from . import kernels
from .fast_attention import blocks, heads_first, transposed

QUERIES = 64  # query rows in a block; a block meets no key beyond its last row's own


def relative_attention(q, k, v, r, u, vb, visible_from):
    """``reference.relative_attention``: about 3/4 of the 6 B H T S K flops, at T = S = 128.

    Blocks of queries meet only the keys up to their own; all softmax work is in place in L2. Keeps
    the probabilities of those blocks. Allocates no shifted copy, no mask, no future.
    """
    return _relative_attention(q, k, v, r, u, vb, visible_from, {})


def query_blocks(T, S):
    """(rows, first row's own key, keys met) for each block, the last and longest first."""
    steps = [(i, min(i + QUERIES, T)) for i in range(0, T, QUERIES)]
    return [(slice(i, e), S - T + i, S - T + e) for i, e in reversed(steps)]


def _by_head(r):
    """r (S, H, K) -> (1, H, S, K) with the largest distance first: the order in which keys lie."""
    return np.ascontiguousarray(r[::-1].transpose(1, 0, 2))[None]


@primitive
def _relative_attention(q, k, v, r, u, vb, visible_from, saved):
    B, T, H, K = q.shape
    S = k.shape[1]
    scale = q.dtype.type(K**-0.5)
    qu, qv = heads_first((q + u) * scale), heads_first((q + vb) * scale)
    keys, values, far_first = heads_first(k), heads_first(v), _by_head(r)
    out = np.empty_like(q, order="C")
    saved["p"] = []
    for b in blocks(B, H * T * S):
        for rows, own, J in query_blocks(T, S):
            p = np.matmul(qu[b, :, rows], transposed(keys[b, :, :J]))
            position = np.matmul(qv[b, :, rows], transposed(far_first[:, :, S - J :]))
            kernels.relative_scores(p, position, visible_from[b, rows], own)
            np.exp(p, out=p)
            kernels.normalise_rows(p)
            np.matmul(p, values[b, :, :J], out=heads_first(out[b, rows]))
            saved["p"].append(p)
    return out


def _relative_attention_vjp(argnums, ans, args, kwargs):
    q, k, v, r, u, vb, visible_from, saved = args
    B, T, H, K = q.shape
    S = k.shape[1]
    scale = q.dtype.type(K**-0.5)

    def backward(g):
        g = heads_first(g)
        qu, qv = heads_first((q + u) * scale), heads_first((q + vb) * scale)
        keys, values, far_first = heads_first(k), heads_first(v), _by_head(r)
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
                    slid = np.matmul(transposed(dposition), qv[b, :, rows])
                    dfar[:, S - J :] += slid.sum(axis=0)
        by_content *= scale
        by_position *= scale
        du, dvb = by_content.sum(axis=(0, 1)), by_position.sum(axis=(0, 1))
        by_content += by_position
        dr = dfar.transpose(1, 0, 2)[::-1]
        return tuple((by_content, dk, dv, dr, du, dvb)[i] for i in argnums)

    return backward


defvjp_argnums(_relative_attention, _relative_attention_vjp)
