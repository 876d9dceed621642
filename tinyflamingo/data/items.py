"""The items of a document, before it becomes tokens (chapter §4).

A document is a list of items in order: strings, `Quiet` strings, `EOC`, and media (any other object:
pixels, or a reference to them). Not here: the step from items to tokens (`model/interleave.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


class _EndOfChunk:
    def __repr__(self) -> str:
        return "EOC"


EOC = _EndOfChunk()  # as an item: the end of a chunk


@dataclass(frozen=True)
class Quiet:
    """Text that the model reads but does not learn. Its tokens have no loss, because nobody can predict them."""

    text: str


def text_of(item: str | Quiet) -> str:
    """The text of an item that is no medium."""
    return item.text if isinstance(item, Quiet) else item
