"""Completion: from a prompt of text, pictures and video to its continuation (chapter §5).

Greedy: the likeliest token, then the next, until `<EOC>`. A cache makes each step cheap. It is a plain dict: keys and
values of the self-attention for all tokens so far, and keys and values of the media, which are computed once.

Not here: beams, sampling and the scores of given continuations (`decoding/`), files (`data/`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import TrainedFlamingo, flamingo
from tinyflamingo.model.interleave import Batch
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD, UNK
from tinyflamingo.ops.cache import cached_length
from tinyflamingo.ops.types import Array, Cache

NEVER = (PAD, BOS, UNK, IMAGE)  # a continuation never holds these; with byte fallback nothing is unknown


def generate(
    model: TrainedFlamingo,
    batch: Batch,  # left-padded
    visual: Array,  # (M, R, D): visual tokens of all media of the batch
    max_tokens: int = 24,
    choose: Callable | None = None,  # log-probabilities (B, V + 1) -> tokens (B,); by default the likeliest
    cache: Cache = None,  # a dict that holds what comes before the batch; it grows
) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens and their log-probabilities for each row, until `<EOC>` (not included) or max_tokens."""
    cache, choose = {} if cache is None else cache, choose or likeliest
    check_length(cached_length(cache) + batch.tokens.shape[1], max_tokens, model.config)
    log_probs = read_on(model, batch.tokens, model.parts.visible(batch), visual, batch.visible_from, cache)
    B, eoc = len(batch.tokens), model.config.language.vocab_size
    tokens: list = [[] for _ in range(B)]
    scores: list = [[] for _ in range(B)]
    closed = np.zeros(B, bool)
    for step in range(max_tokens):
        chosen = choose(log_probs)
        for b in np.flatnonzero(~closed & (chosen != eoc)):
            tokens[b].append(int(chosen[b]))
            scores[b].append(float(log_probs[b, chosen[b]]))
        closed |= chosen == eoc
        if closed.all() or step == max_tokens - 1:
            break
        log_probs = read_token(model, chosen, batch, visual, cache)
    return tokens, scores


def likeliest(log_probs: Array) -> Array:
    """The greedy choice: (B, V + 1) -> (B,)."""
    return log_probs.argmax(axis=-1)


def read_token(model: TrainedFlamingo, chosen: Array, batch: Batch, visual: Array, cache: Cache) -> Array:
    """`read_on` for one more token of each row, chosen (B,). It sees what the last token of the batch sees."""
    phi = model.parts.visible(batch)[:, -1:]
    return read_on(model, chosen[:, None], phi, visual, batch.visible_from[:, -1:], cache)


def read_on(
    model: TrainedFlamingo, tokens: Array, phi: Array, visual: Array, visible_from: Array, cache: Cache
) -> Array:
    """Log-probabilities (B, V + 1) of the token after tokens (B, T), which continue the cache."""
    logits = flamingo(model.params, model.frozen, tokens, phi, visual, model.config, visible_from, cache, model.parts)
    return log_softmax_allowed(logits[:, -1])


def log_softmax_allowed(logits: Array) -> Array:
    """Log-probabilities over the last axis; the tokens in `NEVER` get -inf. `UserError` if a logit is not a number."""
    logits = np.array(logits, np.float64)
    logits[..., list(NEVER)] = -np.inf
    largest = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise UserError("the model gives NaN or infinite logits, so it has no answer: use another checkpoint")
    logits -= largest
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def check_length(prompt: int, more: int, config: FlamingoConfig) -> None:
    """`UserError` if prompt and continuation together exceed the context, or if more is less than 0."""
    if more < 0:
        raise UserError(f"max_tokens is {more} but must be at least 0")
    if prompt + more > config.language.context:
        raise UserError(
            f"the prompt has {prompt} tokens and up to {more} would follow, "
            f"but the context is {config.language.context}: shorten the prompt or generate fewer tokens"
        )
