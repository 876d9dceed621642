"""Where the model looks: the attention of gated blocks and resampler, as arrays.

Chapter §5. The layers themselves throw their attention weights away, and the fast floor never holds
them; here they are computed again, from the same parameters, on the way of the same stream. A map
says what was weighed, not what mattered: cover a part of the picture and look at the answer for that.

Not here: the layers (`model/gated_xattn.py`, `model/perceiver_resampler.py`) and figures.
"""

from __future__ import annotations

from functools import partial

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig
from tinyflamingo.model.flamingo import decoder_of, embed_with_eoc
from tinyflamingo.model.gated_xattn import gated_xattn_dense, media_keys_values
from tinyflamingo.model.perceiver_resampler import enter, project, resampler_layer
from tinyflamingo.ops.reference import masked_softmax


def attention_maps(params, frozen, tokens, phi, visual, config: FlamingoConfig, start=None, first=None):
    """What every text token looks at, in every gated block: (G, B, T, H, M, R), G gated blocks.

    Arguments as of `flamingo`. Over the latents of the media that a token may see the weights of a
    head sum to 1; all others are exactly 0, and where phi is 0 so is the whole row.
    """
    language = frozen["language"]
    B, T = tokens.shape
    start = np.zeros((B, T), np.int64) if start is None else start
    maps = []

    def look(h, block):
        maps.append(gated_attention_map(block, h, visual, phi, config, first))
        return gated_xattn_dense(block, h, visual, phi, config, first=first)

    decoder = decoder_of(config.language)
    h = embed_with_eoc(params["eoc"], language["embedding"], tokens, decoder.scaled)
    h = decoder.enter(language, h, start, T, config.language)
    for i in range(config.language.layers):
        here = partial(look, block=params[f"xattn_{i}"]) if i in config.gated_layers else lambda h: h
        inside = (here,) if config.xattn.kind == "vanilla" else ()
        if config.xattn.side == "before" and not inside:
            h = here(h)
        h = decoder.block(language[f"block_{i}"], h, start, T, config.language, None, *inside)
        if config.xattn.side == "after" and not inside:
            h = here(h)
    return np.stack(maps)


def gated_attention_map(params, h, visual, phi, config: FlamingoConfig, first=None):
    """One gated block: h (B, T, D), visual (M, R, D), phi (B, T) -> weights (B, T, H, M, R)."""
    B, T, _ = ops.expect(h, "B T D", D=config.language.width).shape
    H, K = config.xattn.heads, config.xattn.key_size
    M, R, _ = visual.shape
    if M == 0:
        return np.zeros((B, T, H, M, R), h.dtype)
    keys = media_keys_values(params, visual, config)[0][0]  # (M, R, H, K)
    x = ops.layer_norm(h, params["query_gain"], params["query_bias"])
    q = np.reshape(ops.linear(x, params["w_q"]), (B, T, H, K))
    scores = np.reshape(np.einsum("bthk,mrhk->bthmr", q, keys), (B, T, H, M * R)) * K**-0.5
    owner = np.repeat(np.arange(1, M + 1), R)
    first = phi if config.xattn.attend == "last" else first
    visible = (first[:, :, None] <= owner) & (owner <= phi[:, :, None])  # (B, T, M R)
    weights = masked_softmax(scores, np.broadcast_to(visible[:, :, None], scores.shape))
    return np.reshape(weights, (B, T, H, M, R))


def resampler_maps(params, features, config: ResamplerConfig, place=None):
    """What every latent looks at, in every layer: (L, M, H, R, F S + R) for features (M, F, S, Dv).

    place: as of `perceiver_resampler`. The columns are the cells of all frames, then the latents themselves; rows sum
    to 1. Raises ValueError for a configuration without latents.
    """
    if config.kind != "perceiver":
        raise ValueError(f"resampler_maps: a resampler of kind {config.kind!r} has no latents that look")
    x, features, time = enter(params, features, config, place)
    maps = []
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        q, k, _ = project(layer, x, features, time, config)
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * config.key_size**-0.5
        maps.append(masked_softmax(scores, np.ones(scores.shape, bool)))
        x = resampler_layer(layer, x, features, time, config)
    return np.stack(maps)
