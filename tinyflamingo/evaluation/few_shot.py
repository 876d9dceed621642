"""Prompts of shots and queries, and answers to them: many queries after the same shots (chapter §5; paper A.2).

All queries of an instance share their shots, so these are read once and every query goes on from the
cache. Open-ended answers are written by a beam of 3 up to `<EOC>`, close-ended ones are ranked by
log-likelihood. Zero-shot prompts of open-ended tasks begin with two examples without their pictures.
Also here: shots chosen by likeness (RICES), and ensembles over orders of the shots.

Not here: the tasks (`evaluation/suite.py`), scores and the whole suite (`evaluation/suite_run.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinyflamingo.data.items import EOC
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.decoding.caches import take_rows
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.retrieval import ensemble, permutations, pooled, rices
from tinyflamingo.evaluation.suite import QUERY
from tinyflamingo.model.flamingo import encode_media, own_medium
from tinyflamingo.model.generate import read_on
from tinyflamingo.model.interleave import Batch, encode_document, phi
from tinyflamingo.model.tokenizer import PAD

TEXT_ONLY = 2  # examples without pictures in a zero-shot prompt
BEAMS = 3
ANSWER_TOKENS = 16
ROWS = 64  # queries, or queries with a candidate each, side by side
ORDERS = 6  # permutations of an ensemble
MEDIUM = object()  # stands for a picture or video in the items of a prompt


@dataclass
class Instance:
    """Shots and queries of a task, drawn and encoded: examples, features (n, F, S, Dv), visual tokens (n, R, D)."""

    shots: list
    queries: list
    pixels: np.ndarray  # of shots, then queries
    features: np.ndarray
    visual: np.ndarray

    @property
    def shown(self):
        """Visual tokens of the shots and of the queries."""
        return self.visual[: len(self.shots)], self.visual[len(self.shots) :]


def draw_instance(model, task, rng, number, shots, queries) -> Instance:
    """number: a tuple that fixes the classes of a task that has some."""
    chosen = task.shots(rng, shots, number)
    asked = [task.example(rng, QUERY, number) for _ in range(queries)]
    pixels = np.stack([task.pixels(rng, e.medium) for e in chosen + asked])
    features = encode_media(model.frozen, pixels, model.config, model.parts)
    return Instance(chosen, asked, pixels, features, model.parts.resample(model.params, [features], model.config))


# ---- prompts ---------------------------------------------------------------------------------


def shot_items(example, medium, answer=None):
    """An example as it stands in a prompt; medium None: without its picture. answer: another last answer."""
    answers = (*example.answers[:-1], answer or example.answers[-1])
    items = [EOC if medium is None else medium]
    for question, said in zip(example.asked, answers, strict=True):
        items += [question, said]
    return items


def read_prompt(model, items, visual, others):
    """A prompt: items of all shots; visual (k, R, D) of its media; others (n, R, D) come later.

    Returns the cache after it, all visual tokens, and log-probabilities (V + 1,) of what comes next.
    """
    sequence = encode_document(items, model.tokenizer)
    tokens = np.array([sequence.tokens if items else sequence.tokens[:1]])
    everything = np.concatenate([visual, others])
    cache: dict = {}
    log_probs = read_on(model, tokens, phi(tokens), everything, None, cache)
    return cache, everything, log_probs[0]


def continuation(tokens, seen):
    """A batch of rows of ids (B, T) that go on from a prompt, all tokens of a row seeing its medium of `seen` (B,)."""
    looks = np.repeat(np.asarray(seen)[:, None], tokens.shape[1], axis=1)
    zeros = np.zeros(tokens.shape, int)
    return Batch(tokens, zeros.astype(np.float32), looks, zeros, zeros, [])


def suffix(model, items):
    """Ids of what follows a prompt: a medium and texts."""
    return encode_document(items, model.tokenizer, complete=False).tokens[1:]


# ---- answers ---------------------------------------------------------------------------------


def write(model, rows, seen, cache, everything):
    """A continuation of each row (lists of items) by beam search; rows of one length go together."""
    ids, texts = [suffix(model, items) for items in rows], [""] * len(rows)
    for length in sorted({len(i) for i in ids}):
        same = [i for i, row in enumerate(ids) if len(row) == length]
        for some in (same[i : i + ROWS // BEAMS] for i in range(0, len(same), ROWS // BEAMS)):
            batch = continuation(np.array([ids[i] for i in some]), [seen[i] for i in some])
            own = take_rows(cache, np.zeros(len(some), int))
            out, _ = beam_search(model, batch, everything, BEAMS, ANSWER_TOKENS, own)
            for i, said in zip(some, out, strict=True):
                texts[i] = model.tokenizer.decode(said).strip()
    return texts


def rank(model, rows, candidates, seen, cache, everything, ahead):
    """Log-likelihood of every candidate after each row, up to `<EOC>`: a list of lists.

    ahead: from `read_prompt`, for the first piece of a candidate that follows the prompt itself, its row being empty.
    """
    flat = [(i, c) for i, options in enumerate(candidates) for c in options]
    scores = []
    for some in (flat[i : i + ROWS] for i in range(0, len(flat), ROWS)):
        known = [len(suffix(model, rows[i])) for i, _ in some]
        ids = [[*suffix(model, [*rows[i], c]), model.tokenizer.eoc] for i, c in some]
        tokens = np.full((len(ids), max(map(len, ids))), PAD)
        weights = np.zeros(tokens.shape, np.float32)
        for row, (mine, start) in enumerate(zip(ids, known, strict=True)):
            tokens[row, : len(mine)], weights[row, start : len(mine)] = mine, 1
        batch = replace(continuation(tokens, [seen[i] for i, _ in some]), weights=weights)
        likely = score_continuations(model, batch, everything, take_rows(cache, np.zeros(len(some), int)))
        scores += (likely + [0.0 if start else ahead[mine[0]] for mine, start in zip(ids, known, strict=True)]).tolist()
    found = iter(scores)
    return [[next(found) for _ in options] for options in candidates]


def answer(model, examples, items, visual, others, blind=False):
    """Answers to examples after a prompt: [(text, log-likelihoods of the candidates or [])].

    items: of the prompt's shots, with media in the order of visual (k, R, D); others (n, R, D): what the
    examples show, one each; blind: their pictures are left out. `UserError` if tokens see all media before them.
    """
    if model.parts.visible is not own_medium:
        raise UserError("the suite reads shots once for many queries: that needs tokens that see one medium each")
    cache, everything, ahead = read_prompt(model, items, visual, others)
    seen = [0 if blind else len(visual) + 1 + i for i in range(len(examples))]
    rows = [[*([] if blind else [MEDIUM]), e.asked[0]] for e in examples]
    for turn in range(1, len(examples[0].asked)):
        said = write(model, rows, seen, cache, everything)
        rows = [[*row, text, e.asked[turn]] for row, text, e in zip(rows, said, examples, strict=True)]
    if not examples[0].candidates:
        return [(text, []) for text in write(model, rows, seen, cache, everything)]
    scores = rank(model, rows, [e.candidates for e in examples], seen, cache, everything, ahead)
    return [(e.candidates[int(np.argmax(s))], s) for e, s in zip(examples, scores, strict=True)]


def few_shot(model, instance: Instance, k, shown=None, labels=None, blind=False):
    """Answers to all queries of an instance after its first k shots; with 0, the paper's zero-shot prompt.

    shown: whether the shots have their pictures (by default, all but zero-shot); labels: last answers in
    place of the shots' own; blind: the queries lose their pictures.
    """
    shown = k > 0 if shown is None else shown
    count = k or (0 if instance.queries[0].candidates else TEXT_ONLY)
    shots, (visual, others) = instance.shots[:count], instance.shown
    labels = labels or [None] * count
    items = [i for e, a in zip(shots, labels, strict=True) for i in shot_items(e, MEDIUM if shown else None, a)]
    return answer(model, instance.queries, items, visual[:count] if shown else visual[:0], others, blind)


def by_likeness(model, instance: Instance, k):
    """Answers with k shots chosen for each query among all of the instance, the most similar last (RICES)."""
    n = len(instance.shots)
    features = pooled(instance.features)
    return [
        answer(model, [query], *_chosen(instance, order), instance.visual[n + i : n + i + 1])[0]
        for i, (query, order) in enumerate(zip(instance.queries, rices(features[:n], features[n:], k), strict=True))
    ]


def over_orders(model, instance: Instance, k, rng):
    """Close-ended answers by the mean log-likelihood over some orders of the first k shots (ensembling)."""
    orders = permutations(rng, k, ORDERS)
    runs = [answer(model, instance.queries, *_chosen(instance, order), instance.shown[1]) for order in orders]
    scores = ensemble(np.array([[s for _, s in found] for found in runs]))
    return [(q.candidates[int(np.argmax(s))], s.tolist()) for q, s in zip(instance.queries, scores, strict=True)]


def _chosen(instance, order):
    """Items and visual tokens of the shots with these numbers."""
    return [i for j in order for i in shot_items(instance.shots[j], MEDIUM)], instance.visual[list(order)]
