"""Invented words from pictures in the prompt: by shots, by ways, and for shapes never drawn (chapter §5).

The paper's few-shot classification at toy scale. The words occur in no training text; the shapes of `UNSEEN` are drawn
in no training stage. Open-ended: the model writes the word.

Not here: the tasks of the suite (`evaluation/suite.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import draw_pool, split_rng
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, KNOWN
from tinyflamingo.data.tinyworld.shapes import UNNAMED
from tinyflamingo.data.tinyworld.text import RULES
from tinyflamingo.evaluation.metrics import exact_match, summarise
from tinyflamingo.evaluation.run import decode_batch
from tinyflamingo.evaluation.tasks import Query, word_episode
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.training.flamingo_stage import MediaFeatures

STREAM = 20260105  # the test streams of this measurement; no other code uses the number
UNSEEN = tuple((shape, colour) for shape in UNNAMED for colour in COLOUR_NAMES)
TOKENS = 8000  # of the prompts that are decoded side by side


@dataclass(frozen=True)
class Words:
    """One measurement: classes, shots of each class, and the things that make up the classes."""

    ways: int = 2
    shots: int = 4
    things: tuple = KNOWN
    rules: tuple = RULES  # properties in which classes may differ; each episode takes one


CURVES = {  # name: one measurement for each number of shots
    "2way": [Words(2, k) for k in (1, 2, 4, 8, 16, 32)],
    "unseen_shapes": [Words(2, k, UNSEEN, ("shape",)) for k in (1, 2, 4, 8, 16, 32)],
}
for n_ways in (5, 8):
    CURVES[f"{n_ways}way"] = [Words(n_ways, k) for k in (1, 4)]
    CURVES |= {f"{n_ways}way_{rule}": [Words(n_ways, rules=(rule,))] for rule in RULES}


def few_shot_words(model: TrainedFlamingo, seed: int = 0, n: int = 500) -> dict:
    """{name: {shots of each class: {"score", "ci95", "n"}}} for all of `CURVES`."""
    jobs = [(i, name, words) for i, (name, curve) in enumerate(CURVES.items()) for words in curve]

    def run(job):
        i, _, words = job
        return measure(model, words, split_rng("test", STREAM, seed, i, words.shots), n)

    report: dict = {name: {} for name in CURVES}
    for (_, name, words), score in zip(jobs, ops.parallel_map(run, jobs), strict=True):
        report[name][str(words.shots)] = score
    return report


def measure(model: TrainedFlamingo, words: Words, rng: np.random.Generator, n: int) -> dict:
    """n fresh episodes -> {"score", "ci95", "n"}."""
    scenes: list = []
    queries = [episode(rng, words, scenes) for _ in range(n)]
    features = MediaFeatures(model.frozen, draw_pool(rng, scenes, side=model.config.vision.side), model.config)
    prompts, batch = [q.prompt for q in queries], max(1, TOKENS // (5 * words.ways * words.shots))
    texts = [t for i in range(0, n, batch) for t in decode_batch(model, prompts[i : i + batch], features)]
    return summarise(exact_match(texts, [(q.answer,) for q in queries]), rng)


def episode(rng: np.random.Generator, words: Words, scenes: list) -> Query:
    """One episode of a measurement; its scenes are appended to `scenes`."""
    return word_episode(rng, scenes, say.NEW_WORDS, words.ways, words.shots, words.things, words.rules)


def means_rise(curve: dict) -> bool:
    """True if no mean is more than 0.01 below the mean before it."""
    scores = np.array([row["score"] for _, row in sorted(curve.items(), key=lambda item: int(item[0]))])
    return bool((np.diff(scores) >= -0.01).all())
