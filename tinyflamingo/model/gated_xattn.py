"""GATED XATTN-DENSE: the layer that lets a frozen language model look at pictures.

Chapter §4; paper section 2.2 and figure 4. Text tokens query the visual tokens of one medium, their
own (`phi`), or in the paper's ablation (table 10) of all media of their document up to it; then a
feed-forward layer. Both are added through tanh gates that start at exactly 0,
so the untrained layer is the identity, to the last bit. Layer norms stand on the queries, on keys
and values (one norm for both) and before the feed-forward, as the paper's first version says; the
public ports have none on keys and values, and GELU for squared ReLU (`XattnConfig`).

Not here: where the blocks stand (`model/flamingo.py`) and what `phi` is (`model/interleave.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig


def gated_xattn_dense(params, h, visual, phi, config: FlamingoConfig, keys_values=None, first=None):
    """h (B, T, D) text, visual (M, R, D) tokens of all media of the batch -> (B, T, D).

    phi (B, T): 0, no medium: the cross-attention adds exactly nothing; m > 0: medium m of the
    batch, counted from 1. keys_values: from `media_keys_values`, when they are cached. first (B, T):
    first medium of a token's document; read where `config.xattn.attend` is "all_previous" only.
    """
    B, T, _ = ops.expect(h, "B T D", D=config.language.width).shape
    ops.expect(phi, "B T", B=B, T=T)
    heads = (config.xattn.heads, config.xattn.key_size)
    k, v = media_keys_values(params, visual, config) if keys_values is None else keys_values
    x = ops.layer_norm(h, params["query_gain"], params["query_bias"])
    # Every token says itself which media it meets, so the rows of a batch can stand in one long row.
    q = np.reshape(ops.linear(x, params["w_q"]), (1, B * T, *heads))
    seen = ops.segment_attention(q, k, v, np.reshape(phi, (1, B * T)), _first_seen(phi, first, config))
    seen = np.reshape(seen, (B, T, -1))
    h = h + np.tanh(params["alpha_xattn"]) * ops.linear(seen, params["w_o"])
    x = ops.layer_norm(h, params["ffw_gain"], params["ffw_bias"])
    dense = ops.linear(getattr(ops, config.xattn.activation)(ops.linear(x, params["w_1"])), params["w_2"])
    return h + np.tanh(params["alpha_dense"]) * dense


def _first_seen(phi, first, config: FlamingoConfig):
    """The first medium each token attends to, (1, B T); None: its own only."""
    if config.xattn.attend == "last":
        return None
    if first is None:
        raise ValueError("gated_xattn_dense: xattn.attend is 'all_previous', so `first` is needed beside phi")
    return np.reshape(ops.expect(first, "B T", B=phi.shape[0], T=phi.shape[1]), (1, phi.size))


def media_keys_values(params, visual, config: FlamingoConfig):
    """Keys and values of all media, each (1, M, R, H, K). They do not depend on the text: cache them."""
    M, R, _ = ops.expect(visual, "M R D", D=config.visual_width).shape
    shape = (1, M, R, config.xattn.heads, config.xattn.key_size)
    media = ops.layer_norm(visual, params["media_gain"], params["media_bias"]) if config.xattn.media_norm else visual
    return tuple(np.reshape(ops.linear(media, params[name]), shape) for name in ("w_k", "w_v"))


def init_gated_xattn(rng, config: FlamingoConfig, dtype=np.float32):
    """One block. The gates are exactly 0; the paper gives no initialisation for the rest."""
    D, media = config.language.width, config.visual_width
    inner, hidden = config.xattn.heads * config.xattn.key_size, config.xattn.ffw_multiplier * D

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)

    norm = {"media_gain": np.ones(media, dtype), "media_bias": np.zeros(media, dtype)}
    return (norm if config.xattn.media_norm else {}) | {
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
