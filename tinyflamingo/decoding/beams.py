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
    phi, rows = model.parts.visible(batch), np.repeat(np.arange(B), width)
    log_probs = read_on(model, batch.tokens, phi, visual, batch.visible_from, cache)[rows]
    cache, prompt = take_rows(cache, rows), cached_length(cache)
    # A continuation sees the same media and positions as the last token of the prompt.
    phi, visible_from = phi[rows, -1:], batch.visible_from[rows, -1:]
    scores = np.tile([0.0] + [-np.inf] * (width - 1), (B, 1))  # all beams of a row are equal at first: one counts
    beams: list = [[[] for _ in range(width)] for _ in range(B)]
    finished: list = [[] for _ in range(B)]
    for step in range(max_tokens):
        totals = scores[:, :, None] + log_probs.reshape(B, width, -1)
        parents, chosen = np.zeros((2, B, width), int)
        for b in range(B):
            parents[b], chosen[b], scores[b] = _extend(totals[b], width, eoc, beams[b], finished[b])
            beams[b] = [beams[b][p] + [int(t)] for p, t in zip(parents[b], chosen[b], strict=True)]
        if step == max_tokens - 1 or all(_settled(closed, scores[b]) for b, closed in enumerate(finished)):
            break
        reorder(cache, (parents + width * np.arange(B)[:, None]).reshape(-1), prompt)
        log_probs = read_on(model, chosen.reshape(-1, 1), phi, visual, visible_from, cache)
    best = [_best_of(*row) for row in zip(finished, beams, scores.tolist(), strict=True)]
    return [tokens for tokens, _ in best], [score for _, score in best]


def _settled(finished, open_scores):
    """Whether no open beam can become better than the best finished one: scores only fall."""
    return bool(finished) and max(score for _, score in finished) >= open_scores.max()


def _best_of(finished, beams, scores):
    """The best (tokens, score) of the finished and the open beams of a row."""
    return max(finished + list(zip(beams, scores, strict=True)), key=lambda pair: pair[1])


def _extend(totals, width, eoc, beams, finished):
    """The `width` best open continuations. If one of the `width` best of all ends in <EOC>, it joins `finished`."""
    order = np.argsort(-totals, axis=None, kind="stable")[: 2 * width]
    parents, tokens, scores = [], [], []
    for rank, flat in enumerate(order):
        parent, token = np.unravel_index(flat, totals.shape)
        if token == eoc:
            if rank < width and np.isfinite(totals[parent, token]):
                finished.append((beams[parent], float(totals[parent, token])))
        elif len(parents) < width:
            parents.append(int(parent))
            tokens.append(int(token))
            scores.append(totals[parent, token])
    return parents, np.array(tokens), np.array(scores)


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
