"""Beam search, and the score of a given continuation (chapter §5; paper, appendix A.2).

The paper writes open-ended answers with beam search of width 3, up to `<EOC>`, and ranks the answers of a closed list
by their likelihood. Not here: the greedy loop (`model/generate.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.decoding.caches import reorder, take_rows
from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import TrainedFlamingo, flamingo
from tinyflamingo.model.generate import check_length, log_softmax_allowed, read_on
from tinyflamingo.model.interleave import Batch
from tinyflamingo.ops.cache import cached_length
from tinyflamingo.ops.types import Array, Cache

WIDEST = 64  # beams


def check_beams(width: int) -> None:
    """`UserError` for a width that is not allowed."""
    if not 1 <= width <= WIDEST:
        raise UserError(f"beams is {width} but must be from 1 to {WIDEST}")


def beam_search(
    model: TrainedFlamingo,
    batch: Batch,  # left-padded
    visual: Array,  # (M, R, D): visual tokens of all media of the batch
    width: int = 3,  # beams of each row
    max_tokens: int = 24,
    cache: Cache = None,  # a dict that holds what comes before the batch
) -> tuple[list[list[int]], list[float]]:
    """The best tokens that the search finds for each row (without <EOC>), and their score.

    A score is a sum of log-probabilities, <EOC> included if it was reached, without a length penalty.
    """
    check_beams(width)
    B, eoc, cache = len(batch.tokens), model.config.language.vocab_size, {} if cache is None else cache
    check_length(cached_length(cache) + batch.tokens.shape[1], max_tokens, model.config)
    phi, copies = model.parts.visible(batch), np.repeat(np.arange(B), width)
    log_probs = read_on(model, batch.tokens, phi, visual, batch.visible_from, cache)[copies]
    cache, prompt = take_rows(cache, copies), cached_length(cache)
    # A continuation sees the same media and positions as the last token of the prompt.
    phi, visible_from = phi[copies, -1:], batch.visible_from[copies, -1:]
    rows = [_Row(width) for _ in range(B)]
    for step in range(max_tokens):
        chosen = [row.extend(own, eoc) for row, own in zip(rows, log_probs.reshape(B, width, -1), strict=True)]
        if step == max_tokens - 1 or all(row.settled for row in rows):
            break
        parents, tokens = np.array(chosen).swapaxes(0, 1)  # (B, width) each
        reorder(cache, (parents + width * np.arange(B)[:, None]).reshape(-1), prompt)
        log_probs = read_on(model, tokens.reshape(-1, 1), phi, visual, visible_from, cache)
    best = [row.best for row in rows]
    return [tokens for tokens, _ in best], [score for _, score in best]


class _Row:
    """The continuations of one row: `beams` with their `scores`, and pairs (tokens, score) that are `finished`."""

    def __init__(self, width):
        self.beams: list = [[] for _ in range(width)]
        self.scores = np.array([0.0] + [-np.inf] * (width - 1))  # all beams are equal at first: one counts
        self.finished: list = []

    def extend(self, log_probs, eoc):
        """Keep the best open continuations by one token: (the number of the beam that each extends, its new token).

        log_probs (width, V + 1). If one of the `width` best of all ends in <EOC>, it joins `finished`.
        """
        totals, width, kept = self.scores[:, None] + log_probs, len(self.beams), []
        for rank, flat in enumerate(np.argsort(-totals, axis=None, kind="stable")[: 2 * width]):
            parent, token = map(int, np.unravel_index(flat, totals.shape))
            if token != eoc:
                kept.append((parent, token))
            elif rank < width and np.isfinite(totals[parent, token]):
                self.finished.append((self.beams[parent], float(totals[parent, token])))
        kept = kept[:width]
        self.beams = [[*self.beams[parent], token] for parent, token in kept]
        self.scores = np.array([totals[place] for place in kept])
        return [parent for parent, _ in kept], [token for _, token in kept]

    @property
    def settled(self):
        """Whether the best finished continuation stays the best: the scores of open beams only fall."""
        return bool(self.finished) and max(score for _, score in self.finished) >= self.scores.max()

    @property
    def best(self):
        """The best (tokens, score) of the finished and the open beams."""
        return max(self.finished + list(zip(self.beams, self.scores.tolist(), strict=True)), key=lambda pair: pair[1])


def score_continuations(model: TrainedFlamingo, batch: Batch, visual: Array, cache: Cache = None) -> Array:
    """Sum of log-probabilities of the weighted tokens of each row (B,). It ranks the answers of a closed list.

    Each row of the batch is a prompt and a candidate, right-padded, with weight 1 on the tokens of the candidate.
    cache: as in `beam_search`.
    """
    tokens, phi = batch.tokens[:, :-1], model.parts.visible(batch)[:, :-1]
    logits = flamingo(
        model.params, model.frozen, tokens, phi, visual, model.config, batch.visible_from[:, :-1], cache, model.parts
    )
    log_probs = np.take_along_axis(log_softmax_allowed(logits), batch.tokens[:, 1:, None], axis=-1)[..., 0]
    weights = batch.weights[:, 1:]
    return np.sum(np.where(weights > 0, log_probs, 0.0) * weights, axis=1)
