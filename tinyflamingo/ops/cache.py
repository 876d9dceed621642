"""The cache of completion (chapter §5): keeps what was computed for earlier tokens, so that a new token costs one step.

A cache is a dict, empty at first, that `flamingo` fills. It has one dict for each decoder block, `block_i`, with keys
and values of all positions and a table of projected distances. For each gated block it has a dict `xattn_i` with keys
and values of all media. Arrays of positions have free space at the end and are written in place.

Not here: one cache that is continued in several ways (`decoding/caches.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .types import Array, Cache

LENGTH = "length"  # key in a block's dict: the number of positions in use; the arrays may be longer


def entry(cache: Cache, name: str) -> Cache:
    """The dict of one block in a cache, created if it is missing. None if there is no cache."""
    return None if cache is None else cache.setdefault(name, {})


def block_length(block: Cache) -> int:
    """Number of positions in a block's dict; 0 for None."""
    return block.get(LENGTH, 0) if block else 0


def cached_length(cache: Cache) -> int:
    """Number of tokens in the cache of a model; 0 for None."""
    return block_length(cache.get("block_0")) if cache else 0


def extend(block: Cache, **new: Array) -> list[Array]:
    """Append arrays (B, T, ...) to those in a block's dict: views (B, S + T, ...) of all positions.

    Without a dict (None), returns the new arrays.
    """
    if block is None:
        return list(new.values())
    T = next(iter(new.values())).shape[1]
    S = block_length(block)
    for name, x in new.items():
        if name not in block or block[name].shape[1] < S + T:
            block[name] = _enlarged(x, block.get(name), S)
        block[name][:, S : S + T] = x
    block[LENGTH] = S + T
    return [block[name][:, : S + T] for name in new]


def table(block: Cache, name: str, count: int, make: Callable[[int], Array]) -> Array:
    """The first `count` rows of a table that is the same for every text; ``make(n)`` computes n rows.

    A block's dict keeps the table, with more rows than are needed now.
    """
    if block is None:
        return make(count)
    if len(block.get(name, ())) < count:
        block[name] = make(2 * count)
    return block[name][:count]


def _enlarged(x, old, S):
    """An array like x with space for 2 (S + T) positions. The first S are copied from ``old``."""
    B, T, *rest = x.shape
    enlarged = np.empty((B, 2 * (S + T), *rest), x.dtype)
    if old is not None:
        enlarged[:, :S] = old[:, :S]
    return enlarged
