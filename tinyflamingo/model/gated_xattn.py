"""GATED XATTN-DENSE: the layer through which a frozen language model reads pictures.

Chapter §4; paper section 2.2 and figure 4. The text tokens are the queries. The keys and values are the visual tokens
of one medium: the medium whose number is the token's `phi`. A feed-forward layer follows. Both are added through tanh
gates that start at exactly 0, so the untrained layer is the identity, to the last bit. There is a layer norm on the
queries, one on keys and values, and one before the feed-forward layer (first version of the paper).

Not here: the places of the blocks (`model/flamingo.py`), the computation of `phi` (`model/interleave.py`), other forms
of the block (`variants/`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, XattnConfig
from tinyflamingo.ops.types import Array, Cache, Params


def gated_xattn_dense(
    params: Params, h: Array, visual: Array, phi: Array, config: XattnConfig, cache: Cache = None
) -> Array:
    """Text h (B, T, D) and visual tokens (M, R, D) of all media of the batch -> (B, T, D).

    phi (B, T): m > 0 is medium m of the batch, counted from 1; 0 is no medium, and then the cross-attention adds
    exactly nothing. cache: see `media_keys_values`.
    """
    k, v = media_keys_values(params, visual, config, cache)
    h = h + np.tanh(params["alpha_xattn"]) * cross_attention(params, h, k, v, phi, config)
    return h + np.tanh(params["alpha_dense"]) * feed_forward(params, h)


def cross_attention(params: Params, h: Array, k: Array, v: Array, phi: Array, config: XattnConfig) -> Array:
    """What every token takes from the latents of its own medium, (B, T, D); k, v from `media_keys_values`."""
    B, T, _ = h.shape
    x = ops.layer_norm(h, params["query_gain"], params["query_bias"])
    # Each token names its own medium, so the rows of a batch can be joined into one long row.
    q = ops.linear(x, params["w_q"]).reshape((1, B * T, config.heads, config.key_size))
    attended = ops.segment_attention(q, k, v, ops.expect(phi, "B T", B=B, T=T).reshape(1, B * T))
    return ops.linear(attended.reshape((B, T, -1)), params["w_o"])


def media_keys_values(params: Params, visual: Array, config: XattnConfig, cache: Cache = None) -> tuple[Array, Array]:
    """Keys and values of all media, each (1, M, R, H, K). They do not depend on the text: a cache keeps them."""
    if cache and "k" in cache:
        return cache["k"], cache["v"]
    M, R, D = visual.shape
    media = ops.layer_norm(visual, params["media_gain"], params["media_bias"])
    shape = (1, M, R, config.heads, config.key_size)
    k, v = (ops.linear(media, params[name]).reshape(shape) for name in ("w_k", "w_v"))
    if cache is not None:
        cache["k"], cache["v"] = k, v
    return k, v


def feed_forward(params: Params, h: Array) -> Array:
    """W_2 relu(W_1 norm(h))^2 for every token by itself, (B, T, D) -> (B, T, D)."""
    x = ops.layer_norm(h, params["ffw_gain"], params["ffw_bias"])
    return ops.linear(ops.squared_relu(ops.linear(x, params["w_1"])), params["w_2"])


def init_gated_xattn(rng: np.random.Generator, config: FlamingoConfig, dtype: type = np.float32) -> Params:
    """Parameters of one block. The gates are exactly 0; the paper says nothing about the other values."""
    D, media = config.language.width, config.resampler.output_width
    inner, hidden = config.xattn.heads * config.xattn.key_size, config.xattn.ffw_multiplier * D

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)

    return {
        "media_gain": np.ones(media, dtype),
        "media_bias": np.zeros(media, dtype),
        "query_gain": np.ones(D, dtype),
        "query_bias": np.zeros(D, dtype),
        "w_q": matrix(D, inner),
        "w_k": matrix(media, inner),
        "w_v": matrix(media, inner),
        "w_o": matrix(inner, D),
        "alpha_xattn": np.zeros((), dtype),
        "ffw_gain": np.ones(D, dtype),
        "ffw_bias": np.zeros(D, dtype),
        "w_1": matrix(D, hidden),
        "w_2": matrix(hidden, D, 0.5),
        "alpha_dense": np.zeros((), dtype),
    }
