"""Beam search, and the score of a given continuation (chapter §5; paper, appendix A.2).

The paper writes open-ended answers with beams of width 3, up to `<EOC>`, and ranks closed answers by their
likelihood. Not here: the greedy loop (`model/generate.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.decoding.caches import reorder, take_rows
from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import TrainedFlamingo, flamingo
from tinyflamingo.model.generate import check_length, log_softmax_allowed, read_on
from tinyflamingo.model.interleave import Batch
from tinyflamingo.ops.cache import cached_length

WIDEST = 64  # beams


def check_beams(width):
    """`UserError` if no beam has this width."""
    if not 1 <= width <= WIDEST:
        raise UserError(f"beams is {width} but must be from 1 to {WIDEST}")


def beam_search(model: TrainedFlamingo, batch: Batch, visual, width=3, max_tokens=24, cache=None):
    """The likeliest continuation of every row of a left-padded batch among `width` beams each.

    Returns (tokens, log_probs): a list and one number for each row, with <EOC> if it was reached. Scores are
    sums of log-probabilities, without a length penalty. cache: a dict that holds what comes before the batch.
    """
    check_beams(width)
    B, eoc, cache = len(batch.tokens), model.config.language.vocab_size, {} if cache is None else cache
    check_length(cached_length(cache) + batch.tokens.shape[1], max_tokens, model.config)
    phi, rows = model.parts.visible(batch), np.repeat(np.arange(B), width)
    log_probs = read_on(model, batch.tokens, phi, visual, batch.visible_from, cache)[rows]
    cache, prompt = take_rows(cache, rows), cached_length(cache)
    # A continuation sees what the last token of the prompt sees.
    phi, visible_from = phi[rows, -1:], batch.visible_from[rows, -1:]
    scores = np.tile([0.0] + [-np.inf] * (width - 1), (B, 1))  # all beams are equal at first: one counts
    beams, finished = [[[] for _ in range(width)] for _ in range(B)], [[] for _ in range(B)]
    for _ in range(max_tokens):
        totals = scores[:, :, None] + log_probs.reshape(B, width, -1)
        parents, chosen = np.zeros((2, B, width), int)
        for b in range(B):
            parents[b], chosen[b], scores[b] = _best(totals[b], width, eoc, beams[b], finished[b])
            beams[b] = [beams[b][p] + [int(t)] for p, t in zip(parents[b], chosen[b], strict=True)]
        if all(_settled(closed, scores[b]) for b, closed in enumerate(finished)):
            break
        reorder(cache, (parents + width * np.arange(B)[:, None]).reshape(-1), prompt)
        log_probs = read_on(model, chosen.reshape(-1, 1), phi, visual, visible_from, cache)
    found = [_winner(*row) for row in zip(finished, beams, scores.tolist(), strict=True)]
    return [tokens for tokens, _ in found], [score for _, score in found]


def _settled(finished, open_scores) -> bool:
    """No open beam can overtake the best finished one: scores only fall."""
    return bool(finished) and max(score for _, score in finished) >= open_scores.max()


def _winner(finished, beams, scores):
    """The best (tokens, score) of finished and open beams."""
    return max(finished + list(zip(beams, scores, strict=True)), key=lambda pair: pair[1])


def _best(totals, width, eoc, beams, finished):
    """The `width` best open continuations; of the `width` best of all, those that end in <EOC> join `finished`."""
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


def score_continuations(model: TrainedFlamingo, batch: Batch, visual, cache=None):
    """Sum of log-probabilities of the weighted tokens of each row (B,): ranks closed answers.

    The batch holds a prompt and a candidate in each row, right-padded, with weight 1 on the candidate's
    tokens. cache: as in `beam_search`.
    """
    tokens, phi = batch.tokens[:, :-1], model.parts.visible(batch)[:, :-1]
    logits = flamingo(
        model.params, model.frozen, tokens, phi, visual, model.config, batch.visible_from[:, :-1], cache, model.parts
    )
    log_probs = np.take_along_axis(log_softmax_allowed(logits), batch.tokens[:, 1:, None], axis=-1)[..., 0]
    weights = batch.weights[:, 1:]
    return np.sum(np.where(weights > 0, log_probs, 0.0) * weights, axis=1)
