"""Copies and new orders of the rows of a cache, for queries after the same shots and for the beams of a search.

Serves chapter §5. A cache is a dict that `flamingo` fills (`ops/cache.py`). Not here: its users (`beams.py`,
`evaluation/few_shot.py`).
"""

from __future__ import annotations

from tinyflamingo.ops.cache import LENGTH
from tinyflamingo.ops.types import Array

ROW_ARRAYS = ("k", "v")  # the arrays of a block that have one entry for each row of the batch


def _blocks(cache):
    return (block for name, block in cache.items() if name.startswith("block_"))


def take_rows(cache: dict, rows: Array) -> dict:
    """A new cache whose row i is a copy of row rows[i] of `cache`. Keys and values of media are not copied."""
    copied = {name: dict(block) for name, block in cache.items()}
    for block in _blocks(copied):
        for part in ROW_ARRAYS:
            block[part] = block[part][rows, : block[LENGTH]]
    return copied


def reorder(cache: dict, rows: Array, since: int) -> None:
    """Row i becomes row rows[i], in place. The two rows must be equal before position `since`."""
    for block in _blocks(cache):
        for part in ROW_ARRAYS:
            tail = block[part][:, since : block[LENGTH]]
            tail[...] = tail[rows]
