"""Flamingo, the whole: frozen vision encoder, resampler, gated blocks, frozen language model.

Chapter §1; paper section 2 and figure 3. `flamingo` takes two trees of parameters: `params`, what
trains (resampler, gated blocks, the embedding of <EOC>), and `frozen`, what does not (vision
encoder, language model). Only the first is ever an argument of the gradient: that is what frozen
means here. Frozen features do not change, so they are computed once, by `encode_media`.

Not here: decoding (`model/generate.py`) and training (`training/flamingo_stage.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.interop.decoders import PUBLIC
from tinyflamingo.model.config import FlamingoConfig, LanguageConfig
from tinyflamingo.model.encoders import encode_pictures
from tinyflamingo.model.gated_xattn import gated_xattn_dense, init_gated_xattn
from tinyflamingo.model.language_model import CHINCHILLA, Decoder, embed_tokens
from tinyflamingo.model.plain_resamplers import RESAMPLERS
from tinyflamingo.model.vision_encoder import normalise_pixels

ENCODE_BATCH = 64  # most pictures that a worker encodes at once


def flamingo(params, frozen, tokens, phi, visual, config: FlamingoConfig, start=None, cache=None, first=None):
    """Logits (B, T, V + 1) over the next token; the last column is <EOC>.

    tokens (B, T), the id V is <EOC>; visual (M, R, D): visual tokens of all media of the batch,
    from `see`; phi (B, T): 0 or the number of the medium a token sees, counted from 1 over the
    batch (`interleave.batch_phi`). start (B, T): first position visible to a token (left padding).
    cache: from `generate.init_caches`; tokens then continue what it holds. first (B, T): the first
    medium of a token's document (`Batch.first`), needed where xattn.attend is "all_previous".
    """
    language = frozen["language"]
    B, T = tokens.shape
    start = np.zeros((B, T), np.int64) if start is None else ops.expect(start, "B T", B=B, T=T)
    S = T + (cache["length"] if cache else 0)
    decoder = decoder_of(config.language)
    h = embed_with_eoc(params["eoc"], language["embedding"], tokens, decoder.scaled)
    h = decoder.enter(language, h, start, S, config.language)
    for i in range(config.language.layers):
        look = look_up(params, i, visual, phi, config, cache, first)
        inside = (look,) if config.xattn.kind == "vanilla" else ()
        if config.xattn.side == "before" and not inside:
            h = look(h)
        h = decoder.block(language[f"block_{i}"], h, start, S, config.language, cache and cache[f"block_{i}"], *inside)
        if config.xattn.side == "after" and not inside:
            h = look(h)
    if cache:
        cache["length"] = S
    h = decoder.leave(language, h)
    # Two products, not one over a joined table: the language model's logits stay equal bit for bit.
    words = ops.linear(h, language["embedding"].T)
    return np.concatenate([words, ops.linear(h, np.reshape(params["eoc"], (-1, 1)))], axis=-1)


def decoder_of(config: LanguageConfig) -> Decoder:
    """The functions of the frozen decoder that a configuration means."""
    return CHINCHILLA if config.decoder == "chinchilla" else PUBLIC


def look_up(params, i, visual, phi, config: FlamingoConfig, cache, first):
    """The gated block beside decoder block i as a function h (B, T, D) -> (B, T, D); where there is none, h itself."""
    if i not in config.gated_layers:
        return lambda h: h
    media = cache and cache[f"media_{i}"]
    return lambda h: gated_xattn_dense(params[f"xattn_{i}"], h, visual, phi, config, media, first)


def embed_with_eoc(eoc, table, tokens, scaled=True):
    """Embeddings (B, T, D): rows of the frozen table (V, D), and the trained row `eoc` for the id V.

    scaled: both times sqrt(D), as our own decoder has it.
    """
    V = table.shape[0]
    is_eoc = (tokens == V).astype(table.dtype)[:, :, None]
    embed = embed_tokens if scaled else ops.embed
    rows = embed(table, np.minimum(tokens, V - 1)) * (1 - is_eoc)
    return rows + is_eoc * (eoc * table.dtype.type(table.shape[1] ** 0.5 if scaled else 1.0))


def see(params, features, config: FlamingoConfig, place=None):
    """Standardised features (M, F, S, Dv) of M media to visual tokens (M, R, `config.visual_width`); M may be 0.

    place (M,): a medium's place in its document, where `config.resampler.places` asks for it.
    """
    if len(features) == 0:
        return np.zeros((0, config.resampler.latents, config.visual_width), features.dtype)
    more = (place,) if config.resampler.places else ()
    visual = RESAMPLERS[config.resampler.kind][1](params["resampler"], features, config.resampler, *more)
    return ops.linear(visual, params["w_visual"]) if config.xattn.project_media else visual


def encode_media(frozen, media, config: FlamingoConfig):
    """Media, uint8 (M, F, Y, X, 3) with F = 1 for pictures, to features (M, F, S, Dv).

    Frames go through the frozen encoder one by one (chapter §2); each channel is then standardised
    with constants taken once from training pictures, frozen with the encoder.
    """
    M, F = media.shape[:2]
    flat = media.reshape(M * F, *media.shape[2:])

    def encode(pictures):
        features, _ = encode_pictures(frozen["vision"], normalise_pixels(pictures, config.vision.pixels), config.vision)
        return (features - frozen["feature_mean"]) * frozen["feature_scale"]

    pieces = max(-(-len(flat) // ENCODE_BATCH), min(ops.workers(), len(flat)))
    features = np.concatenate(ops.share_out(encode, np.array_split(flat, pieces)))
    return features.reshape(M, F, *features.shape[1:])


def init_flamingo(rng, config: FlamingoConfig, dtype=np.float32):
    """What trains: resampler, gated blocks (gates at exactly 0) and the embedding of <EOC>."""
    D = config.language.width
    params = {
        "resampler": RESAMPLERS[config.resampler.kind][0](rng, config.resampler, dtype),
        "eoc": (rng.standard_normal(D) * D**-0.5).astype(dtype),
    }
    if config.xattn.project_media:
        R = config.resampler.width
        params["w_visual"] = (rng.standard_normal((R, D)) * R**-0.5).astype(dtype)
    for i in config.gated_layers:
        params[f"xattn_{i}"] = init_gated_xattn(rng, config, dtype)
    return params


def gates(params) -> dict:
    """|tanh(alpha)| of every gate by name: the dial that shows how far a block has opened."""
    return {
        f"{name}/{gate}": abs(float(np.tanh(block[gate])))
        for name, block in params.items()
        if name.startswith("xattn_")
        for gate in ("alpha_xattn", "alpha_dense")
        if gate in block
    }
