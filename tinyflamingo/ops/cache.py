"""The cache of completion: what was computed for the tokens read so far, so that a new token costs one step.

Serves chapter §5. A cache is a plain dict, empty at first, that `flamingo` fills: one dict for each decoder
block, `block_i`, with keys, values and projected distances of all positions, and one for each gated block,
`xattn_i`, with keys and values of all media. Arrays of positions are written in place, with room to grow.

Not here: rows of a cache that go on in several ways (`decoding/caches.py`).
"""

from __future__ import annotations

import numpy as np

LENGTH = "length"  # in a block's dict: positions in use; the arrays have room for more


def entry(cache, name):
    """The dict of one block in a cache, made if need be; None where there is no cache."""
    return None if cache is None else cache.setdefault(name, {})


def block_length(block) -> int:
    """How many positions a block's dict holds; 0 without a dict (None)."""
    return block.get(LENGTH, 0) if block else 0


def cached_length(cache) -> int:
    """How many tokens the cache of a model holds; 0 without a cache (None)."""
    return block_length(cache.get("block_0")) if cache else 0


def extend(block, **new):
    """New arrays (B, T, ...) behind those that a block's dict holds: views (B, S + T, ...) of all positions.

    Without a dict (None), the new arrays themselves.
    """
    if block is None:
        return list(new.values())
    T = next(iter(new.values())).shape[1]
    S = block_length(block)
    for name, x in new.items():
        if name not in block or block[name].shape[1] < S + T:
            block[name] = _with_room(x, block.get(name), S)
        block[name][:, S : S + T] = x
    block[LENGTH] = S + T
    return [block[name][:, : S + T] for name in new]


def _with_room(x, held, S):
    """An array like x with room for at least twice the positions, and the first S of those that are held."""
    B, T, *rest = x.shape
    grown = np.empty((B, 2 * (S + T), *rest), x.dtype)
    if held is not None:
        grown[:, :S] = held[:, :S]
    return grown
