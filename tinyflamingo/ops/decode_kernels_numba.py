"""A decoder block and a gated block for one token, each as one Numba loop (chapter §4 and §5).

They serve ``model/decode.py``: what ``decoder_block`` and ``gated_xattn_dense`` do with B rows of a
single token, forward only. A matrix product with one row reads every weight for two flops, so time
is the reading of the weights; everything between them stays in L1.

Not here: prompts and training, where many rows share a weight and BLAS is faster.
"""

import math

import numpy as np

from .jit import SUMS, helper, kernel


@helper(SUMS)
def _add_product(x, w, out):
    """out += x @ w for one row: eight rows of w at a time, so that out is read and written less."""
    rows, columns = w.shape
    whole = rows - rows % 8
    for i in range(0, whole, 8):
        x0, x1, x2, x3, x4, x5, x6, x7 = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]
        w0, w1, w2, w3, w4, w5, w6, w7 = w[i], w[i + 1], w[i + 2], w[i + 3], w[i + 4], w[i + 5], w[i + 6], w[i + 7]
        for j in range(columns):
            near = (x0 * w0[j] + x1 * w1[j]) + (x2 * w2[j] + x3 * w3[j])
            out[j] += near + ((x4 * w4[j] + x5 * w5[j]) + (x6 * w6[j] + x7 * w7[j]))
    for i in range(whole, rows):
        for j in range(columns):
            out[j] += x[i] * w[i, j]


@helper(SUMS)
def rms_norm_row(x, gain, eps, out):
    """``rms_norm`` of one row."""
    total = eps - eps
    for d in range(len(x)):
        total += x[d] * x[d]
    scale = 1 / np.sqrt(total / x.dtype.type(len(x)) + eps)
    for d in range(len(x)):
        out[d] = x[d] * scale * gain[d]


@helper(SUMS)
def _layer_norm_row(x, gain, bias, eps, out):
    mean = eps - eps
    for d in range(len(x)):
        mean += x[d]
    mean /= x.dtype.type(len(x))
    total = eps - eps
    for d in range(len(x)):
        total += (x[d] - mean) * (x[d] - mean)
    scale = 1 / np.sqrt(total / x.dtype.type(len(x)) + eps)
    for d in range(len(x)):
        out[d] = (x[d] - mean) * scale * gain[d] + bias[d]


@helper(SUMS)
def _softmax(scores):
    """In place, over a row that is not empty."""
    top = scores[0]
    for j in range(len(scores)):
        top = max(top, scores[j])
    total = top - top
    for j in range(len(scores)):
        scores[j] = math.exp(scores[j] - top)
        total += scores[j]
    for j in range(len(scores)):
        scores[j] /= total


@kernel(SUMS)
def decoder_step(h, weights, far, cached_k, cached_v, start, S, eps):
    """``decoder_block`` for a token a row, in place on h (B, D); the new key and value join the cache.

    weights: attn_gain, w_q, w_k, w_v, u, v, w_o, b_o, ffw_gain, w_1, b_1, w_2, b_2. far (capacity,
    H, K): projected distances; cached_k, cached_v (B, capacity, H, K); start (B,): first key seen;
    S: keys with the new one. 2 flops and 4 bytes of float32 a weight, 6 S H K for attention.
    Allocates four rows and the scores of one head.
    """
    attn_gain, w_q, w_k, w_v, u, vb, w_o, b_o, ffw_gain, w_1, b_1, w_2, b_2 = weights
    H, K = u.shape
    scale = h.dtype.type(1 / math.sqrt(K))
    half, one = h.dtype.type(0.5), h.dtype.type(1)
    c, a = h.dtype.type(0.7978845608028654), h.dtype.type(0.7978845608028654 * 0.044715)
    x, attended = np.empty_like(h[0]), np.empty(H * K, h.dtype)
    query, hidden = np.empty(H * K, h.dtype), np.empty_like(b_1)
    for b in range(len(h)):
        key, value = cached_k[b, S - 1].reshape(-1), cached_v[b, S - 1].reshape(-1)
        rms_norm_row(h[b], attn_gain, eps, x)
        query[:], key[:], value[:], attended[:] = 0, 0, 0, 0
        _add_product(x, w_q, query)
        _add_product(x, w_k, key)
        _add_product(x, w_v, value)
        scores = np.empty(S - start[b], h.dtype)
        for head in range(H):
            for n in range(len(scores)):
                j = start[b] + n
                total = scale - scale
                for d in range(K):
                    q = query[np.uint64(head * K + d)]
                    total += (q + u[head, d]) * cached_k[b, j, head, d]
                    total += (q + vb[head, d]) * far[S - 1 - j, head, d]
                scores[n] = total * scale
            _softmax(scores)
            for n in range(len(scores)):
                for d in range(K):
                    attended[np.uint64(head * K + d)] += scores[n] * cached_v[b, start[b] + n, head, d]
        for d in range(len(x)):
            h[b, d] += b_o[d]
        _add_product(attended, w_o, h[b])
        rms_norm_row(h[b], ffw_gain, eps, x)
        hidden[:] = b_1
        _add_product(x, w_1, hidden)
        for i in range(len(hidden)):
            z = hidden[i]
            hidden[i] = half * z * (one + math.tanh(z * (c + a * z * z)))
        for d in range(len(x)):
            h[b, d] += b_2[d]
        _add_product(hidden, w_2, h[b])


@kernel(SUMS)
def gated_step(h, weights, media_k, media_v, first, phi, gate_xattn, gate_dense, eps):
    """``gated_xattn_dense`` for a token a row, in place on h (B, D).

    weights: query_gain, query_bias, w_q, w_o, ffw_gain, ffw_bias, w_1, w_2. media_k, media_v (M, R,
    H, K): all media; a row sees those from first to phi (B,), none where phi is 0. gate_xattn,
    gate_dense: tanh of the gates. 2 flops and 4 bytes of float32 a weight, 4 H K a latent seen.
    Allocates four rows and the scores of one head.
    """
    query_gain, query_bias, w_q, w_o, ffw_gain, ffw_bias, w_1, w_2 = weights
    _, R, H, K = media_k.shape
    scale = h.dtype.type(1 / math.sqrt(K))
    x, mixed = np.empty_like(h[0]), np.empty_like(h[0])
    query, attended = np.empty(H * K, h.dtype), np.empty(H * K, h.dtype)
    hidden = np.empty(w_1.shape[1], h.dtype)
    for b in range(len(h)):
        if phi[b] > 0:
            _layer_norm_row(h[b], query_gain, query_bias, eps, x)
            query[:], attended[:], mixed[:] = 0, 0, 0
            _add_product(x, w_q, query)
            scores = np.empty((phi[b] - first[b] + 1) * R, h.dtype)
            for head in range(H):
                for n in range(len(scores)):
                    medium, r = first[b] - 1 + n // R, n % R
                    total = scale - scale
                    for d in range(K):
                        total += query[np.uint64(head * K + d)] * media_k[medium, r, head, d]
                    scores[n] = total * scale
                _softmax(scores)
                for n in range(len(scores)):
                    medium, r = first[b] - 1 + n // R, n % R
                    for d in range(K):
                        attended[np.uint64(head * K + d)] += scores[n] * media_v[medium, r, head, d]
            _add_product(attended, w_o, mixed)
            for d in range(len(x)):
                h[b, d] += gate_xattn * mixed[d]
        _layer_norm_row(h[b], ffw_gain, ffw_bias, eps, x)
        hidden[:], mixed[:] = 0, 0
        _add_product(x, w_1, hidden)
        for i in range(len(hidden)):
            positive = max(hidden[i], scale - scale)
            hidden[i] = positive * positive
        _add_product(hidden, w_2, mixed)
        for d in range(len(x)):
            h[b, d] += gate_dense * mixed[d]
