"""Frozen decoders of the public ports: GPT-2, OPT and MPT, in place of the Chinchilla block.

Pre-norm decoders all, as ours; they differ from it and from each other in the columns of `FAMILIES`.
MPT knows its positions by ALiBi (Press et al. 2021): a key's score falls linearly with its distance,
with another slope in every head. MPT-1B, the language model of OpenFlamingo-3B, is a "mosaic_gpt":
MPT with a layer norm over all heads of queries and of keys.

Everything is `PUBLIC`, a `model.language_model.Decoder`, so that `flamingo`, generation and caches
work as with our own. Not here: names in files (`decoder_names.py`); kernels, for these are run
where weights are read from memory once a token, and nothing else matters.
"""

from __future__ import annotations

from typing import NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.language_model import Decoder, append
from tinyflamingo.ops.reference import masked_softmax

ALIBI_MAX = 8  # exponents of the slopes end here (MPT's alibi_bias_max)


class Family(NamedTuple):
    """The conventions of one family of decoders."""

    activation: str  # an op's name
    biases: bool  # in all projections and norms
    positions: int | None  # rows of the learned table before position 0; None: ALiBi instead
    qk_norm: bool = False  # layer norms on queries and keys, over all heads together


FAMILIES = {
    "gpt2": Family("gelu", True, 0),
    "opt": Family("relu", True, 2),
    "mpt": Family("gelu_erf", False, None),
    "mosaic_gpt": Family("gelu_erf", False, None, qk_norm=True),
}


def enter(params, h, start, S, config: LanguageConfig):
    """Adds learned absolute positions, counted from each token's own start; h (B, T, D)."""
    offset = FAMILIES[config.decoder].positions
    if offset is None:
        return h
    place = S - h.shape[1] + np.arange(h.shape[1]) - start
    return h + ops.embed(params["position"], np.maximum(place, 0) + offset)


def block(params, h, start, S, config: LanguageConfig, cache=None):
    """One pre-norm block: h + attention(norm(h)), then h + feed-forward(norm(h)). h (B, T, D)."""
    h = h + self_attention(params, norm(params, "attn", h), start, S, config, cache)
    hidden = project(params, "1", norm(params, "ffw", h))
    return h + project(params, "2", getattr(ops, FAMILIES[config.decoder].activation)(hidden))


def leave(params, h):
    """The final layer norm."""
    return norm(params, "final", h)


def logits(params, tokens, start, config: LanguageConfig, cache=None):
    """Logits (B, T, V) of the decoder alone, without anything visual; as `model.language_model`."""
    S = tokens.shape[1] + (cache["length"] if cache else 0)
    h = enter(params, ops.embed(params["embedding"], tokens), start, S, config)
    for i in range(config.layers):
        h = block(params[f"block_{i}"], h, start, S, config, cache and cache[f"block_{i}"])
    if cache:
        cache["length"] = S
    return ops.linear(leave(params, h), params["embedding"].T)


def norm(params, name, x):
    """Layer norm; where the family has no biases, without one."""
    gain = params[f"{name}_gain"]
    return ops.layer_norm(x, gain, params.get(f"{name}_bias", np.zeros_like(gain)))


def project(params, name, x):
    """x @ w_name, with its bias where the family has one."""
    return ops.linear(x, params[f"w_{name}"], params.get(f"b_{name}"))


def self_attention(params, x, start, S, config: LanguageConfig, cache=None):
    """Causal attention of x (B, T, D) to all S positions from its start on; T of them are x's own."""
    B, T, _ = x.shape
    q, k, v = (project(params, name, x) for name in "qkv")
    if FAMILIES[config.decoder].qk_norm:
        q, k = norm(params, "q", q), norm(params, "k", k)
    q, k, v = (np.reshape(a, (B, T, config.heads, config.key_size)) for a in (q, k, v))
    if cache is not None:
        k, v = append(cache, k, v, S)
    attended = causal_attention(q, k, v, start, alibi_slopes(config))
    return project(params, "o", np.reshape(attended, (B, T, -1)))


def causal_attention(q, k, v, start, slopes=None):
    """softmax(q k^T / sqrt(K) - slope * distance) v over the positions from start (B, T) to a query's own.

    q (B, T, H, K), k and v (B, S, H, K); query i stands at S - T + i. slopes (H,) or None.
    """
    T, S = q.shape[1], k.shape[1]
    q, k, v = (np.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    distance = (S - T + np.arange(T))[:, None] - np.arange(S)
    scores = np.matmul(q, np.swapaxes(k, 2, 3)) * q.shape[3] ** -0.5
    if slopes is not None:
        scores = scores - slopes.astype(q.dtype)[:, None, None] * np.maximum(distance, 0).astype(q.dtype)
    visible = (distance >= 0) & (np.arange(S) >= start[:, :, None])
    return np.transpose(np.matmul(masked_softmax(scores, visible[:, None]), v), (0, 2, 1, 3))


def alibi_slopes(config: LanguageConfig):
    """Slopes (H,) of a family with ALiBi: 2^(-8 n / H) for n = 1..H; None for the others.

    H that is no power of two takes the next one's slopes: every second of them first, then the rest.
    """
    if FAMILIES[config.decoder].positions is not None:
        return None
    size = 1 << (config.heads - 1).bit_length()
    slopes = 2.0 ** (-np.arange(1, size + 1) * ALIBI_MAX / size)
    return slopes if size == config.heads else np.concatenate([slopes[1::2], slopes[::2]])[: config.heads]


def init_decoder(rng, config: LanguageConfig, dtype=np.float32):
    """Parameters of a public decoder as nested dicts, at the scale of ours: to train one, or to know its shapes."""
    family, D = FAMILIES[config.decoder], config.width

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


PUBLIC = Decoder(False, enter, block, leave, init_decoder)
