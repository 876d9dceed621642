"""Interleaving: text, pictures and videos in one row of tokens, and which medium each token sees.

Chapter §4; paper section 2.4, appendices A.1.3 and A.3.2. A document is a list of items in order: strings, media, and
`EOC`. It becomes `<BOS>`, pieces of text, one `<image>` tag for each medium, and `<EOC>` before every image except a
leading one and at the end of the document. `phi` says which medium each token sees. It depends on the tokens alone.

Not here: the attention itself (`ops.segment_attention`) and the pixels of the pictures (`data/images.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import IMAGE, PAD, Tokenizer
from tinyflamingo.ops.team import spread
from tinyflamingo.ops.types import Array


@dataclass
class Sequence:
    """One document as tokens: ids, the loss weight of each, and its media in order."""

    tokens: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    media: list = field(default_factory=list)

    def add(self, tokens: list, weight: float) -> None:
        """Append ids that all have one loss weight."""
        self.tokens += tokens
        self.weights += [weight] * len(tokens)


def phi(tokens: Array) -> Array:
    """Which medium each token sees: the number of `<image>` tags at positions up to its own.

    tokens (..., T) -> (..., T) int. A tag has the number of its own image; 0: no image yet.
    """
    return np.cumsum(np.asarray(tokens) == IMAGE, axis=-1)


def phi_next(tokens: Array) -> Array:
    """`phi` in "next" mode (paper, appendix A.3.2): the coming image instead of the last one.

    A tag still has the number of its own image. A token after the last image keeps the last image.
    """
    is_tag = np.asarray(tokens) == IMAGE
    before = np.cumsum(is_tag, axis=-1) - is_tag
    return np.minimum(before + 1, is_tag.sum(axis=-1, keepdims=True))


def cross_attention_mask(phi_row: Array, N: int, R: int) -> Array:
    """The mask of the paper's figure 7, for figures: phi (T,) -> (T, N * R), True where attention may go."""
    return np.asarray(phi_row)[:, None] == np.repeat(np.arange(1, N + 1), R)


def encode_document(items: list, tokenizer: Tokenizer, complete: bool = True) -> Sequence:
    """A document (strings, `Quiet` strings, `EOC`, and media: any other object) to a `Sequence`.

    complete: close the last chunk with `<EOC>`. A prompt is not complete: its continuation follows. Spaces at the
    ends of a string are dropped, and so is a string of white space alone. Every string begins a word, so "<image> dax"
    and "<image>dax" are one prompt.
    """
    sequence = Sequence()
    sequence.add(list(tokenizer.opening), 0.0)
    for item in items:
        if isinstance(item, str | Quiet):
            _add_text(sequence, item, tokenizer)
            continue
        if len(sequence.tokens) > len(tokenizer.opening):  # an image or `EOC` ends a chunk
            _close_chunk(sequence, tokenizer)
        if item is not EOC:
            sequence.add([IMAGE], 0.0)
            sequence.media.append(item)
    if complete:
        _close_chunk(sequence, tokenizer)
    return sequence


def _add_text(sequence, item, tokenizer):
    """The tokens of a string, with weight 1, or of a `Quiet` string, with weight 0."""
    text, weight = (item.text, 0.0) if isinstance(item, Quiet) else (item, 1.0)
    if text.strip():
        sequence.add(tokenizer.encode(text.strip(" ")), weight)


def _close_chunk(sequence, tokenizer):
    """`<EOC>`, unless the chunk is closed already."""
    if sequence.tokens[-1:] != [tokenizer.eoc]:
        sequence.add([tokenizer.eoc], 1.0)


def check_media(tokens: Array, media: list) -> None:
    """`UserError` with both numbers if a row has more or fewer `<image>` tags than media."""
    tags = int(np.sum(np.asarray(tokens) == IMAGE))
    if tags != len(media):
        raise UserError(f"the prompt has {tags} <image> or <video> marks but {len(media)} media were given")


@dataclass
class Batch:
    """Sequences in rows of equal length, padded with `<PAD>`."""

    tokens: np.ndarray  # (B, T)
    weights: np.ndarray  # (B, T): loss weight of each token
    phi: np.ndarray  # (B, T): the medium that a token sees, counted from 1 over the whole batch; 0: none
    visible_from: np.ndarray  # (B, T): first position of the token's own sequence; padding: its own position
    owner: np.ndarray  # (B, T): number of the token's sequence; -1: padding
    media: list  # of all sequences, in the order of the sequences


def make_batch(sequences: list[Sequence], left: bool = False, phi_of: Callable | list = phi) -> Batch:
    """One sequence in each row, padded to one length on the right, or on the `left` (for generation).

    phi_of: `phi` or `phi_next`, or a list with one of them for each sequence.
    """
    T = max(len(s.tokens) for s in sequences)
    places = [(b, T - len(s.tokens) if left else 0) for b, s in enumerate(sequences)]
    return _fill(sequences, places, (len(sequences), T), phi_of)


def pack_batch(sequences: list[Sequence], phi_of: Callable | list = phi) -> Batch:
    """Sequences one after the other in rows of nearly equal length, about twice as long as the longest sequence.

    Each lies in one row, and little is padding. phi_of: as in `make_batch`.
    """
    sizes = [len(s.tokens) for s in sequences]
    rows = max(1, sum(sizes) // (2 * max(sizes)))
    places, ends = [], [0] * rows
    for size, b in zip(sizes, spread(sizes, rows), strict=True):
        places.append((b, ends[b]))
        ends[b] += size
    return _fill(sequences, places, (rows, max(ends)), phi_of)


def _fill(sequences, places, shape, phi_of):
    """The batch of this shape (B, T) with every sequence at its place (row, first position). Padding sees itself."""
    visible_from = np.tile(np.arange(shape[1]), (shape[0], 1))
    phi, weights = np.zeros(shape, int), np.zeros(shape, np.float32)
    batch = Batch(np.full(shape, PAD), weights, phi, visible_from, np.full(shape, -1), [])
    modes = phi_of if isinstance(phi_of, list) else [phi_of] * len(sequences)
    for number, (sequence, place, mode) in enumerate(zip(sequences, places, modes, strict=True)):
        _put(batch, number, sequence, *place, mode)
    return batch


def _put(batch, number, sequence, b, first, phi_of):
    """Write a sequence into row b from position `first` on, with its media numbered over the batch."""
    check_media(sequence.tokens, sequence.media)
    place = b, slice(first, first + len(sequence.tokens))
    batch.owner[place] = number
    batch.tokens[place] = sequence.tokens
    batch.weights[place] = sequence.weights
    batch.phi[place] = batch_phi(phi_of(sequence.tokens), len(batch.media))
    batch.visible_from[place] = first
    batch.media += sequence.media


def batch_phi(phi_row: Array, media_before: int) -> Array:
    """A sequence's own phi, renumbered over the batch: media of earlier sequences come first; 0 stays 0."""
    return np.where(phi_row > 0, phi_row + media_before, 0)
