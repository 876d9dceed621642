"""The language model: a decoder in the manner of Chinchilla (chapter §4).

Gopher's block, which Chinchilla keeps: RMSNorm before each part, causal self-attention with
Transformer-XL relative positions (their `u`, `v` and `W_R`; Dai et al. 2019), a GELU feed-forward
of width 4D, tied input and output embeddings. In Flamingo every weight here is frozen.

Not here: anything visual, and the tokenizer (`model/tokenizer.py`). The gated blocks between these
blocks are in `model/gated_xattn.py`, and other frozen decoders in `interop/decoders.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import LanguageConfig


class Decoder(NamedTuple):
    """What Flamingo must know of its frozen decoder: the steps between which gated blocks stand."""

    scaled: bool  # embeddings are multiplied by sqrt(D)
    enter: Callable  # (params, h, start, S, config) -> h, before the first block
    block: Callable  # (params of one block, h, start, S, config, cache) -> h
    leave: Callable  # (params, h) -> h, after the last block; the tied table makes logits of it
    init: Callable  # (rng, config, dtype) -> params


def language_model(params, tokens, config: LanguageConfig, start=None, cache=None):
    """Token ids (B, T) to logits (B, T, V) over the next token.

    start (B, T): first position that each token may see (documents packed in a row, left padding);
    by default 0, everything before. cache: see `init_cache`; with it, tokens continue what it holds.
    """
    B, T = tokens.shape
    start = np.zeros((B, T), np.int64) if start is None else ops.expect(start, "B T", B=B, T=T)
    h = embed_tokens(params["embedding"], tokens)
    S = T + (cache["length"] if cache else 0)
    for i in range(config.layers):
        h = decoder_block(params[f"block_{i}"], h, start, S, config, cache and cache[f"block_{i}"])
    if cache:
        cache["length"] = S
    return ops.linear(final_norm(params, h), params["embedding"].T)


def embed_tokens(table, tokens):
    """Rows of the tied table (V, D), times sqrt(D): they start at variance 1/D, which suits the output."""
    return ops.embed(table, tokens) * table.dtype.type(table.shape[1] ** 0.5)


def decoder_block(params, h, start, S, config: LanguageConfig, cache=None, between=None):
    """One block: h + attention(norm(h)), then h + feed-forward(norm(h)). h (B, T, D).

    S: number of key positions, T plus what the cache holds. between: what happens to h between the
    two, as in a decoder with "vanilla" cross-attention; by default nothing.
    """
    h = h + self_attention(params, ops.rms_norm(h, params["attn_gain"]), start, S, config, cache)
    h = between(h) if between else h
    x = ops.rms_norm(h, params["ffw_gain"])
    return h + ops.linear(ops.gelu(ops.linear(x, params["w_1"], params["b_1"])), params["w_2"], params["b_2"])


def self_attention(params, x, start, S, config: LanguageConfig, cache=None):
    """Causal attention with relative positions: score = (q+u).k + (q+v).W_R s_(i-j), over sqrt(K)."""
    B, T, _ = x.shape
    heads = (config.heads, config.key_size)
    q, k, v = (np.reshape(ops.linear(x, params[name]), (B, T, *heads)) for name in ("w_q", "w_k", "w_v"))
    if cache is not None:
        k, v = append(cache, k, v, S)
    distances = sinusoids(S, config.width, x.dtype)
    r = np.reshape(ops.linear(distances, params["w_r"]), (S, *heads))
    attended = ops.relative_attention(q, k, v, r, params["u"], params["v"], start)
    return ops.linear(np.reshape(attended, (B, T, -1)), params["w_o"], params["b_o"])


def final_norm(params, h):
    """What stands between the last block and the tied table."""
    return ops.rms_norm(h, params["final_gain"])


def sinusoids(S, D, dtype=np.float32):
    """s_n for the distances n = 0..S-1 -> (S, D): all sines first, then all cosines (Transformer-XL)."""
    key = (S, D, np.dtype(dtype))
    if key not in _SINUSOIDS:
        angle = np.arange(S)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
        _SINUSOIDS[key] = np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(dtype)
    return _SINUSOIDS[key]


_SINUSOIDS: dict = {}  # constants, one array per length met


def init_cache(config: LanguageConfig, B, capacity, dtype=np.float32):
    """An empty cache of keys and values for B sequences of up to `capacity` tokens.

    A plain argument: {"length": tokens held, "block_i": {"k", "v"}}, each (B, capacity, H, K).
    Appending writes in place, so decoding a token copies nothing.
    """
    shape = (B, capacity, config.heads, config.key_size)
    blocks = {f"block_{i}": {"k": np.zeros(shape, dtype), "v": np.zeros(shape, dtype)} for i in range(config.layers)}
    return {"length": 0, **blocks}


def append(cache, k, v, S):
    """Write k, v (B, T, H, K) so that they end at position S; views of all S positions come back."""
    T = k.shape[1]
    if S > cache["k"].shape[1]:
        raise ValueError(f"the cache holds {cache['k'].shape[1]} tokens; {S} are needed")
    cache["k"][:, S - T : S] = k
    cache["v"][:, S - T : S] = v
    return cache["k"][:, :S], cache["v"][:, :S]


def init_language_model(rng, config: LanguageConfig, dtype=np.float32):
    """Parameters as nested dicts; projections back into the stream start smaller, by sqrt(2 layers)."""
    V, D = config.vocab_size, config.width
    params = {
        "embedding": (rng.standard_normal((V, D)) * D**-0.5).astype(dtype),
        "final_gain": np.ones(D, dtype),
    }
    for i in range(config.layers):
        params[f"block_{i}"] = _init_block(rng, config, dtype)
    return params


def _init_block(rng, config, dtype):
    D, inner = config.width, config.heads * config.key_size
    hidden = config.ffw_multiplier * D

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)

    back = (2 * config.layers) ** -0.5
    return {
        "attn_gain": np.ones(D, dtype),
        "w_q": matrix(D, inner),
        "w_k": matrix(D, inner),
        "w_v": matrix(D, inner),
        "w_r": matrix(D, inner),
        "u": np.zeros((config.heads, config.key_size), dtype),
        "v": np.zeros((config.heads, config.key_size), dtype),
        "w_o": matrix(inner, D, back),
        "b_o": np.zeros(D, dtype),
        "ffw_gain": np.ones(D, dtype),
        "w_1": matrix(D, hidden),
        "b_1": np.zeros(hidden, dtype),
        "w_2": matrix(hidden, D, back),
        "b_2": np.zeros(D, dtype),
    }


CHINCHILLA = Decoder(True, lambda params, h, start, S, config: h, decoder_block, final_norm, init_language_model)
