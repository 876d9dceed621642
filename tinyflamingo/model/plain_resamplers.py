"""What the paper sets in the Perceiver resampler's place: an MLP, and a plain Transformer (table 3).

Beside chapter §3. Neither resamples: every feature of a frame becomes a visual token, after an MLP of
its own, or after self-attention among all features of all frames, whose cost grows with their
square. At the end the frames of a video are averaged, so that every medium has R = S tokens. Depth
and width are the resampler's, and so is the number of weights, about; the paper says no more.

Not here: the Perceiver resampler itself (`perceiver_resampler.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.model.perceiver_resampler import init_resampler, perceiver_resampler, temporal_embedding


def mlp(params, features, config: ResamplerConfig):
    """Features (M, F, S, Dv) to visual tokens (M, S, D), each feature by itself: pre-norm squared-ReLU layers."""
    x = features + temporal_embedding(params["temporal"], features.shape[1])[:, None]
    for i in range(config.layers):
        x = feed_forward(params[f"layer_{i}"], x)
    return mean_frames(x)


def transformer(params, features, config: ResamplerConfig):
    """Features (M, F, S, Dv) to visual tokens (M, S, D): pre-norm layers of self-attention, all to all."""
    M, F, S, D = features.shape
    x = features + temporal_embedding(params["temporal"], F)[:, None]
    x = np.reshape(x, (M, F * S, D))
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        normed = ops.layer_norm(x, layer["attn_gain"], layer["attn_bias"])
        shape = (M, F * S, config.heads, config.key_size)
        q, k, v = (np.reshape(ops.linear(normed, layer[name]), shape) for name in ("w_q", "w_k", "w_v"))
        x = x + ops.linear(np.reshape(ops.attention(q, k, v), (M, F * S, -1)), layer["w_o"])
        x = feed_forward(layer, x)
    return mean_frames(np.reshape(x, (M, F, S, D)))


def feed_forward(params, x):
    """x + W_2 relu(W_1 norm(x))^2, of any leading shape."""
    hidden = ops.linear(ops.layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + ops.linear(ops.squared_relu(hidden), params["w_2"])


def mean_frames(x):
    """(M, F, S, D) -> (M, S, D)."""
    return np.sum(x, axis=1) * x.dtype.type(1 / x.shape[1])


def init_plain(rng, config: ResamplerConfig, dtype=np.float32):
    """Parameters of either. The MLP's hidden layer is wider by as much as attention would have weighed."""
    D, inner = config.width, config.heads * config.key_size
    hidden = config.ffw_multiplier * D + (2 * inner if config.kind == "mlp" else 0)

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)

    params = {"temporal": (rng.standard_normal((config.frames, D)) * 0.5).astype(dtype)}
    for i in range(config.layers):
        layer = {"ffw_gain": np.ones(D, dtype), "ffw_bias": np.zeros(D, dtype)}
        if config.kind == "transformer":
            layer |= {"attn_gain": np.ones(D, dtype), "attn_bias": np.zeros(D, dtype)}
            layer |= {name: matrix(D, inner) for name in ("w_q", "w_k", "w_v")} | {"w_o": matrix(inner, D)}
        params[f"layer_{i}"] = layer | {"w_1": matrix(D, hidden), "w_2": matrix(hidden, D, 0.1)}
    return params


# kind of `ResamplerConfig`: (parameters, features to visual tokens)
RESAMPLERS = {
    "perceiver": (init_resampler, perceiver_resampler),
    "mlp": (init_plain, mlp),
    "transformer": (init_plain, transformer),
}
