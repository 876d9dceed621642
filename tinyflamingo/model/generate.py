"""Generation: from a prompt of text, pictures and video to its continuation (chapter §5).

Greedy, beam search (the paper's: width 3), and sampling with temperature, top-k and top-p; all stop
at `<EOC>`. Two caches make a step cheap, and both are plain arguments: keys and values of the
self-attention for every token so far, and keys and values of the media, computed once.

Not here: reading files (`data/images.py`, `data/video.py`) and prompt templates (`model/interleave.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model import decode
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.gated_xattn import media_keys_values
from tinyflamingo.model.interleave import Batch
from tinyflamingo.model.language_model import init_cache
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD, UNK

NEVER = (PAD, BOS, UNK, IMAGE)  # a continuation never holds these; with byte fallback nothing is unknown
BEAMS = 64  # widest beam


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. temperature 0: greedy."""

    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0  # smallest set of tokens whose probability reaches top_p

    def __post_init__(self):
        if not 0 <= self.temperature < np.inf or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"sampling: temperature {self.temperature} and top_k {self.top_k} must be finite and >= 0, "
                f"top_p {self.top_p} in (0, 1]"
            )


def init_caches(params, config: FlamingoConfig, B, capacity, visual):
    """Both caches as one dict: "length", "block_i" (self-attention), "media_i" (gated blocks).

    visual (M, R, D): visual tokens of all media of the batch.
    """
    cache = init_cache(config.language, B, capacity, visual.dtype)
    for i in config.gated_layers:
        cache[f"media_{i}"] = media_keys_values(params[f"xattn_{i}"], visual, config)
    return cache


def spread(cache, rows, more):
    """A cache whose row i goes on from row rows[i] of `cache`, with room for `more` tokens. Media are shared."""
    grown = dict(cache)
    for name, block in cache.items():
        if name.startswith("block_"):
            held = {part: block[part][rows, : cache["length"]] for part in block}
            grown[name] = {part: np.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))) for part, x in held.items()}
    return grown


def generate(
    params, frozen, batch: Batch, visual, config: FlamingoConfig, max_tokens=24, sampling=None, rng=None, cache=None
):
    """Continue every row of a left-padded batch until `<EOC>` or max_tokens.

    Returns (tokens, log_probs): lists of lists per row, without the closing `<EOC>`. sampling: a
    `Sampling` (rng, a numpy Generator, is then needed); by default greedy. cache: what stands before
    the batch, read already, with room for batch and continuation (`spread`); it grows.
    """
    sampling = sampling or Sampling()
    if sampling.temperature > 0 and rng is None:
        raise UserError("sampling needs a generator of random numbers: give rng=np.random.default_rng(seed)")
    B, eoc = len(batch.tokens), config.language.vocab_size
    check_length((cache["length"] if cache else 0) + batch.tokens.shape[1], max_tokens, config)
    cache = cache or init_caches(params, config, B, batch.tokens.shape[1] + max_tokens, visual)
    logits = flamingo(params, frozen, batch.tokens, batch.phi, visual, config, batch.start, cache, batch.first)[:, -1]
    last = batch.phi[:, -1:], batch.start[:, -1:], batch.first[:, -1:]
    step_on = stepper(params, frozen, last, visual, config, cache)
    out, scores, done = [[] for _ in range(B)], [[] for _ in range(B)], np.zeros(B, bool)
    for step in range(max_tokens):
        chosen, chosen_scores = _choose(log_softmax(logits), sampling, rng)
        for b in np.flatnonzero(~done & (chosen != eoc)):
            out[b].append(int(chosen[b]))
            scores[b].append(float(chosen_scores[b]))
        done |= chosen == eoc
        if done.all() or step == max_tokens - 1:
            break
        logits = step_on(chosen)
    return out, scores


def stepper(params, frozen, last, visual, config, cache):
    """A function: one more token a row, (B,), to logits (B, V + 1). The cache grows with every call.

    last: phi, start and first of the prompt's last token, each (B, 1); a continuation sees the same.
    """
    phi, start, first = last
    if len(phi) > decode.ROWS or ops.engine() != "numba" or not decode.serves(config):
        return lambda tokens: flamingo(params, frozen, tokens[:, None], phi, visual, config, start, cache, first)[:, -1]
    blocks = decode.arrange(params, frozen, config, cache)
    first = first if config.xattn.attend == "all_previous" else phi
    phi, first, start = (x[:, 0] for x in (phi, first, start))
    return lambda tokens: decode.decode_step(params, frozen, tokens, phi, first, start, cache, blocks)


def check_length(prompt, more, config):
    """`UserError` if prompt and continuation together exceed the context, or the continuation is less than nothing."""
    if more < 0:
        raise UserError(f"max_tokens is {more} but must be at least 0")
    if prompt + more > config.language.context:
        raise UserError(
            f"the prompt has {prompt} tokens and up to {more} would follow, "
            f"but the context is {config.language.context}: shorten the prompt or generate fewer tokens"
        )


def check_beams(width, sampling=None):
    """`UserError` if no beam has this width, or if a search by beams is to sample too."""
    if not 1 <= width <= BEAMS:
        raise UserError(f"beams is {width} but must be from 1 to {BEAMS}")
    if width > 1 and sampling not in (None, Sampling()):
        raise UserError("beams search; temperature, top_k and top_p sample: choose one")


def log_softmax(logits):
    """Log-probabilities over the last axis; tokens that no continuation may hold get -inf."""
    logits = np.array(logits, np.float64)
    logits[..., list(NEVER)] = -np.inf
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _choose(log_probs, sampling, rng):
    """One token a row and its log-probability under the model."""
    if sampling.temperature == 0:
        chosen = log_probs.argmax(axis=-1)
    else:
        with np.errstate(over="ignore"):  # near temperature 0 all but the best go to -inf, and the best stays at 0
            scaled = (log_probs - log_probs.max(axis=-1, keepdims=True)) / sampling.temperature
        probs = restrict(np.exp(log_softmax(scaled)), sampling)
        chosen = np.array([rng.choice(len(p), p=p) for p in probs])
    return chosen, np.take_along_axis(log_probs, chosen[:, None], axis=-1)[:, 0]


def restrict(probs, sampling: Sampling):
    """Probabilities (B, V) cut to the top_k likeliest and to the smallest set reaching top_p."""
    order = np.argsort(-probs, axis=-1, kind="stable")
    ranked = np.take_along_axis(probs, order, axis=-1)
    keep = np.cumsum(ranked, axis=-1) - ranked < sampling.top_p
    if sampling.top_k:
        keep &= np.arange(probs.shape[-1]) < sampling.top_k
    kept = np.zeros_like(probs)
    np.put_along_axis(kept, order, ranked * keep, axis=-1)
    return kept / kept.sum(axis=-1, keepdims=True)


def beam_search(params, frozen, batch: Batch, visual, config: FlamingoConfig, width=3, max_tokens=24, cache=None):
    """The likeliest continuation of every row of a left-padded batch among `width` beams each.

    Returns (tokens, log_probs): a list and one number a row, with <EOC> if it was reached. Scores are sums of
    log-probabilities, with no length penalty (paper, appendix A.2: beam 3, stop at `<EOC>`). cache: as in `generate`.
    """
    check_beams(width)
    B, T = batch.tokens.shape
    check_length((cache["length"] if cache else 0) + T, max_tokens, config)
    cache = cache or init_caches(params, config, B, 0, visual)
    rows = np.repeat(np.arange(B), width)
    cache = spread(cache, rows, T + max_tokens)
    tokens, phi, start, first = (x[rows] for x in (batch.tokens, batch.phi, batch.start, batch.first))
    step_on = stepper(params, frozen, (phi[:, -1:], start[:, -1:], first[:, -1:]), visual, config, cache)
    log_probs = log_softmax(flamingo(params, frozen, tokens, phi, visual, config, start, cache, first)[:, -1])
    prompt, eoc = cache["length"], config.language.vocab_size
    scores = np.tile([0.0] + [-np.inf] * (width - 1), (B, 1))  # all beams are equal at first: one counts
    beams, finished = [[[] for _ in range(width)] for _ in range(B)], [[] for _ in range(B)]
    for _ in range(max_tokens):
        totals = scores[:, :, None] + log_probs.reshape(B, width, -1)
        parents, chosen = np.zeros((2, B, width), int)
        for b in range(B):
            parents[b], chosen[b], scores[b] = _best(totals[b], width, eoc, beams[b], finished[b])
            beams[b] = [beams[b][p] + [int(t)] for p, t in zip(parents[b], chosen[b], strict=True)]
        if all(done and max(s for _, s in done) >= open_.max() for done, open_ in zip(finished, scores, strict=True)):
            break
        _reorder(cache, (parents + width * np.arange(B)[:, None]).reshape(-1), prompt)
        log_probs = log_softmax(step_on(chosen.reshape(-1)))
    rows = zip(finished, beams, scores.tolist(), strict=True)
    found = [max(done + list(zip(own, left, strict=True)), key=lambda f: f[1]) for done, own, left in rows]
    return [tokens for tokens, _ in found], [score for _, score in found]


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


def _reorder(cache, parents, since):
    """Every beam continues its parent's keys and values; before position `since` all beams of a row are one."""
    here = slice(since, cache["length"])
    for name, block in cache.items():
        if name.startswith("block_"):
            for part in ("k", "v"):
                block[part][:, here] = block[part][parents, here]


def score_continuations(params, frozen, batch: Batch, visual, config: FlamingoConfig, cache=None):
    """Sum of log-probabilities of the weighted tokens of each row (B,): ranks closed answers.

    The batch holds prompt plus candidate, right-padded, with weight 1 on the candidate's tokens. cache:
    as in `generate`.
    """
    phi, first = batch.phi[:, :-1], batch.first[:, :-1]
    logits = flamingo(params, frozen, batch.tokens[:, :-1], phi, visual, config, cache=cache, first=first)
    log_probs = np.take_along_axis(log_softmax(logits), batch.tokens[:, 1:, None], axis=-1)[..., 0]
    weights = batch.weights[:, 1:]
    return np.sum(np.where(weights > 0, log_probs, 0.0) * weights, axis=1)
