"""What a document is made of, before it becomes tokens (chapter §4).

A document is a list of items in order: strings, `Quiet` strings, `EOC`, and media (anything else:
pixels, or a reference to them). Not here: turning items into tokens (`model/interleave.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


class _EndOfChunk:
    def __repr__(self):
        return "EOC"


EOC = _EndOfChunk()  # as an item: the end of a chunk


@dataclass(frozen=True)
class Quiet:
    """Text that is read but not learned: its tokens carry no loss, for nobody could predict them."""

    text: str
