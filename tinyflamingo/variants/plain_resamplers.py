"""The paper's replacements of the Perceiver resampler: an MLP, and a plain Transformer (table 3).

Beside chapter §3. Neither resamples: each feature of a frame becomes a visual token. The MLP reads each feature by
itself. The Transformer has self-attention among all features of all frames, and its cost grows with their square. At
the end the frames of a video are averaged, so every medium has R = S tokens. Depth, width and the number of weights
are about those of the resampler; the paper says no more.

Not here: the Perceiver resampler (`model/perceiver_resampler.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, require
from tinyflamingo.model.perceiver_resampler import temporal_embedding
from tinyflamingo.ops.types import Array, Params


@dataclass(frozen=True)
class PlainResamplerConfig(ResamplerConfig):
    """Common to both: no projection of the features."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.input_width == self.width,
            f"input_width {self.input_width} differs from width {self.width}: a plain resampler has no projection",
        )


@dataclass(frozen=True)
class MLPConfig(PlainResamplerConfig):
    """The MLP."""


@dataclass(frozen=True)
class TransformerConfig(PlainResamplerConfig):
    """The plain Transformer."""


def resample_with_mlp(params: Params, groups: list[Array], config: FlamingoConfig) -> Array:
    """Features of media, a list of arrays (m, F, S, Dv) in order, to visual tokens (M, S, D)."""
    return _join(mlp, params, groups, config)


def resample_with_transformer(params: Params, groups: list[Array], config: FlamingoConfig) -> Array:
    """Features of media, a list of arrays (m, F, S, Dv) in order, to visual tokens (M, S, D)."""
    return _join(transformer, params, groups, config)


def _join(resampler, params, groups, config):
    tokens = [resampler(params["resampler"], group, config.resampler) for group in groups if len(group)]
    empty = np.zeros((0, config.resampler.latents, config.resampler.width), np.float32)
    return np.concatenate(tokens) if tokens else empty


def mlp(params: Params, features: Array, config: ResamplerConfig) -> Array:
    """Features (M, F, S, Dv) to visual tokens (M, S, D), each feature by itself: pre-norm squared-ReLU layers."""
    x = features + temporal_embedding(params["temporal"], features.shape[1])[:, None]
    for i in range(config.layers):
        x = feed_forward(params[f"layer_{i}"], x)
    return mean_frames(x)


def transformer(params: Params, features: Array, config: ResamplerConfig) -> Array:
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


def feed_forward(params: Params, x: Array) -> Array:
    """x + W_2 relu(W_1 norm(x))^2, (..., D) -> (..., D)."""
    hidden = ops.linear(ops.layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + ops.linear(ops.squared_relu(hidden), params["w_2"])


def mean_frames(x: Array) -> Array:
    """The mean over the frames, (M, F, S, D) -> (M, S, D)."""
    return np.sum(x, axis=1) * x.dtype.type(1 / x.shape[1])


def init_mlp(rng: np.random.Generator, config: MLPConfig, dtype: type = np.float32) -> Params:
    """Parameters of the MLP. Its hidden layer is wider, with as many weights as the missing attention would have."""
    hidden = config.ffw_multiplier * config.width + 2 * config.heads * config.key_size
    return _init(rng, config, dtype, lambda: _feed_forward(rng, config.width, hidden, dtype))


def init_transformer(rng: np.random.Generator, config: TransformerConfig, dtype: type = np.float32) -> Params:
    """Parameters of the plain Transformer."""
    D, inner = config.width, config.heads * config.key_size

    def layer():
        attention = {"attn_gain": np.ones(D, dtype), "attn_bias": np.zeros(D, dtype)}
        attention |= {name: _matrix(rng, D, inner, dtype) for name in ("w_q", "w_k", "w_v")}
        attention["w_o"] = _matrix(rng, inner, D, dtype)
        return attention | _feed_forward(rng, D, config.ffw_multiplier * D, dtype)

    return _init(rng, config, dtype, layer)


def _init(rng, config, dtype, layer):
    params = {"temporal": (rng.standard_normal((config.frames, config.width)) * 0.5).astype(dtype)}
    return params | {f"layer_{i}": layer() for i in range(config.layers)}


def _feed_forward(rng, D, hidden, dtype):
    return {
        "ffw_gain": np.ones(D, dtype),
        "ffw_bias": np.zeros(D, dtype),
        "w_1": _matrix(rng, D, hidden, dtype),
        "w_2": _matrix(rng, hidden, D, dtype, 0.1),
    }


def _matrix(rng, rows, columns, dtype, scale=1.0):
    return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)
