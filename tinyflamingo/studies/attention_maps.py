"""Where the model looks: the attention of gated blocks and resampler, as arrays.

Chapter §5. The layers do not keep their attention weights. Here they are computed again, from the same
parameters and the same stream: `attention_maps` runs the loop of `model/flamingo.py` with a gated block that
notes its weights first. A map says what was weighed, not what mattered: to see that, cover a part of the picture
and compare the answers.

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
from tinyflamingo.variants.ablations import Pending
from tinyflamingo.variants.ports import PortResamplerConfig, add_embeddings, port_resampler_layer, project_normed


def attention_maps(
    params, frozen, tokens, phi, visual, config: FlamingoConfig, visible_from=None, parts: Parts = CHAPTER
):
    """What every text token looks at, in every gated block: (G, B, T, H, M, R), G gated blocks.

    Arguments as of `flamingo`. Over the latents of the media that a token may see the weights of a
    head sum to 1; all others are exactly 0, and where phi is 0 so is the whole row.
    """
    maps: list = []
    watched = parts._replace(gated_block=_noting(parts.gated_block, maps))
    flamingo(params, frozen, tokens, phi, visual, config, visible_from, cache={}, parts=watched)
    return np.stack(maps)


def _noting(gated_block, maps):
    """The same block, which first appends its attention weights to `maps`."""

    def block(params, h, visual, phi, config, cache):
        out = gated_block(params, h, visual, phi, config, cache)
        if not isinstance(out, Pending):
            maps.append(attention_weights(params, h, cache["k"], phi, config))
            return out

        def act(h):
            found = out.act(h)
            maps.append(attention_weights(params, h, cache["k"], phi, config))
            return found

        return Pending(out.h, act)

    return block


def gated_attention_map(params, h, visual, phi, config: XattnConfig):
    """One gated block: h (B, T, D), visual (M, R, D), phi (B, T) -> weights (B, T, H, M, R)."""
    return attention_weights(params, h, media_keys_values(params, visual, config)[0], phi, config)


def attention_weights(params, h, k, phi, config: XattnConfig):
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


def resampler_maps(params, features, config: ResamplerConfig):
    """What every latent looks at, in every layer: (L, M, H, R, F S + R) for features (M, F, S, Dv).

    The columns are the cells of all frames, then the latents themselves; rows sum to 1. The M media count as those of
    one document, in order. Raises ValueError for a resampler without latents.
    """
    if "latents" not in params:
        raise ValueError(f"resampler_maps: the resampler of {type(config).__name__} has no latents that look")
    x, project, layer_of = _steps(params, features, config)
    maps = []
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        q, k, _ = project(layer, x)
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * config.key_size**-0.5
        maps.append(masked_softmax(scores, np.ones(scores.shape, bool)))
        x = layer_of(layer, x)
    return np.stack(maps)


def _steps(params, features, config):
    """(first latents (M, R, D), function to q, k, v of a layer, function of a layer) of either Perceiver resampler."""
    x = np.broadcast_to(params["latents"][None], (len(features), *params["latents"].shape))
    if isinstance(config, PortResamplerConfig):
        features = add_embeddings(params, features, config)
        return (
            x,
            lambda layer, x: project_normed(layer, x, features, config),
            lambda layer, x: port_resampler_layer(layer, x, features, config),
        )
    features = ops.linear(features, params["w_in"]) if "w_in" in params else features
    time = temporal_embedding(params["temporal"], features.shape[1])
    return (
        x,
        lambda layer, x: project(layer, x, features, time, config),
        lambda layer, x: resampler_layer(layer, x, features, time, config),
    )
