"""Few-shot classification of the user's own pictures: one example of each of 2 or 5 classes, with invented words.

Chapter §5; paper section 3.1. The words are of no training text, so only the prompt says what they mean. Beside each
score: the same with another record's picture in place of the asked one, and the nearest of the examples by raw pixels.

Not here: the episodes of training (`episodes.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.language import NEW_WORDS
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.evaluation.few_shot import MEDIUM, rank, read_shots
from tinyflamingo.evaluation.metrics import summarise
from tinyflamingo.evaluation.retrieval import distances
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.own_data.questions import Question, others, small_pixels

STREAM = 20261129  # of the test streams of this measurement; no other code uses the number
WAYS = 2, 5
EPISODES = 2  # of each asked picture, with other examples and other classes


def examples_by_class(known: list[Question], asked: list[Question]) -> dict[int, list[Question]]:
    """{class: its examples}: of training, or of what is asked if training has none of any asked class."""
    labels = {q.label for q in asked} - {-1}
    pool = known if labels & {q.label for q in known} else asked
    classes: dict[int, list] = {}
    for q in pool:
        if q.label >= 0:
            classes.setdefault(q.label, []).append(q)
    return classes


def ways_scores(model: TrainedFlamingo, known: list[Question], asked: list[Question], visual_of, seed: int = 0) -> dict:
    """{"2-way 1-shot": row, "5-way 1-shot": row}, each only if the data have enough classes.

    visual_of: questions -> visual tokens of their media. A row: {"score", "ci95", "n", "another", "neighbours"}.
    """
    classes = examples_by_class(known, asked)
    other = dict(zip(map(id, asked), (asked[j] for j in others(asked)), strict=True)) if len(asked) > 1 else {}
    fitting = [q for q in asked if id(q) in other and _examples(classes, q)]
    rows = {}
    for ways in WAYS:
        if len(classes) < ways or not fitting:
            continue
        rng = split_rng("test", STREAM, seed, ways)
        jobs = [(q, other[id(q)], classes, ways, rng.spawn(EPISODES)) for q in fitting]
        hits = ops.parallel_map(lambda job: _asked(model, visual_of, *job), jobs)
        own, another, neighbours = np.array(hits).T
        more = {"another": float(another.mean()), "neighbours": float(neighbours.mean())}
        rows[f"{ways}-way 1-shot"] = summarise(own, rng) | more
    return rows


def _examples(classes, question):
    """Examples of the question's class that show another picture."""
    return [
        e for e in classes.get(question.label, ()) if e.store is not question.store or e.picture != question.picture
    ]


def _asked(model, visual_of, question, other, classes, ways, generators):
    """Mean hits of some episodes about a question: with its picture, with another one, by raw pixels."""
    return np.mean([_episode(model, visual_of, question, other, classes, ways, rng) for rng in generators], axis=0)


def _episode(model, visual_of, question, other, classes, ways, rng):
    wrong = [label for label in classes if label != question.label]
    chosen = [question.label, *(wrong[i] for i in rng.choice(len(wrong), ways - 1, replace=False))]
    own = _examples(classes, question)
    pools = [own, *(classes[label] for label in chosen[1:])]
    order = rng.permutation(ways)
    examples = [pools[i][int(rng.integers(len(pools[i])))] for i in order]
    words = [f"{word}." for word in rng.choice(NEW_WORDS, ways, replace=False)]
    right = int(np.flatnonzero(order == 0)[0])
    visual = visual_of([*examples, question, other])
    cache, next_token = read_shots(model, [item for word in words for item in (MEDIUM, word)], visual)
    scores = rank(model, [[MEDIUM]] * 2, [words] * 2, [ways + 1, ways + 2], cache, visual, next_token)
    nearest = distances(small_pixels([question]), small_pixels(examples))[0].argmin()
    return [float(np.argmax(s) == right) for s in scores] + [float(nearest == right)]
