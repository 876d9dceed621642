"""Attention maps: the attention weights of gated blocks and of the resampler, as arrays.

Chapter §5. The layers do not keep their attention weights. They are computed here again, from the same parameters and
the same stream: `attention_maps` runs the loop of `model/flamingo.py` with a gated block that stores its weights. A
map shows what was weighed, not what mattered. To see what mattered, cover a part of the picture and compare the
answers.

Not here: the layers (`model/gated_xattn.py`, `model/perceiver_resampler.py`) and figures.
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, XattnConfig
from tinyflamingo.model.flamingo import CHAPTER, Parts, flamingo
from tinyflamingo.model.gated_xattn import media_keys_values
from tinyflamingo.model.perceiver_resampler import project, resampler_layer, temporal_embedding
from tinyflamingo.ops.reference import masked_softmax
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.variants.ablations import Pending
from tinyflamingo.variants.ports import PortResamplerConfig, add_embeddings, port_resampler_layer, project_normed


def attention_maps(
    params: Params,
    frozen: Params,
    tokens: Array,
    phi: Array,
    visual: Array,
    config: FlamingoConfig,
    visible_from: Array | None = None,
    parts: Parts = CHAPTER,
) -> Array:
    """The weights of every text token in every gated block: (G, B, T, H, M, R), G gated blocks.

    Arguments as in `flamingo`. The weights of a head sum to 1 over the latents of the media that the token sees. All
    other weights are exactly 0; if phi is 0, all weights of the token are.
    """
    maps: list = []
    watched = parts._replace(gated_block=_storing(parts.gated_block, maps))
    flamingo(params, frozen, tokens, phi, visual, config, visible_from, cache={}, parts=watched)
    return np.stack(maps)


def _storing(gated_block, maps):
    """The same block, which also appends its attention weights to `maps`."""

    def block(params, h, visual, phi, config, cache):
        out = gated_block(params, h, visual, phi, config, cache)
        if not isinstance(out, Pending):
            maps.append(attention_weights(params, h, cache["k"], phi, config))
            return out

        def act(h):
            after = out.act(h)
            maps.append(attention_weights(params, h, cache["k"], phi, config))
            return after

        return Pending(out.h, act)

    return block


def gated_attention_map(params: Params, h: Array, visual: Array, phi: Array, config: XattnConfig) -> Array:
    """One gated block: h (B, T, D), visual (M, R, D), phi (B, T) -> weights (B, T, H, M, R)."""
    return attention_weights(params, h, media_keys_values(params, visual, config)[0], phi, config)


def attention_weights(params: Params, h: Array, k: Array, phi: Array, config: XattnConfig) -> Array:
    """Weights (B, T, H, M, R) of the stream h (B, T, D) over keys k (1, M, R, H, K).

    phi (B, T): the medium that a token sees; (B, T, 2): the first and the last one.
    """
    B, T, _ = h.shape
    _, M, R, H, K = k.shape
    if M == 0:
        return np.zeros((B, T, H, M, R), h.dtype)
    first, last = (phi, phi) if phi.ndim == 2 else (phi[..., 0], phi[..., 1])
    x = ops.layer_norm(h, params["query_gain"], params["query_bias"])
    q = np.reshape(ops.linear(x, params["w_q"]), (B, T, H, K))
    scores = np.reshape(np.einsum("bthk,mrhk->bthmr", q, k[0]), (B, T, H, M * R)) * K**-0.5
    owner = np.repeat(np.arange(1, M + 1), R)
    visible = (first[:, :, None] <= owner) & (owner <= last[:, :, None])  # (B, T, M R)
    weights = masked_softmax(scores, np.broadcast_to(visible[:, :, None], scores.shape))
    return np.reshape(weights, (B, T, H, M, R))


def resampler_maps(params: Params, features: Array, config: ResamplerConfig) -> Array:
    """The weights of every latent in every layer: (L, M, H, R, F S + R) for features (M, F, S, Dv).

    The columns are the features of all frames, then the latents. Each row sums to 1. The M media belong to one
    document, in order. Raises ValueError for a resampler without latents.
    """
    if "latents" not in params:
        raise ValueError(f"resampler_maps: a resampler of {type(config).__name__} has no latents, so it has no maps")
    x = np.broadcast_to(params["latents"], (len(features), *params["latents"].shape))
    project_of, layer_of, inputs = _functions(params, features, config)
    maps = []
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        q, k, _ = project_of(layer, x, *inputs)
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * config.key_size**-0.5
        maps.append(masked_softmax(scores, np.ones(scores.shape, bool)))
        x = layer_of(layer, x, *inputs)
    return np.stack(maps)


def _functions(params, features, config):
    """For the chapter's resampler or a port's: the function that gives q, k, v, the layer, and their other inputs."""
    if isinstance(config, PortResamplerConfig):
        return project_normed, port_resampler_layer, (add_embeddings(params, features, config), config)
    features = ops.linear(features, params["w_in"]) if "w_in" in params else features
    return project, resampler_layer, (features, temporal_embedding(params["temporal"], features.shape[1]), config)
