"""The language model: a decoder in the manner of Chinchilla (chapter §4).

The blocks are Gopher's, which Chinchilla keeps. Each has causal self-attention with Transformer-XL relative positions
(their `u`, `v` and `W_R`; Dai et al. 2019), and a GELU feed-forward layer of width 4D. RMSNorm comes before each of the
two. Input and output embeddings are tied. In Flamingo every weight here is frozen.

Not here: anything visual, the tokenizer (`model/tokenizer.py`), the gated blocks between these blocks
(`model/gated_xattn.py`), other decoders (`variants/decoders.py`).
"""

from __future__ import annotations

import functools

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.ops.cache import entry, extend, table
from tinyflamingo.ops.types import Array, Cache, Params


def language_model(
    params: Params,
    tokens: Array,
    config: LanguageConfig,
    visible_from: Array | None = None,
    cache: Cache = None,
    needed: Array | None = None,
) -> Array:
    """Token ids (B, T) to logits (B, T, V) over the next token; with needed (n,), see `only_needed`, to logits (n, V).

    visible_from (B, T): first position that each token may see (documents packed in a row, left padding); by default
    0. cache: a dict, empty at first. It keeps keys and values, and the tokens of the next call continue it.
    """
    visible_from = np.zeros(tokens.shape, np.int64) if visible_from is None else visible_from
    h = embed_tokens(params["embedding"], tokens)
    for i in range(config.layers):
        last = needed if i == config.layers - 1 else None
        h = decoder_block(params[f"block_{i}"], h, visible_from, config, entry(cache, f"block_{i}"), last)
    return ops.linear(final_norm(params, h), params["embedding"].T)


def embed_tokens(table: Array, tokens: Array) -> Array:
    """Rows of the tied table (V, D), times sqrt(D): they start at variance 1/D, which suits the output."""
    return ops.embed(table, tokens) * table.dtype.type(table.shape[1] ** 0.5)


def decoder_block(
    params: Params,
    h: Array,
    visible_from: Array,
    config: LanguageConfig,
    cache: Cache = None,
    needed: Array | None = None,
) -> Array:
    """One block: h + attention(norm(h)), then h + feed-forward(norm(h)). h (B, T, D) -> (B, T, D) or (n, D)."""
    h = h + self_attention(params, ops.rms_norm(h, params["attn_gain"]), visible_from, config, cache)
    h = only_needed(h, needed)
    return h + feed_forward(params, ops.rms_norm(h, params["ffw_gain"]))


def only_needed(h: Array, needed: Array | None) -> Array:
    """The tokens that carry a loss: after the last attention nothing reads the others. h (B, T, D) -> (n, D).

    needed (n,): their places, counted over the whole batch; None: all tokens, (B, T, D).
    """
    return h if needed is None else ops.embed(h.reshape((-1, h.shape[-1])), needed)


def self_attention(params: Params, x: Array, visible_from: Array, config: LanguageConfig, cache: Cache = None) -> Array:
    """Causal attention with relative positions: score = (q+u).k + (q+v).W_R s_(i-j), over sqrt(K)."""
    B, T, _ = x.shape
    H, K = config.heads, config.key_size
    q, k, v = (ops.linear(x, params[name]).reshape((B, T, H, K)) for name in ("w_q", "w_k", "w_v"))
    k, v = extend(cache, k=k, v=v)
    r = table(cache, "r", k.shape[1], lambda count: projected_distances(params, count, config))
    attended = ops.relative_attention(q, k, v, r, params["u"], params["v"], visible_from)
    return ops.linear(attended.reshape((B, T, -1)), params["w_o"], params["b_o"])


def projected_distances(params: Params, count: int, config: LanguageConfig) -> Array:
    """W_R s_n for the distances n = 0 .. count - 1 -> (count, H, K)."""
    s = sinusoids(count, config.width, params["w_r"].dtype)
    return ops.linear(s, params["w_r"]).reshape((count, config.heads, config.key_size))


def feed_forward(params: Params, x: Array) -> Array:
    """W_2 gelu(W_1 x + b_1) + b_2 for every token by itself, (B, T, D) -> (B, T, D)."""
    return ops.linear(ops.gelu(ops.linear(x, params["w_1"], params["b_1"])), params["w_2"], params["b_2"])


def final_norm(params: Params, h: Array) -> Array:
    """The norm between the last block and the tied table."""
    return ops.rms_norm(h, params["final_gain"])


@functools.lru_cache(maxsize=64)
def sinusoids(count: int, D: int, dtype: type = np.float32) -> Array:
    """s_n for the distances n = 0 .. count - 1 -> (count, D): all sines, then all cosines (Transformer-XL)."""
    angle = np.arange(count)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(dtype)


def init_language_model(rng: np.random.Generator, config: LanguageConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts. Projections back into the stream start smaller, by sqrt(2 layers)."""
    V, D = config.vocab_size, config.width
    params = {"embedding": (rng.standard_normal((V, D)) * D**-0.5).astype(dtype), "final_gain": np.ones(D, dtype)}
    return params | {f"block_{i}": _init_block(rng, config, dtype) for i in range(config.layers)}


def _init_block(rng, config, dtype):
    D, inner, hidden = config.width, config.heads * config.key_size, config.ffw_multiplier * config.width

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(dtype)

    back = (2 * config.layers) ** -0.5
    return {
        "attn_gain": np.ones(D, dtype),
        **{name: matrix(D, inner) for name in ("w_q", "w_k", "w_v", "w_r")},
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
