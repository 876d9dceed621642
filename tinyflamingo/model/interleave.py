"""Interleaving: text, pictures and videos in one row of tokens, and who may see what.

Chapter §4; paper section 2.4, appendices A.1.3 and A.3.2. A document is a list of items in order:
strings, media, and `EOC`. It becomes `<BOS>`, pieces of text, one `<image>` tag a medium, and
`<EOC>` before every image but a leading one and at the end of a document. `phi` says which medium
each token looks at; it is a pure function of the tokens.

Not here: the attention itself (`ops.segment_attention`) and the pictures' pixels (`data/images.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import IMAGE, PAD, Tokenizer


@dataclass
class Sequence:
    """One document as tokens: ids, the loss weight of each, and its media in order."""

    tokens: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    media: list = field(default_factory=list)

    def add(self, tokens, weight):
        """Append ids that all carry one loss weight."""
        self.tokens += tokens
        self.weights += [weight] * len(tokens)


def phi(tokens):
    """Which medium each token sees: the number of `<image>` tags at positions up to its own.

    tokens (..., T) -> (..., T) int. A tag carries its own image's number; 0: no image yet.
    """
    return np.cumsum(np.asarray(tokens) == IMAGE, axis=-1)


def phi_next(tokens):
    """`phi` in "next" mode (paper, appendix A.3.2): the coming image instead of the last one.

    A tag still carries its own image; after the last image a token keeps the last.
    """
    is_tag = np.asarray(tokens) == IMAGE
    before = np.cumsum(is_tag, axis=-1) - is_tag
    return np.minimum(before + 1, is_tag.sum(axis=-1, keepdims=True))


def cross_attention_mask(phi_row, N, R):
    """The mask of the paper's figure 7, for people to look at: phi (T,) -> (T, N * R), True where attention may go."""
    return np.asarray(phi_row)[:, None] == np.repeat(np.arange(1, N + 1), R)


def encode_document(items, tokenizer: Tokenizer, complete=True) -> Sequence:
    """A document (list of str, `Quiet`, `EOC`, and media: anything else) to a `Sequence`.

    complete: close the last chunk with `<EOC>`; a prompt that waits for its continuation is not
    complete. Spaces at the ends of a string are dropped and every string begins a word, so
    "<image> dax" and "<image>dax" are one prompt.
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


def check_media(tokens, media):
    """`UserError` with both numbers if a row has more or fewer `<image>` tags than media."""
    tags = int(np.sum(np.asarray(tokens) == IMAGE))
    if tags != len(media):
        raise UserError(f"the prompt has {tags} <image> or <video> marks but {len(media)} media were given")


@dataclass
class Batch:
    """Sequences side by side, padded with `<PAD>`.

    tokens (B, T); weights (B, T): loss weight of each token; phi (B, T): the medium that it sees,
    counted from 1 over the whole batch, 0 for none; visible_from (B, T): first position of its own sequence;
    owner (B, T): number of that sequence, -1 for padding; media: the media of all sequences in order,
    so the first medium of a sequence is number 1 + the media of the sequences before it.
    """

    tokens: np.ndarray
    weights: np.ndarray
    phi: np.ndarray
    visible_from: np.ndarray
    owner: np.ndarray
    media: list


def make_batch(sequences, left=False, phi_of=phi) -> Batch:
    """Pad sequences to one length (`left`: on the left, for generation) and join their media.

    phi_of: `phi` or `phi_next`, or one of them per sequence.
    """
    T = max(len(s.tokens) for s in sequences)
    batch = _empty_batch(len(sequences), T)
    choose = phi_of if isinstance(phi_of, list) else [phi_of] * len(sequences)
    for b, sequence in enumerate(sequences):
        n = len(sequence.tokens)
        place = slice(T - n, T) if left else slice(0, n)
        _put(batch, b, place, sequence, choose[b])
        batch.visible_from[b] = place.start
    return batch


def _empty_batch(B, T):
    phi, visible_from = np.zeros((2, B, T), int)
    return Batch(np.full((B, T), PAD), np.zeros((B, T), np.float32), phi, visible_from, np.full((B, T), -1), [])


def _put(batch, b, place, sequence, phi_of):
    """Write a sequence into row b. The padding after it sees this sequence and nothing before it."""
    check_media(sequence.tokens, sequence.media)
    batch.owner[b, place] = batch.owner.max(initial=-1) + 1
    batch.tokens[b, place] = sequence.tokens
    batch.weights[b, place] = sequence.weights
    batch.phi[b, place] = batch_phi(phi_of(sequence.tokens), len(batch.media))
    batch.visible_from[b, place.start :] = place.start
    batch.media += sequence.media


def batch_phi(phi_row, media_before):
    """A row's own phi, renumbered over the batch: media of earlier rows come first; 0 stays 0."""
    return np.where(phi_row > 0, phi_row + media_before, 0)


def pack_batch(sequences, length, phi_of=phi) -> Batch:
    """Sequences one after the other in rows of `length` tokens; none is broken over two rows.

    As `make_batch`, but several sequences share a row. Raises ValueError for one that is too long.
    """
    rows, place = [], length
    for sequence in sequences:
        if len(sequence.tokens) > length:
            raise ValueError(f"a sequence of {len(sequence.tokens)} tokens does not fit into rows of {length}")
        if place + len(sequence.tokens) > length:
            rows.append([])
            place = 0
        rows[-1].append((place, sequence))
        place += len(sequence.tokens)
    batch = _empty_batch(len(rows), length)
    choose = iter(phi_of if isinstance(phi_of, list) else [phi_of] * len(sequences))
    for b, row in enumerate(rows):
        for first, sequence in row:
            _put(batch, b, slice(first, first + len(sequence.tokens)), sequence, next(choose))
    return batch
