"""Invented words from pictures in the prompt: by shots, by ways, and for shapes never drawn (chapter §5).

The paper's classification by few shots at toy scale. Words stand in no training text; with `UNSEEN`
the shapes too are ones that no training stage has drawn. Open-ended: the model writes the word.

Not here: the sixteen tasks (`evaluation/suite.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import Medium, draw_pool, split_rng
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, KNOWN, pick, sample_single
from tinyflamingo.data.tinyworld.shapes import UNNAMED
from tinyflamingo.data.tinyworld.text import RULES, sample_classes, shot_order
from tinyflamingo.evaluation.metrics import exact_match, summarise
from tinyflamingo.evaluation.run import decode_batch
from tinyflamingo.training.flamingo_stage import MediaFeatures

STREAM = 20260105
UNSEEN = tuple((shape, colour) for shape in UNNAMED for colour in COLOUR_NAMES)
TOKENS = 8000  # of the prompts that are decoded side by side


@dataclass(frozen=True)
class Words:
    """One measurement: classes, shots a class, and the things they are made of."""

    ways: int = 2
    shots: int = 4
    things: tuple = KNOWN
    rules: tuple = RULES  # what classes may differ in: one of these in each episode


# name: (ways, things, rules, shots a class of each measurement)
CURVE = {"2way": (2, KNOWN, RULES, (1, 2, 4, 8, 16, 32))}
CURVE |= {"unseen_shapes": (2, UNSEEN, ("shape",), (1, 2, 4, 8, 16, 32))}
CURVE |= {"5way": (5, KNOWN, RULES, (1, 4))} | {f"5way_{rule}": (5, KNOWN, (rule,), (4,)) for rule in RULES}
CURVE |= {"8way": (8, KNOWN, RULES, (1, 4))} | {f"8way_{rule}": (8, KNOWN, (rule,), (4,)) for rule in RULES}


def few_shot_words(model, seed=0, n=500) -> dict:
    """{name: {shots a class: {"score", "ci95", "n"}}} for all of `CURVE`."""
    asked = [(name, Words(w, k, t, rules)) for name, (w, t, rules, shots) in CURVE.items() for k in shots]
    found = ops.parallel_map(lambda one: measure(model, one[1], split_rng("test", STREAM, seed, *_key(one)), n), asked)
    report = {name: {} for name in CURVE}
    for (name, words), score in zip(asked, found, strict=True):
        report[name][str(words.shots)] = score
    return report


def _key(one):
    return list(CURVE).index(one[0]), one[1].shots


def measure(model, words: Words, rng, n) -> dict:
    """n fresh episodes -> {"score", "ci95", "n"}."""
    scenes, prompts, answers = [], [], []
    for _ in range(n):
        prompt, answer = _episode(rng, words, scenes)
        prompts.append(prompt)
        answers.append((answer,))
    features = MediaFeatures(model.frozen, draw_pool(rng, scenes), model.config)
    side = max(1, TOKENS // (5 * words.ways * words.shots))
    texts = [t for i in range(0, n, side) for t in decode_batch(model, prompts[i : i + side], features)]
    return summarise(exact_match(texts, answers), rng)


def _episode(rng, words: Words, scenes):
    """A prompt of media and words, and the word that is right; what it shows joins `scenes`."""
    classes = sample_classes(rng, words.ways, words.things, words.rules)[1]
    names = [f"{w}." for w in rng.choice(say.NEW_WORDS, size=words.ways, replace=False)]
    prompt, target = [], int(rng.integers(words.ways))
    for way in (*shot_order(rng, words.ways, words.ways * words.shots), target):
        scenes.append(sample_single(rng, (pick(rng, classes[way]),)))
        prompt += [Medium("picture", len(scenes) - 1), names[way]]
    return prompt[:-1], names[target]


def means_rise(curve) -> bool:
    """Does every mean reach the one before it, minus 0.01?"""
    scores = np.array([row["score"] for _, row in sorted(curve.items(), key=lambda item: int(item[0]))])
    return bool((np.diff(scores) >= -0.01).all())
