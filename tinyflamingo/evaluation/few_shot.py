"""Prompts of shots and queries, and the model's answers: many queries after the same shots (chapter §5; paper A.2).

All queries of an instance have the same shots. The model reads the shots once; every query goes on from the cache.
Open-ended answers come from beam search of width 3 up to `<EOC>`; close-ended answers are ranked by log-likelihood. A
zero-shot prompt of an open-ended task begins with two examples without their pictures. Also here: shots chosen by
similarity (RICES), and ensembles over orders of the shots.

Not here: the tasks (`evaluation/suite.py`), scores and the whole suite (`evaluation/suite_run.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from tinyflamingo.data.items import EOC
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.decoding.caches import take_rows
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.retrieval import permutations, pooled, rices
from tinyflamingo.evaluation.suite import QUERY, Example, Task
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media, own_medium
from tinyflamingo.model.generate import read_on
from tinyflamingo.model.interleave import Batch, encode_document, phi
from tinyflamingo.model.tokenizer import PAD
from tinyflamingo.ops.types import Array

ANSWER_TOKENS = 32  # more than the longest answer has: 27, spelled words around a value
TEXT_ONLY = 2  # examples without pictures in a zero-shot prompt
BEAMS = 3
ROWS = 64  # queries that are decoded side by side, or pairs of a query and a candidate
ORDERS = 6  # permutations of an ensemble
MEDIUM = object()  # marks the place of a picture or video in the items of a prompt


@dataclass
class Instance:
    """Shots and queries of a task, sampled and encoded. The arrays hold the n media of shots, then of queries."""

    shots: list
    queries: list
    pixels: Array  # uint8 (n, F, Y, X, 3)
    features: Array  # (n, F, S, Dv)
    visual: Array  # visual tokens (n, R, D)

    @property
    def shot_visual(self) -> Array:
        """Visual tokens of the shots."""
        return self.visual[: len(self.shots)]

    @property
    def query_visual(self) -> Array:
        """Visual tokens of the queries."""
        return self.visual[len(self.shots) :]


def draw_instance(
    model: TrainedFlamingo, task: Task, rng: np.random.Generator, key: tuple, shots: int, queries: int
) -> Instance:
    """`shots` shots and `queries` queries of a task. key: numbers that fix the classes of a task with classes."""
    support = task.shots(rng, shots, key)
    asked = [task.example(rng, QUERY, key) for _ in range(queries)]
    pixels = np.stack([task.pixels(rng, e.medium, model.config.vision.side) for e in support + asked])
    features = encode_media(model.frozen, pixels, model.config, model.parts)
    return Instance(support, asked, pixels, features, model.parts.resample(model.params, [features], model.config))


# ---- prompts ---------------------------------------------------------------------------------


def shot_items(example: Example, medium: object, answer: str | None = None) -> list:
    """An example as items of a prompt. medium None: without its picture; answer: replaces its last answer."""
    answers = (*example.answers[:-1], answer or example.answers[-1])
    turns = [text for turn in zip(example.asked, answers, strict=True) for text in turn]
    return [EOC if medium is None else medium, *turns]


def read_shots(model: TrainedFlamingo, items: list, visual: Array) -> tuple[dict, Array]:
    """Read a prompt: the items of all shots. visual (M, R, D): media of the shots first, then of what follows.

    Returns the cache after it and the log-probabilities (V + 1,) of the next token.
    """
    opening = [*model.tokenizer.opening] or [model.tokenizer.eoc]  # some public ports have no `<BOS>`
    tokens = np.array([encode_document(items, model.tokenizer).tokens if items else opening])
    cache: dict = {}
    return cache, read_on(model, tokens, phi(tokens), visual, None, cache)[0]


def continuation(tokens: Array, seen: list) -> Batch:
    """Rows of ids (B, T) that continue a prompt. All tokens of a row see the row's medium in `seen` (B,)."""
    row_phi = np.repeat(np.asarray(seen)[:, None], tokens.shape[1], axis=1)
    zeros = np.zeros(tokens.shape, int)
    return Batch(tokens, zeros.astype(np.float32), row_phi, zeros, zeros, [])


def suffix(model: TrainedFlamingo, items: list) -> list:
    """Ids of what follows a prompt: a medium and texts."""
    ids = encode_document(items, model.tokenizer, complete=False).tokens
    return ids[len(model.tokenizer.opening) :]


# ---- answers ---------------------------------------------------------------------------------


def write(
    model: TrainedFlamingo, rows: list, seen: list, cache: dict, visual: Array, tokens: int = ANSWER_TOKENS
) -> list:
    """A continuation of each row (a list of items) by beam search. Rows of equal length are decoded together.

    tokens: of the longest continuation.
    """
    ids, texts = [suffix(model, items) for items in rows], [""] * len(rows)
    for length in sorted({len(i) for i in ids}):
        same = [i for i, row in enumerate(ids) if len(row) == length]
        for chunk in (same[i : i + ROWS // BEAMS] for i in range(0, len(same), ROWS // BEAMS)):
            batch = continuation(np.array([ids[i] for i in chunk]), [seen[i] for i in chunk])
            own = take_rows(cache, np.zeros(len(chunk), int))
            outputs, _ = beam_search(model, batch, visual, BEAMS, tokens, own)
            for i, output in zip(chunk, outputs, strict=True):
                texts[i] = model.tokenizer.decode(output).strip()
    return texts


def normalised(scores: Array) -> Array:
    """Log-likelihoods (Q, W) of candidates, normalised over the candidates: their probabilities add to 1."""
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def rank(
    model: TrainedFlamingo, rows: list, candidates: list, seen: list, cache: dict, visual: Array, next_token: Array
) -> list:
    """Log-likelihoods of the candidates of each row, up to `<EOC>`: one list for each row.

    next_token: log-probabilities from `read_shots`. They score the first token of a candidate whose row is empty: that
    token follows the prompt directly.
    """
    flat = [(i, option) for i, options in enumerate(candidates) for option in options]
    scores: list = []
    for chunk in (flat[i : i + ROWS] for i in range(0, len(flat), ROWS)):
        starts = [len(suffix(model, rows[i])) for i, _ in chunk]
        ids = [[*suffix(model, [*rows[i], option]), model.tokenizer.eoc] for i, option in chunk]
        tokens = np.full((len(ids), max(map(len, ids))), PAD)
        weights = np.zeros(tokens.shape, np.float32)
        for row, (own, start) in enumerate(zip(ids, starts, strict=True)):
            tokens[row, : len(own)], weights[row, start : len(own)] = own, 1
        batch = replace(continuation(tokens, [seen[i] for i, _ in chunk]), weights=weights)
        likely = score_continuations(model, batch, visual, take_rows(cache, np.zeros(len(chunk), int)))
        first = [0.0 if start else next_token[own[0]] for own, start in zip(ids, starts, strict=True)]
        scores += (likely + first).tolist()
    in_order = iter(scores)
    return [[next(in_order) for _ in options] for options in candidates]


def answer(
    model: TrainedFlamingo, examples: list, items: list, shot_visual: Array, query_visual: Array, blind: bool = False
) -> list:
    """Answers to examples after a prompt: [(text, log-likelihoods of the candidates or [])].

    items: of the prompt's shots; shot_visual (k, R, D): their media in order; query_visual (n, R, D): one medium for
    each example; blind: the examples' media are left out. `UserError` if tokens see all media before them.
    """
    if model.parts.visible is not own_medium:
        raise UserError("the suite reads the shots once for many queries: each token of the model must see one medium")
    visual = np.concatenate([shot_visual, query_visual])
    cache, next_token = read_shots(model, items, visual)
    # After a prompt that ends with `<EOC>` an answer needs a token to follow: a blind query without text keeps its tag.
    tags = [[] if blind and (e.asked[0] or e.candidates) else [MEDIUM] for e in examples]
    seen = [0 if blind else len(shot_visual) + 1 + i for i in range(len(examples))]
    rows = [[*tag, e.asked[0]] for tag, e in zip(tags, examples, strict=True)]
    for turn in range(1, len(examples[0].asked)):
        texts = write(model, rows, seen, cache, visual)
        rows = [[*row, text, e.asked[turn]] for row, text, e in zip(rows, texts, examples, strict=True)]
    if not examples[0].candidates:
        return [(text, []) for text in write(model, rows, seen, cache, visual)]
    scores = rank(model, rows, [e.candidates for e in examples], seen, cache, visual, next_token)
    return [(e.candidates[int(np.argmax(s))], s) for e, s in zip(examples, scores, strict=True)]


def few_shot(
    model: TrainedFlamingo, instance: Instance, k: int, pictures: bool = True, labels: tuple = (), blind: bool = False
) -> list:
    """Answers to all queries of an instance after its first k shots; k = 0: the paper's zero-shot prompt.

    pictures: whether the shots have their pictures (never in a zero-shot prompt); labels: last answers that replace
    those of the shots; blind: the queries have no pictures.
    """
    pictures = pictures and k > 0
    count = k or (0 if instance.queries[0].candidates else TEXT_ONLY)
    shots = zip(instance.shots[:count], labels or [None] * count, strict=True)
    items = [item for e, label in shots for item in shot_items(e, MEDIUM if pictures else None, label)]
    shot_visual = instance.shot_visual[: count if pictures else 0]
    return answer(model, instance.queries, items, shot_visual, instance.query_visual, blind)


def few_shot_rices(model: TrainedFlamingo, instance: Instance, k: int) -> list:
    """Answers to all queries, each after the k most similar shots of the instance, the most similar last (RICES)."""
    n = len(instance.shots)
    features = pooled(instance.features)
    return [
        _answer_after(model, instance, order, [query], instance.query_visual[i : i + 1])[0]
        for i, (query, order) in enumerate(zip(instance.queries, rices(features[:n], features[n:], k), strict=True))
    ]


def few_shot_ensemble(model: TrainedFlamingo, instance: Instance, k: int, rng: np.random.Generator) -> list:
    """Answers from several orders of the first k shots: by mean log-likelihood, or open-ended ones by majority."""
    queries = instance.queries
    orders = permutations(rng, k, ORDERS)
    runs = [_answer_after(model, instance, order, queries, instance.query_visual) for order in orders]
    if not queries[0].candidates:
        return [(Counter(text for text, _ in answers).most_common(1)[0][0], []) for answers in zip(*runs, strict=True)]
    means = np.mean([[scores for _, scores in run] for run in runs], axis=0)
    return [(q.candidates[int(np.argmax(s))], s.tolist()) for q, s in zip(queries, means, strict=True)]


def _answer_after(model, instance, order, queries, query_visual):
    """Answers to queries after the shots with the numbers in `order`."""
    items = [item for i in order for item in shot_items(instance.shots[i], MEDIUM)]
    return answer(model, queries, items, instance.visual[list(order)], query_visual)
