"""Scores on emoji that no stage saw, drawn by an artist whom no stage saw: few-shot classification in the prompt.

Chapter §5; paper section 3.1 (close-ended tasks by likelihood). Examples are drawings of two artists with invented
words; the third artist's drawing is asked. Beside each score, on the same examples and queries: the nearest example by
raw pixels, and the nearest mean of a class on the features that the model gets from its frozen encoder.

Names are asked of concepts that training saw, drawn by the artist whom it did not see.

Not here: the packages (`packages.py`), TinyWorld's tasks (`evaluation/run.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.augment import augmented
from tinyflamingo.data.tinyworld.language import NEW_WORDS
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.emoji.figure import draw_emoji
from tinyflamingo.emoji.packages import ARTISTS, TAUGHT, Concepts, read_concepts, split
from tinyflamingo.emoji.stages import name_text
from tinyflamingo.evaluation.few_shot import MEDIUM, ORDERS, normalised, rank, read_shots, write
from tinyflamingo.evaluation.metrics import summarise
from tinyflamingo.evaluation.retrieval import distances, unit_rows
from tinyflamingo.evaluation.run import evaluate
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media
from tinyflamingo.ops.types import Array
from tinyflamingo.training.presets import PRESETS
from tinyflamingo.training.run import Evaluate

STREAM = 20261203  # of the test streams of these scores; no other code uses the number
TASKS = {"2-way 1-shot": (2, 1), "5-way 1-shot": (5, 1), "5-way 3-shot": (5, 3), "20-way 1-shot": (20, 1)}
OPTIONS = 50  # names among which the right one is ranked
ANSWER_TOKENS = 48  # the longest name has 44, in Chinese
LAST = len(ARTISTS) - 1  # the artist whose drawings are the questions


def evaluator(data: str | Path, folder: str | Path) -> Evaluate:
    """The evaluation at the end of a training on the packages in `data`: TinyWorld's tasks, then emoji.

    It writes the figure `emoji.png` into the folder of the run.
    """

    def score(model, n, seed):
        report = emoji_report(model, data, n, seed, Path(folder) / "emoji.png")
        return evaluate(model, n, seed) | report

    return score


def emoji_report(
    model: TrainedFlamingo, data: str | Path, n: int = 500, seed: int = 0, figure: Path | None = None
) -> dict:
    """All scores of any model on the packages in `data`, with at least n queries for each.

    Returns {"emoji": {name: row}, "concepts": {"training": number, "asked": number}}.

    A row: {"score", "ci95", "n", "ensemble", "neighbours", "class_means"}; names have no ensemble and no class means.
    figure: where to draw a prompt and the scores; None: nowhere.
    """
    known, asked = split(read_concepts(data, model.config.vision.side, language_of(model)))
    drawn = Drawn(model, asked, split_rng("test", STREAM, seed, 6))
    rows = few_shot_scores(model, drawn, n, seed) | name_scores(model, known, n, seed)
    if figure:
        draw_emoji(ask(model, drawn, np.arange(5), split_rng("test", STREAM, seed, 5), 1), rows, figure)
    return {"emoji": rows, "concepts": {"training": len(known.names), "asked": len(asked.names)}}


def language_of(model: TrainedFlamingo) -> str:
    """The language of the names that a model learned; English for a model that learned none."""
    preset = PRESETS.get(model.info.get("preset", ""))
    return preset.emoji.language if preset and preset.emoji else "en"


class Drawn:
    """Pictures of concepts, encoded once. P of each: one by each artist, then a changed view of the
    first two.

    pixels (n, P, Y, X, 3), features (n, P, S * Dv) and visual tokens (n, P, R, D).
    """

    def __init__(self, model: TrainedFlamingo, concepts: Concepts, rng: np.random.Generator) -> None:
        taught = concepts.pictures[:, :TAUGHT]
        views = augmented(rng, taught.reshape(-1, *taught.shape[2:])).reshape(taught.shape)
        self.pixels = np.concatenate([concepts.pictures, views], axis=1)
        n, P = self.pixels.shape[:2]
        flat = self.pixels.reshape(n * P, 1, *self.pixels.shape[2:])
        features = encode_media(model.frozen, flat, model.config, model.parts)
        visual = model.parts.resample(model.params, [features], model.config)
        self.features = features.reshape(n, P, -1)
        self.visual = visual.reshape(n, P, *visual.shape[1:])


class Prompt(NamedTuple):
    """Examples of W concepts, one query about each, and answers.

    words: of the concepts; examples (W, shots, Y, X, 3); queries (W, Y, X, 3); answers (4, W): the concept that each
    query shows, by the model after one prompt, by an ensemble of prompts, by class means, and by raw pixels.
    """

    words: list[str]
    examples: np.ndarray
    queries: np.ndarray
    answers: np.ndarray


def few_shot_scores(model: TrainedFlamingo, drawn: Drawn, n: int, seed: int = 0) -> dict:
    """Rows of `emoji_report` for all tasks. Every concept is asked equally often, but for some that fill the last
    prompt of a round."""
    rows = {}
    for number, (name, (ways, shots)) in enumerate(TASKS.items(), start=1):
        rng = split_rng("test", STREAM, seed, number)
        concepts = len(drawn.pixels)
        groups = [part for _ in range(-(-n // concepts)) for part in _groups(rng, concepts, ways)]
        jobs = [(group, own, shots) for group, own in zip(groups, rng.spawn(len(groups)), strict=True)]
        prompts = ops.parallel_map(lambda job: ask(model, drawn, *job), jobs)
        one, *others = np.concatenate([p.answers == np.arange(ways) for p in prompts], axis=1)
        beside = zip(("ensemble", "class_means", "neighbours"), others, strict=True)
        rows[name] = summarise(one, rng) | {label: float(hits.mean()) for label, hits in beside}
    return rows


def _groups(rng, concepts, ways):
    """All concepts in random order, in groups of `ways`. A last group that is too small gets others too."""
    order = rng.permutation(concepts)
    whole = len(order) // ways * ways
    groups = [*order[:whole].reshape(-1, ways)]
    return groups + ([order[-ways:]] if whole < len(order) else [])


def ask(model: TrainedFlamingo, drawn: Drawn, concepts: Array, rng: np.random.Generator, shots: int) -> Prompt:
    """`shots` examples of each concept (W,) in random order, then one query about each.

    The ensemble has several prompts with other orders and other words. Their log-likelihoods, normalised over the
    words, are added (paper, appendix A.2).
    """
    examples = np.stack([_examples(rng, shots) for _ in concepts])  # (W, shots) numbers of pictures
    likely, words = zip(*(_likelihoods(model, drawn, concepts, examples, rng) for _ in range(ORDERS)), strict=True)
    support, queries = (concepts[:, None], examples), (concepts, LAST)
    answers = [
        np.argmax(likely[0], axis=1),
        np.argmax(np.sum(likely, axis=0), axis=1),
        _nearest_mean(drawn.features[support], drawn.features[queries]),
        _nearest_pixels(drawn.pixels[support], drawn.pixels[queries]),
    ]
    return Prompt(words[0], drawn.pixels[support], drawn.pixels[queries], np.array(answers))


def _likelihoods(model, drawn, concepts, examples, rng):
    """(log-likelihood (W, W) of each concept's word for each query, the words) after one prompt."""
    W = len(concepts)
    words = [f"{word}." for word in rng.choice(NEW_WORDS, W, replace=False)]
    order = rng.permutation(examples.size)
    ways = order // examples.shape[1]
    shown = drawn.visual[concepts[ways], examples.reshape(-1)[order]]
    visual = np.concatenate([shown, drawn.visual[concepts, LAST]])
    cache, next_token = read_shots(model, [item for way in ways for item in (MEDIUM, words[way])], visual)
    seen = [len(order) + 1 + i for i in range(W)]
    scores = np.array(rank(model, [[MEDIUM]] * W, [words] * W, seen, cache, visual, next_token))
    return normalised(scores), words


def _examples(rng, shots):
    """Numbers of the pictures that are the examples of a concept: by both artists, then a changed view of one."""
    artists = rng.permutation(TAUGHT)
    return np.concatenate([artists, LAST + 1 + artists])[:shots]


def _nearest_mean(support: Array, queries: Array) -> Array:
    """For each query the class with the nearest mean of unit vectors. (W, k, d), (Q, d) -> (Q,)"""
    means, queries = unit_rows(unit_rows(support).mean(axis=1)), unit_rows(queries)
    return np.argmax(queries @ means.T, axis=1)


def _nearest_pixels(support: Array, queries: Array) -> Array:
    """For each query the class of the nearest picture. uint8 (W, k, Y, X, 3), (Q, Y, X, 3) -> (Q,)"""
    return np.argmin(_distances(queries, support), axis=1)


def _distances(queries, support):
    """Squared distances by raw pixels from each query to the nearest picture of each class. -> (Q, W)"""
    W, k = support.shape[:2]
    known, asked = (x.reshape(-1, np.prod(x.shape[-3:])).astype(np.float32) for x in (support, queries))
    return distances(asked, known).reshape(-1, W, k).min(axis=2)


# ---- names -----------------------------------------------------------------------------------


def name_scores(model: TrainedFlamingo, known: Concepts, n: int, seed: int = 0) -> dict:
    """Names of concepts that training saw, drawn by the artist whom it did not see: written, and ranked among others.

    neighbours: the name of the drawing of training that is nearest by raw pixels.
    """
    rng = split_rng("test", STREAM, seed, 0)
    asked = rng.permutation(len(known.names))[:n]
    names = [name_text(name) for name in known.names]
    options = [[i, *rng.choice(np.delete(np.arange(len(names)), i), OPTIONS - 1, replace=False)] for i in asked]
    pictures = known.pictures[asked, LAST][:, None]
    features = encode_media(model.frozen, pictures, model.config, model.parts)
    visual = model.parts.resample(model.params, [features], model.config)
    cache, next_token = read_shots(model, [], visual)
    prompts, seen = [[MEDIUM, "Output:"]] * len(asked), [1 + i for i in range(len(asked))]
    texts = write(model, prompts, seen, cache, visual, ANSWER_TOKENS)
    ranked = rank(model, prompts, [[names[i] for i in o] for o in options], seen, cache, visual, next_token)
    far = _distances(known.pictures[asked, LAST], known.pictures[:, :TAUGHT])  # (asked, concepts)
    near = far.argmin(axis=1) == asked, [np.argmin(row[o]) == 0 for row, o in zip(far, options, strict=True)]
    hits = [text == names[i] for text, i in zip(texts, asked, strict=True)], [np.argmax(s) == 0 for s in ranked]
    labels = "name of a known concept", f"name among {OPTIONS}"
    return {
        label: summarise(np.array(own, float), rng) | {"neighbours": float(np.mean(other))}
        for label, own, other in zip(labels, hits, near, strict=True)
    }
