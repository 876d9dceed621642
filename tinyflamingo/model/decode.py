"""One token more: the step of cached decoding, one compiled loop a block (chapter §5).

`flamingo` with caches computes the same. For a single token it is a hundred small calls, whose
arithmetic takes less time than the calls; here a gated block is one kernel and a decoder block
another. A key and a value are written into the cache in place. Nothing here can be differentiated.

Not here: the prompt (`flamingo`) and the choice of the token (`generate.py`, which does without
this file where there is no Numba, on the reference floor, and for many rows at once).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.gated_xattn import gate
from tinyflamingo.model.language_model import sinusoids

ROWS = 4  # up to so many at once; more rows gain from matrix products, which read a weight once for all
DECODER = ("attn_gain", "w_q", "w_k", "w_v", "u", "v", "w_o", "b_o", "ffw_gain", "w_1", "b_1", "w_2", "b_2")
GATED = ("query_gain", "query_bias", "w_q", "w_o", "ffw_gain", "ffw_bias", "w_1", "w_2")


class Block(NamedTuple):
    """What the kernels of one layer read: a gated block's part (or None) and a decoder block's."""

    gated: tuple | None
    weights: tuple
    far: np.ndarray  # projected distances (capacity, H, K): no token changes them
    k: np.ndarray  # the cache's own arrays (B, capacity, H, K)
    v: np.ndarray


def serves(config: FlamingoConfig) -> bool:
    """Whether the kernels know all conventions of a model; those of public ports they do not."""
    x = config.xattn
    ours = (x.kind, x.activation, x.side) == ("dense", "squared_relu", "before")
    return ours and config.language.decoder == "chinchilla"


def arrange(params, frozen, config: FlamingoConfig, cache):
    """The `Block` of every layer, once for a continuation. cache: from `generate.init_caches`."""
    language, blocks = frozen["language"], []
    for i in range(config.language.layers):
        block, gated, cached = language[f"block_{i}"], params.get(f"xattn_{i}"), cache[f"block_{i}"]
        distances = sinusoids(cached["k"].shape[1], config.language.width, cached["k"].dtype)
        far = (distances @ block["w_r"]).reshape(cached["k"].shape[1:])
        gated = gated and _gated(gated, cache[f"media_{i}"], config)
        blocks.append(Block(gated, _ordered(block, DECODER), far, cached["k"], cached["v"]))
    return blocks


def decode_step(params, frozen, tokens, phi, first, start, cache, blocks):
    """Logits (B, V + 1) after one more token a row: tokens, phi, first, start (B,), all int.

    blocks: from `arrange`; the cache grows by one token. Raises ValueError if it is full.
    """
    from tinyflamingo.ops.decode_kernels_numba import decoder_step, gated_step

    table, S = frozen["language"]["embedding"], cache["length"] + 1
    if S > len(blocks[0].far):
        raise ValueError(f"the cache holds {len(blocks[0].far)} tokens; {S} are needed")
    is_eoc, dtype = tokens == len(table), table.dtype.type
    h = np.where(is_eoc[:, None], params["eoc"], table[np.where(is_eoc, 0, tokens)]) * dtype(table.shape[1] ** 0.5)
    for block in blocks:
        if block.gated:
            weights, k, v, *gates = block.gated
            gated_step(h, weights, k, v, first, phi, *gates, dtype(1e-5))
        decoder_step(h, block.weights, block.far, block.k, block.v, start, S, dtype(1e-6))
    cache["length"] = S
    h = ops.rms_norm(h, frozen["language"]["final_gain"])
    return np.concatenate([h @ table.T, h @ params["eoc"][:, None]], axis=1)


def _ordered(params, names):
    return tuple(np.ascontiguousarray(params[name]) for name in names)


def _gated(params, keys_values, config):
    """Weights, keys and values of all media, and the gates, for `gated_step`."""
    dtype = params["w_q"].dtype.type
    gates = (dtype(gate(params, name, config)) for name in ("alpha_xattn", "alpha_dense"))
    return (_ordered(params, GATED), *(x[0] for x in keys_values), *gates)
