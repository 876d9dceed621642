"""Flamingo, the whole: frozen vision encoder, resampler, gated blocks, frozen language model.

Chapter §1; paper section 2 and figure 3. `flamingo` takes two trees of parameters: `params` trains (resampler, gated
blocks, the embedding of <EOC>), `frozen` does not (vision encoder, language model). Only `params` is ever an argument
of the gradient: that is the meaning of frozen here. Features of frozen encoders are computed once (`encode_media`).

`Parts` names the functions that the loop calls. `CHAPTER` holds the chapter's own; `variants/` has others for the same
loop. Not here: completion (`model/generate.py`), training (`training/flamingo_stage.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.gated_xattn import gated_xattn_dense, init_gated_xattn
from tinyflamingo.model.interleave import Batch
from tinyflamingo.model.language_model import decoder_block, embed_tokens, final_norm
from tinyflamingo.model.perceiver_resampler import init_resampler, perceiver_resampler
from tinyflamingo.model.vision_encoder import encode_pictures
from tinyflamingo.ops.cache import cached_length, entry
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Array, Cache, Params

ENCODE_BATCH = 64  # most pictures that a worker encodes at once


def resample(params: Params, groups: list[Array], config: FlamingoConfig) -> Array:
    """Features of media, in order, to visual tokens (M, R, D).

    groups: a list of arrays (m, F, S, Dv), each of media with equally many frames.
    """
    tokens = [perceiver_resampler(params["resampler"], group, config.resampler) for group in groups if len(group)]
    latents = params["resampler"]["latents"]
    return np.concatenate(tokens) if tokens else np.zeros((0, *latents.shape), latents.dtype)


def embed_with_eoc(eoc: Array, language: Params, tokens: Array, places: Array | None = None) -> Array:
    """Embeddings (B, T, D): rows of the frozen table (V, D), and the trained row `eoc` for the id V.

    places (B, T), the positions of tokens in their documents, are not used: positions here are relative.
    """
    table = language["embedding"]
    V, D = table.shape
    is_eoc = (tokens == V).astype(table.dtype)[:, :, None]
    rows = embed_tokens(table, np.where(tokens == V, 0, tokens)) * (1 - is_eoc)  # <EOC> has no row there
    return rows + is_eoc * (eoc * table.dtype.type(D**0.5))


def own_medium(batch: Batch) -> Array:
    """What a gated block reads as `phi`: here `phi` (B, T) itself, one medium for each token."""
    return batch.phi


class Parts(NamedTuple):
    """The functions that Flamingo is made of."""

    encode: Callable = encode_pictures  # (params, pictures, config) -> features, one vector for each picture
    resample: Callable = resample  # (params, groups, config) -> visual tokens
    embed: Callable = embed_with_eoc  # (eoc, language, tokens, places) -> h
    gated_block: Callable = gated_xattn_dense  # (params, h, visual, phi, config, cache) -> h; it trains
    decoder_block: Callable = decoder_block  # (params, h, visible_from, config, cache, needed) -> h; it is frozen
    final_norm: Callable = final_norm  # (language, h) -> h
    visible: Callable = own_medium  # (batch) -> the argument `phi` of the gated blocks


CHAPTER = Parts()


def flamingo(
    params: Params,
    frozen: Params,
    tokens: Array,  # (B, T); the id V is <EOC>
    phi: Array,  # (B, T): the medium that a token sees, counted from 1 over the batch (`Batch.phi`); 0: none
    visual: Array,  # (M, R, D): visual tokens of all media of the batch, from `resample`
    config: FlamingoConfig,
    visible_from: Array | None = None,  # (B, T): first position that a token sees (left padding, packed documents)
    cache: Cache = None,  # a dict, empty at first: it keeps keys and values, and the next call's tokens continue it
    parts: Parts = CHAPTER,
    needed: Array | None = None,  # (n,): the tokens whose logits are needed, see `only_needed`
) -> Array:
    """Logits (B, T, V + 1) over the next token, or (n, V + 1) of the tokens `needed`; the last column is <EOC>."""
    (B, T), language = tokens.shape, frozen["language"]
    visible_from = np.zeros((B, T), np.int64) if visible_from is None else ops.expect(visible_from, "B T", B=B, T=T)
    places = cached_length(cache) + np.arange(T) - visible_from
    h = parts.embed(params["eoc"], language, tokens, places)
    for i in range(config.language.layers):
        if f"xattn_{i}" in params:
            block, media = params[f"xattn_{i}"], entry(cache, f"xattn_{i}")
            h = parts.gated_block(block, h, visual, phi, config.xattn, media)
        last, kept = needed if i == config.language.layers - 1 else None, entry(cache, f"block_{i}")
        h = parts.decoder_block(language[f"block_{i}"], h, visible_from, config.language, kept, last)
    h = parts.final_norm(language, h)
    # Two products, not one with a joined table: the language model's logits stay equal bit for bit.
    words = ops.linear(h, language["embedding"].T)
    return np.concatenate([words, ops.linear(h, params["eoc"][:, None])], axis=-1)


def encode_media(frozen: Params, media: Array, config: FlamingoConfig, parts: Parts = CHAPTER) -> Array:
    """Media, uint8 (M, F, Y, X, 3) with F = 1 for pictures, to features (M, F, S, Dv).

    The frozen encoder reads each frame by itself (chapter §2). Then each channel is standardised with constants from
    the training pictures, which are frozen with the encoder.
    """
    M, F = media.shape[:2]
    frames = media.reshape(M * F, *media.shape[2:])

    def encode(pictures):
        features, _ = parts.encode(frozen["vision"], pictures, config.vision)
        return (features - frozen["feature_mean"]) * frozen["feature_scale"]

    pieces = max(-(-len(frames) // ENCODE_BATCH), min(ops.workers(), len(frames)))
    features = np.concatenate(ops.parallel_map(encode, np.array_split(frames, pieces)))
    return features.reshape(M, F, *features.shape[1:])


@dataclass
class TrainedFlamingo:
    """Everything that completion needs."""

    config: FlamingoConfig
    params: Params  # resampler, gated blocks, <EOC>
    frozen: Params  # vision, feature_mean, feature_scale, contrastive, language
    tokenizer: Any  # `model.tokenizer.Tokenizer`, or one with the same methods
    info: dict = field(default_factory=dict)  # seed, versions, command, metrics
    parts: Parts = CHAPTER


def encode_and_resample(model: TrainedFlamingo, media: list[Array]) -> Array:
    """Visual tokens (M, R, D) of a list of pictures (Y, X, 3) and videos (F, Y, X, 3), in order."""
    clips = [medium if medium.ndim == 4 else medium[None] for medium in media]  # a picture is a video of one frame
    groups = [encode_media(model.frozen, clip[None], model.config, model.parts) for clip in clips]
    return model.parts.resample(model.params, groups, model.config)


def init_flamingo(
    rng: np.random.Generator,
    config: FlamingoConfig,
    dtype: type = np.float32,
    init_resampler: Callable = init_resampler,
    init_block: Callable = init_gated_xattn,
) -> Params:
    """What trains: resampler, gated blocks (gates at exactly 0) and the embedding of <EOC>."""
    resampler, D = init_resampler(rng, config.resampler, dtype), config.language.width
    params = {"resampler": resampler, "eoc": (rng.standard_normal(D) * D**-0.5).astype(dtype)}
    return params | {f"xattn_{i}": init_block(rng, config, dtype) for i in config.gated_layers}


def gates(params: Params) -> dict[str, float]:
    """|tanh(alpha)| of every gate by name: how far each block has opened."""
    leaves = named_leaves(params).items()
    return {name: abs(float(np.tanh(leaf))) for name, leaf in leaves if "/alpha_" in name}
