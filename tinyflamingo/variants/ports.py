"""Resampler and gated block of the public ports of Flamingo.

`flamingo-pytorch` (0.1.2), `flamingo-mini` (0.0.2) and `open_flamingo` (2.0.1) agree on three points. GELU is exact. A
layer norm is on the features in every resampler layer, and one after the last layer. The media in a gated block have no
layer norm. They differ in the places of the gated blocks. They also differ in the embeddings that are added to the
features: of a frame's time, of a medium's place in its document, or both.

Not here: names in their files (`interop/names.py`), their decoders (`decoders.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import (
    FlamingoConfig,
    ResamplerConfig,
    XattnConfig,
    require,
    require_choice,
    require_whole_fields,
)
from tinyflamingo.model.gated_xattn import cross_attention, init_gated_xattn
from tinyflamingo.model.perceiver_resampler import init_layer, temporal_embedding
from tinyflamingo.ops.types import Array, Cache, Params
from tinyflamingo.variants.ablations import PlacedXattnConfig, without

ACTIVATIONS = {"gelu_erf": ops.gelu_erf, "squared_relu": ops.squared_relu, "relu": ops.relu}  # all in flamingo-mini


# ---- the resampler


@dataclass(frozen=True)
class PortResamplerConfig(ResamplerConfig):
    """A port's resampler. frames 0: no temporal embedding (flamingo-pytorch)."""

    places: int = 0  # how many places of media in a document have a learned embedding; 0: there is no such embedding
    activation: str = "gelu_erf"  # of the feed-forward layer

    def __post_init__(self) -> None:
        require_whole_fields(self, may_be_zero=("frames", "places"))
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        require(self.input_width == self.width, f"input_width {self.input_width} differs from width {self.width}")


def resample_as_ports(params: Params, groups: list[Array], config: FlamingoConfig) -> Array:
    """Features of the media of one document, in order, to visual tokens (M, R, D).

    groups: a list of arrays (m, F, S, Dv). `UserError` if there are more media than places.
    """
    assert isinstance(config.resampler, PortResamplerConfig)
    tokens, place = [], 0
    for group in filter(len, groups):
        tokens.append(port_resampler(params["resampler"], group, config.resampler, place))
        place += len(group)
    latents = params["resampler"]["latents"]
    return np.concatenate(tokens) if place else np.zeros((0, *latents.shape), latents.dtype)


def port_resampler(params: Params, features: Array, config: PortResamplerConfig, place: int = 0) -> Array:
    """Features (M, F, S, Dv) to visual tokens (M, R, D). place: of the first of these media in its document, from 0."""
    features = add_embeddings(params, features, config, place)
    x = params["latents"] + np.zeros((len(features), 1, 1), features.dtype)  # (M, R, D)
    for i in range(config.layers):
        x = port_resampler_layer(params[f"layer_{i}"], x, features, config)
    return ops.layer_norm(x, params["out_gain"], params["out_bias"])


def port_resampler_layer(params: Params, x: Array, features: Array, config: PortResamplerConfig) -> Array:
    """One layer: the latents x (M, R, D) attend to [norm(features) ; x], then a feed-forward layer."""
    M, R, _ = x.shape
    q, k, v = project_normed(params, x, features, config)
    x = x + ops.linear(np.reshape(ops.attention(q, k, v), (M, R, -1)), params["w_o"])
    hidden = ops.linear(ops.layer_norm(x, params["ffw_gain"], params["ffw_bias"]), params["w_1"])
    return x + ops.linear(ACTIVATIONS[config.activation](hidden), params["w_2"])


def project_normed(params: Params, x: Array, features: Array, config: PortResamplerConfig) -> tuple:
    """Queries (M, R, H, K) of the latents x; keys and values (M, F S + R, H, K) of normed features and latents."""
    M, R, D = x.shape
    features = ops.layer_norm(features, params["media_gain"], params["media_bias"])
    latents = ops.layer_norm(x, params["attn_gain"], params["attn_bias"])
    both = np.concatenate([np.reshape(features, (M, -1, D)), latents], axis=1)
    shape = (M, -1, config.heads, config.key_size)
    pairs = ((latents, "w_q"), (both, "w_k"), (both, "w_v"))
    return tuple(np.reshape(ops.linear(array, params[name]), shape) for array, name in pairs)


def add_embeddings(params: Params, features: Array, config: PortResamplerConfig, place: int = 0) -> Array:
    """Features (M, F, S, Dv) plus the embeddings of a frame's time and of a medium's place, if the port has them."""
    M, F, _, Dv = features.shape
    if config.frames:
        features = features + np.reshape(temporal_embedding(params["temporal"], F), (F, 1, Dv))
    if config.places:
        features = features + embed_places(params["place"], place, M)
    return features


def embed_places(table: Array, first: int, count: int) -> Array:
    """Rows of the learned table (places, D) for `count` media from place `first` on -> (count, 1, 1, D)."""
    media, places = first + count, len(table)
    if media > places:
        raise UserError(f"a document has {media} pictures or videos, but this resampler has places for {places} only")
    return table[first : first + count, None, None, :]


def init_port_resampler(rng: np.random.Generator, config: PortResamplerConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts, at the same scale as in the chapter's resampler."""
    D = config.width
    params = {"latents": (rng.standard_normal((config.latents, D)) * 0.3).astype(dtype)}
    for name, rows in (("temporal", config.frames), ("place", config.places)):
        if rows:
            params[name] = (rng.standard_normal((rows, D)) * 0.5).astype(dtype)
    params |= {"out_gain": np.ones(D, dtype), "out_bias": np.zeros(D, dtype)}
    for i in range(config.layers):
        norm = {"media_gain": np.ones(D, dtype), "media_bias": np.zeros(D, dtype)}
        params[f"layer_{i}"] = norm | init_layer(rng, config, dtype)
    return params


# ---- the gated block


@dataclass(frozen=True)
class PortXattnConfig(PlacedXattnConfig):
    """A port's gated blocks."""

    side: str = "before"  # before or after the decoder block; flamingo-pytorch: "after"
    activation: str = "gelu_erf"  # of the feed-forward layer

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("side", self.side, ("before", "after"))
        require_choice("activation", self.activation, tuple(ACTIVATIONS))


def port_xattn_dense(
    params: Params, h: Array, visual: Array, phi: Array, config: PortXattnConfig, cache: Cache = None
) -> Array:
    """`gated_xattn_dense` without a layer norm on the media."""
    k, v = plain_keys_values(params, visual, config, cache)
    h = h + np.tanh(params["alpha_xattn"]) * cross_attention(params, h, k, v, phi, config)
    return h + np.tanh(params["alpha_dense"]) * port_feed_forward(params, h, config)


def port_feed_forward(params: Params, h: Array, config: PortXattnConfig) -> Array:
    """W_2 f(W_1 norm(h)) for every token by itself, (B, T, D) -> (B, T, D)."""
    x = ops.layer_norm(h, params["ffw_gain"], params["ffw_bias"])
    return ops.linear(ACTIVATIONS[config.activation](ops.linear(x, params["w_1"])), params["w_2"])


def plain_keys_values(params: Params, visual: Array, config: XattnConfig, cache: Cache = None) -> tuple[Array, Array]:
    """Keys and values of all media without a norm, each (1, M, R, H, K); a cache keeps them."""
    cache = {} if cache is None else cache
    if "k" not in cache:
        shape = (1, *visual.shape[:2], config.heads, config.key_size)
        for name in ("k", "v"):
            cache[name] = np.reshape(ops.linear(visual, params[f"w_{name}"]), shape)
    return cache["k"], cache["v"]


def init_port_xattn(rng: np.random.Generator, config: FlamingoConfig, dtype: type = np.float32) -> Params:
    """Parameters of one block, without the layer norm on the media."""
    return without(init_gated_xattn(rng, config, dtype), "media_gain", "media_bias")
