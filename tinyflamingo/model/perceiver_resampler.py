"""The Perceiver resampler: any number of visual features in, R visual tokens out.

Chapter §3; paper section 2.1 and figure 5. The queries are R learned latents. The keys and values are the visual
features and the latents, concatenated. So a picture of any size and a video of any length become the same R tokens,
and the cost is linear in the number of features. Also here: the learned temporal embedding of each frame, and its
linear interpolation for longer videos (chapter §2).

Not here: spatial position codes (the paper has none), layer norms on the features and on the output (the paper names
none: docs/deviations.md), other resamplers (`variants/`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.ops.types import Array, Params


def perceiver_resampler(params: Params, features: Array, config: ResamplerConfig) -> Array:
    """Features (M, F, S, Dv) of M media with F frames each, to visual tokens (M, R, D). A picture has one frame.

    The order of the S features of a frame has no effect. The order of the frames has one: the temporal embedding.
    """
    M, F, S, _ = ops.expect(features, "M F S Dv", Dv=config.input_width).shape
    if "w_in" in params:
        features = ops.linear(features, params["w_in"])
    time = temporal_embedding(params["temporal"], F)
    x = params["latents"] + np.zeros((M, 1, 1), features.dtype)  # (M, R, D): the same latents for every medium
    for i in range(config.layers):
        x = resampler_layer(params[f"layer_{i}"], x, features, time, config)
    return x


def resampler_layer(params: Params, x: Array, features: Array, time: Array, config: ResamplerConfig) -> Array:
    """One layer: the latents x (M, R, D) attend to [features + time ; norm(x)], then a feed-forward layer."""
    M, R, _ = x.shape
    q, k, v = project(params, x, features, time, config)
    x = x + ops.linear(np.reshape(ops.attention(q, k, v), (M, R, -1)), params["w_o"])
    hidden = ops.linear(ops.layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + ops.linear(ops.squared_relu(hidden), params["w_2"])


def project(params: Params, x: Array, features: Array, time: Array, config: ResamplerConfig) -> tuple:
    """Queries (M, R, H, K) of the latents x; keys and values (M, F S + R, H, K) of features and latents (figure 5)."""
    M, R, _ = x.shape
    H, K = config.heads, config.key_size
    latents = ops.layer_norm(x, params["attn_gain"], params["attn_bias"])
    q = np.reshape(ops.linear(latents, params["w_q"]), (M, R, H, K))
    k, v = (np.reshape(project_both(features, time, latents, params[n]), (M, -1, H, K)) for n in ("w_k", "w_v"))
    return q, k, v


def project_both(features: Array, time: Array, latents: Array, w: Array) -> Array:
    """[features + time ; latents] @ w: keys or values of features AND latents, (M, F S + R, H K).

    Features (M, F, S, D), time (F, D) and latents (M, R, D) are projected one by one. The numbers are the same, but
    the frozen features need no gradient, and the gradient of the time is a sum.
    """
    M, inner = latents.shape[0], w.shape[1]
    both = ops.linear(features, w) + np.reshape(ops.linear(time, w), (-1, 1, inner))
    return np.concatenate([np.reshape(both, (M, -1, inner)), ops.linear(latents, w)], axis=1)


def temporal_embedding(table: Array, F: int) -> Array:
    """Rows of the learned table (frames, D) for a video of F frames -> (F, D).

    Up to the trained number of frames: the first F rows. More: linear interpolation stretches the rows over the
    video (paper, appendix B.1.2: 8 frames in training, 30 at test time).
    """
    trained = table.shape[0]
    if F <= trained:
        return table[:F]
    place = np.linspace(0.0, trained - 1.0, F)
    low = np.minimum(place.astype(int), trained - 2)
    share = (place - low).astype(table.dtype)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share


def init_resampler(rng: np.random.Generator, config: ResamplerConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts. The paper gives no initialisation. Here values pass almost unchanged at the start
    (`w_v` orthogonal, `w_o` its scaled transpose), and the feed-forward layer is small."""
    D = config.width
    params = {"latents": (rng.standard_normal((config.latents, D)) * 0.3).astype(dtype)}
    params["temporal"] = (rng.standard_normal((config.frames, D)) * 0.5).astype(dtype)
    if config.input_width != D:  # features and latents need one width to share the matrices of keys and values
        params["w_in"] = (rng.standard_normal((config.input_width, D)) * config.input_width**-0.5).astype(dtype)
    return params | {f"layer_{i}": init_layer(rng, config, dtype) for i in range(config.layers)}


def init_layer(rng: np.random.Generator, config: ResamplerConfig, dtype: type = np.float32) -> Params:
    """Parameters of one layer."""
    D, inner, hidden = config.width, config.heads * config.key_size, config.ffw_multiplier * config.width
    w_v = np.linalg.qr(rng.standard_normal((max(D, inner), max(D, inner))))[0][:D, :inner]
    return {
        "attn_gain": np.ones(D, dtype),
        "attn_bias": np.zeros(D, dtype),
        "w_q": (rng.standard_normal((D, inner)) * D**-0.5).astype(dtype),
        "w_k": (rng.standard_normal((D, inner)) * D**-0.5).astype(dtype),
        "w_v": w_v.astype(dtype),
        "w_o": (3.0 * w_v.T).astype(dtype),
        "ffw_gain": np.ones(D, dtype),
        "ffw_bias": np.zeros(D, dtype),
        "w_1": (rng.standard_normal((D, hidden)) * D**-0.5).astype(dtype),
        "w_2": (rng.standard_normal((hidden, D)) * 0.1 * hidden**-0.5).astype(dtype),
    }
