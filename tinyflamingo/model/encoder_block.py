"""One block of a bidirectional pre-norm transformer, for the text tower and the ViT.

Chapter §2. Every position sees every other position that the mask allows. Not here: the block of the decoder, which
sees earlier positions only (`model/language_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.types import Array, Params


def encoder_block(
    params: Params, h: Array, heads: int, mask: Array | None = None, activation: Callable = ops.gelu
) -> Array:
    """h + attention(norm(h)), then h + feed-forward(norm(h)). h (B, T, D) -> (B, T, D).

    mask (B, T): True on the positions that may be seen; None: all. Queries, keys and values have biases if `params`
    has them.
    """
    B, T, _ = h.shape
    x = ops.layer_norm(h, params["attn_gain"], params["attn_bias"])
    q, k, v = (
        np.reshape(ops.linear(x, params[f"w_{name}"], params.get(f"b_{name}")), (B, T, heads, -1)) for name in "qkv"
    )
    attended = np.reshape(ops.attention(q, k, v, mask), (B, T, -1))
    h = h + ops.linear(attended, params["w_o"], params["b_o"])
    x = ops.layer_norm(h, params["ffw_gain"], params["ffw_bias"])
    return h + ops.linear(activation(ops.linear(x, params["w_1"], params["b_1"])), params["w_2"], params["b_2"])


def init_encoder_block(rng: np.random.Generator, D: int, hidden: int, layers: int, dtype: type = np.float32) -> Params:
    """Parameters without biases of q, k, v. Projections back into the stream start smaller, by sqrt(2 layers)."""

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * (scale * rows**-0.5)).astype(dtype)

    back = (2 * layers) ** -0.5
    return {
        "attn_gain": np.ones(D, dtype),
        "attn_bias": np.zeros(D, dtype),
        "w_q": matrix(D, D),
        "w_k": matrix(D, D),
        "w_v": matrix(D, D),
        "w_o": matrix(D, D, back),
        "b_o": np.zeros(D, dtype),
        "ffw_gain": np.ones(D, dtype),
        "ffw_bias": np.zeros(D, dtype),
        "w_1": matrix(D, hidden),
        "b_1": np.zeros(hidden, dtype),
        "w_2": matrix(hidden, D, back),
        "b_2": np.zeros(D, dtype),
    }
