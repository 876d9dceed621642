"""Rows of a cache that go on in several ways: the queries after the same shots, and the beams of a search.

Serves chapter §5. A cache is a dict that `flamingo` fills (`ops/cache.py`). Not here: who needs this
(`beams.py`, `evaluation/few_shot.py`).
"""

from __future__ import annotations

from tinyflamingo.ops.cache import LENGTH

OF_ROWS = ("k", "v")  # arrays of a block that have one entry for each row of the batch


def _blocks(cache):
    return (block for name, block in cache.items() if name.startswith("block_"))


def take_rows(cache, rows):
    """A cache whose row i goes on from row rows[i] of `cache`. Keys and values of media are shared."""
    taken = {name: dict(block) for name, block in cache.items()}
    for block in _blocks(taken):
        for part in OF_ROWS:
            block[part] = block[part][rows, : block[LENGTH]]
    return taken


def take_media(cache, media):
    """The same cache with these media alone, by their numbers from 0."""
    gated = {name: block for name, block in cache.items() if name.startswith("xattn_")}
    return cache | {name: {part: x[:, media] for part, x in block.items()} for name, block in gated.items()}


def reorder(cache, rows, since):
    """Row i goes on from row rows[i], in place. Positions before `since` are alike in all rows that are exchanged."""
    for block in _blocks(cache):
        for part in OF_ROWS:
            here = block[part][:, since : block[LENGTH]]
            here[...] = here[rows]
