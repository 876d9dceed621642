"""Frozen decoders of the public ports: GPT-2, OPT and MPT, instead of the Chinchilla block.

All are pre-norm decoders like ours. The columns of `FAMILIES` are their differences. The positions of MPT are ALiBi
(Press et al. 2021): a key's score falls linearly with its distance, with another slope in every head. MPT-1B, the
language model of OpenFlamingo-3B, is a "mosaic_gpt": MPT with a layer norm over all heads of the queries and of the
keys.

The functions have the arguments of those in `model/language_model.py` and `model/flamingo.py`, so the loop, completion
and caches work as with our own decoder. Not here: names in files (`interop/decoder_names.py`); kernels, because the
time of these models goes into reading their weights from memory, once for every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import LanguageConfig, require_choice
from tinyflamingo.model.language_model import only_needed
from tinyflamingo.ops.cache import cached_length, entry, extend
from tinyflamingo.ops.reference import masked_softmax
from tinyflamingo.ops.types import Array, Cache, Params

ALIBI_MAX = 8  # exponents of the slopes end here (MPT's alibi_bias_max)


class Family(NamedTuple):
    """The conventions of one family of decoders."""

    activation: Callable
    biases: bool  # in all projections and norms
    positions: int | None  # rows of the learned table before position 0; None: no table, but ALiBi
    qk_norm: bool = False  # layer norms on queries and keys, over all heads together


FAMILIES = {
    "gpt2": Family(ops.gelu, True, 0),
    "opt": Family(ops.relu, True, 2),
    "mpt": Family(ops.gelu_erf, False, None),
    "mosaic_gpt": Family(ops.gelu_erf, False, None, qk_norm=True),
}


@dataclass(frozen=True)
class PublicDecoderConfig(LanguageConfig):
    """A public decoder. GPT-2 and OPT have as many learned positions as the context has tokens."""

    family: str = "gpt2"  # a name in `FAMILIES`

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("family", self.family, tuple(FAMILIES))


def decoder(
    params: Params, tokens: Array, config: PublicDecoderConfig, visible_from: Array | None = None, cache: Cache = None
) -> Array:
    """Logits (B, T, V) of the decoder alone, without anything visual. Arguments as in `language_model`."""
    visible_from = np.zeros(tokens.shape, np.int64) if visible_from is None else visible_from
    places = cached_length(cache) + np.arange(tokens.shape[1]) - visible_from
    h = add_positions(params, ops.embed(params["embedding"], tokens), places, config)
    for i in range(config.layers):
        h = decoder_block(params[f"block_{i}"], h, visible_from, config, entry(cache, f"block_{i}"))
    return ops.linear(final_norm(params, h), params["embedding"].T)


def embed_plainly(config: PublicDecoderConfig) -> Callable:
    """The function (eoc, language, tokens, places) -> h (B, T, D) of this family.

    Rows of the frozen table (V, D), the row `eoc` for the id V, and learned positions; nothing is scaled.
    """

    def embed(eoc, language, tokens, places):
        table = language["embedding"]
        V = len(table)
        is_eoc = (tokens == V).astype(table.dtype)[:, :, None]
        rows = ops.embed(table, np.where(tokens == V, 0, tokens)) * (1 - is_eoc)
        return add_positions(language, rows + is_eoc * eoc, places, config)

    return embed


def add_positions(params: Params, h: Array, places: Array, config: PublicDecoderConfig) -> Array:
    """h (B, T, D) plus the learned position of each token, places (B, T), if the family has such a table."""
    offset = FAMILIES[config.family].positions
    return h if offset is None else h + ops.embed(params["position"], np.maximum(places, 0) + offset)


def decoder_block(
    params: Params,
    h: Array,
    visible_from: Array,
    config: PublicDecoderConfig,
    cache: Cache = None,
    needed: Array | None = None,
) -> Array:
    """One pre-norm block: h + attention(norm(h)), then h + feed-forward(norm(h)). h (B, T, D)."""
    h = only_needed(h + self_attention(params, norm(params, "attn", h), visible_from, config, cache), needed)
    hidden = project(params, "1", norm(params, "ffw", h))
    return h + project(params, "2", FAMILIES[config.family].activation(hidden))


def final_norm(params: Params, h: Array) -> Array:
    """The final layer norm."""
    return norm(params, "final", h)


def norm(params: Params, name: str, x: Array) -> Array:
    """Layer norm, with a bias if the family has biases."""
    gain = params[f"{name}_gain"]
    return ops.layer_norm(x, gain, params.get(f"{name}_bias", np.zeros_like(gain)))


def project(params: Params, name: str, x: Array) -> Array:
    """x @ w_name, with a bias if the family has biases."""
    return ops.linear(x, params[f"w_{name}"], params.get(f"b_{name}"))


def self_attention(
    params: Params, x: Array, visible_from: Array, config: PublicDecoderConfig, cache: Cache = None
) -> Array:
    """Causal attention of x (B, T, D) to all positions from `visible_from` on, including those in the cache."""
    B, T, _ = x.shape
    q, k, v = (project(params, name, x) for name in "qkv")
    if FAMILIES[config.family].qk_norm:
        q, k = norm(params, "q", q), norm(params, "k", k)
    q, k, v = (np.reshape(a, (B, T, config.heads, config.key_size)) for a in (q, k, v))
    k, v = extend(cache, k=k, v=v)
    attended = causal_attention(q, k, v, visible_from, alibi_slopes(config))
    return project(params, "o", np.reshape(attended, (B, T, -1)))


def causal_attention(q: Array, k: Array, v: Array, visible_from: Array, slopes: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(K) - slope * distance) v over the positions from visible_from (B, T) to a query's own.

    q (B, T, H, K), k and v (B, S, H, K); the position of query i is S - T + i. slopes (H,) or None.
    """
    T, S = q.shape[1], k.shape[1]
    q, k, v = (np.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    distance = (S - T + np.arange(T))[:, None] - np.arange(S)
    scores = np.matmul(q, np.swapaxes(k, 2, 3)) * q.shape[3] ** -0.5
    if slopes is not None:
        scores = scores - slopes.astype(q.dtype)[:, None, None] * np.maximum(distance, 0).astype(q.dtype)
    visible = (distance >= 0) & (np.arange(S) >= visible_from[:, :, None])
    return np.transpose(np.matmul(masked_softmax(scores, visible[:, None]), v), (0, 2, 1, 3))


def alibi_slopes(config: PublicDecoderConfig) -> Array | None:
    """Slopes (H,) of a family with ALiBi: 2^(-8 n / H) for n = 1..H; None for the others.

    If H is not a power of two, they are the slopes of the next power of two: every second one first, then the rest.
    """
    if FAMILIES[config.family].positions is not None:
        return None
    size = 1 << (config.heads - 1).bit_length()
    slopes = 2.0 ** (-np.arange(1, size + 1) * ALIBI_MAX / size)
    return slopes if size == config.heads else np.concatenate([slopes[1::2], slopes[::2]])[: config.heads]


def init_decoder(rng: np.random.Generator, config: PublicDecoderConfig, dtype: type = np.float32) -> Params:
    """Parameters of a public decoder as nested dicts, at the scale of our decoder, for training or for their shapes."""
    family, D = FAMILIES[config.family], config.width

    def norm_of(name, size, biases=family.biases):
        gain = {f"{name}_gain": np.ones(size, dtype)}
        return gain | {f"{name}_bias": np.zeros(size, dtype)} if biases else gain

    params = {"embedding": _matrix(rng, config.vocab_size, D, dtype, D)} | norm_of("final", D)
    if family.positions is not None:
        params["position"] = _matrix(rng, config.context + family.positions, D, dtype, D)
    inner, hidden = config.heads * config.key_size, config.ffw_multiplier * D
    layers = {"q": (D, inner), "k": (D, inner), "v": (D, inner), "o": (inner, D), "1": (D, hidden), "2": (hidden, D)}
    for i in range(config.layers):
        params[f"block_{i}"] = norm_of("attn", D) | norm_of("ffw", D)
        if family.qk_norm:
            params[f"block_{i}"] |= norm_of("q", inner, False) | norm_of("k", inner, False)
        for name, (rows, columns) in layers.items():
            params[f"block_{i}"][f"w_{name}"] = _matrix(rng, rows, columns, dtype, rows)
            if family.biases:
                params[f"block_{i}"][f"b_{name}"] = np.zeros(columns, dtype)
    return params


def _matrix(rng, rows, columns, dtype, fan_in):
    return (rng.standard_normal((rows, columns)) * fan_in**-0.5).astype(dtype)
