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
from tinyflamingo.model.flamingo import embed_with_eoc
from tinyflamingo.model.gated_xattn import gated_xattn_dense, media_keys_values
from tinyflamingo.model.language_model import decoder_block
from tinyflamingo.model.perceiver_resampler import project_both, resampler_layer, temporal_embedding
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

    h = embed_with_eoc(params["eoc"], language["embedding"], tokens)
    for i in range(config.language.layers):
        here = partial(look, block=params[f"xattn_{i}"]) if i in config.gated_layers else None
        if here and config.xattn.kind == "dense":
            h, here = here(h), None
        h = decoder_block(language[f"block_{i}"], h, start, T, config.language, between=here)
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


def resampler_maps(params, features, config: ResamplerConfig):
    """What every latent looks at, in every layer: (L, M, H, R, F S + R) for features (M, F, S, Dv).

    The columns are the cells of all frames, then the latents themselves; rows sum to 1. Raises
    ValueError for a configuration without latents.
    """
    if config.kind != "perceiver":
        raise ValueError(f"resampler_maps: a resampler of kind {config.kind!r} has no latents that look")
    M, F, _, _ = ops.expect(features, "M F S Dv", Dv=config.input_width).shape
    R, D = params["latents"].shape
    heads, time = (config.heads, config.key_size), temporal_embedding(params["temporal"], F)
    x = np.broadcast_to(params["latents"][None], (M, R, D))
    maps = []
    for i in range(config.layers):
        layer = params[f"layer_{i}"]
        latents = ops.layer_norm(x, layer["attn_gain"], layer["attn_bias"])
        q = np.reshape(ops.linear(latents, layer["w_q"]), (M, R, *heads))
        k = np.reshape(project_both(features, time, latents, layer["w_k"]), (M, -1, *heads))
        scores = np.einsum("mrhk,mshk->mhrs", q, k) * config.key_size**-0.5
        maps.append(masked_softmax(scores, np.ones(scores.shape, bool)))
        x = resampler_layer(layer, x, features, time, config)
    return np.stack(maps)
