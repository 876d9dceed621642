"""Scores of answers: one number for each query, then the mean with a 95% interval (chapter §5).

Metrics: exact match, VQA accuracy (Antol et al. 2015), CIDEr-D (Vedantam et al. 2015) and ROC AUC. Intervals: Wilson's
for scores that are 0 or 1, a bootstrap over queries for other scores, Student's t over the few seeds of a training.

Not here: the models that answer (`evaluation/run.py`, `evaluation/specialists.py`).
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from tinyflamingo.data.tinyworld.language import NUMBERS
from tinyflamingo.errors import UserError
from tinyflamingo.ops.types import Array

RESAMPLES = 1000  # of a bootstrap
Z = 1.96  # of a 95% interval
# Student's t for 95%, by degrees of freedom from 1 on; beyond, `_student` expands around the normal distribution.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
LONGEST_GRAM, LENGTH_SIGMA = 4, 6.0  # CIDEr-D


def checked(numbers: Array) -> Array:
    """Numbers that a score depends on. `UserError` if one is NaN or infinite: there is no score then."""
    if not np.isfinite(numbers).all():
        raise UserError("the model gives NaN or infinite numbers, so it has no score: use another checkpoint")
    return numbers


# ---------------------------------------------------------------- one score for each query


def exact_match(predictions: list, answers: list) -> Array:
    """1 where a prediction is the first of its answers, character by character, else 0. (n,)"""
    return np.array([float(p == a[0]) for p, a in _pairs(predictions, answers)])


def vqa_accuracy(predictions: list, answers: list) -> Array:
    """min(people who gave this answer / 3, 1), averaged over all ways to leave one person out. (n,)

    answers: the answers of all people to each query, ten in the data sets (Antol et al. 2015). A single answer counts
    in full: nobody can be left out.
    """
    return np.array([_vqa_score(normalise(p), [normalise(x) for x in a]) for p, a in _pairs(predictions, answers)])


def _vqa_score(prediction, people):
    if len(people) == 1:
        return float(prediction == people[0])
    same = [person == prediction for person in people]
    return float(np.mean([min((sum(same) - own) / 3, 1.0) for own in same]))


def normalise(text: str) -> str:
    """An answer as VQA compares it: lower case, no punctuation, no articles, small numbers as digits.

    A mark between two letters becomes a space; other marks are removed. Inside a number a comma is removed and a point
    stays ("1,000" is 1000, "2.5" is 2.5). Apostrophes are removed: "dont" and "don't" are the same.
    """
    text = re.sub(r"(?<=\d),(?=\d)|'|(?<!\d)\.|\.(?!\d)", "", text.lower())
    words = re.sub(r"[^\w.]|_", " ", text).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in ("a", "an", "the"))


_DIGITS = {"none": "0", "zero": "0"} | {word: str(i) for i, word in enumerate(NUMBERS[:11]) if i}


def cider_d(predictions: list, answers: list) -> Array:
    """CIDEr-D of every prediction against its references, from 0 to 10; equal to pycocoevalcap 1.2. (n,)

    Texts are split at spaces: tokenise them first. The weight of an n-gram falls with the number of queries whose
    references have it, so a score depends on the other queries too.
    """
    pairs = _pairs(predictions, answers)
    references = [[_grams(text) for text in texts] for _, texts in pairs]
    queries_with = Counter(gram for grams in references for gram in set().union(*grams))
    weights = {gram: np.log(len(pairs)) - np.log(n) for gram, n in queries_with.items()}
    rarest = np.log(len(pairs)) if pairs else 0.0

    def vectors(grams):
        """Counts times weights, one dict for each length of n-grams."""
        return [
            {g: n * weights.get(g, rarest) for g, n in grams.items() if len(g) == size}
            for size in range(1, LONGEST_GRAM + 1)
        ]

    scores = []
    for (prediction, _), grams in zip(pairs, references, strict=True):
        own = _grams(prediction)
        scores.append(10.0 * float(np.mean([_similarity(own, reference, vectors) for reference in grams])))
    return np.array(scores)


def _grams(text):
    """How often each sequence of one to four words occurs in a text."""
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST_GRAM + 1) for i in range(len(words) - n + 1))


def _similarity(grams, reference, vectors):
    """Mean over n of the clipped cosine, lower where lengths differ (Vedantam et al. 2015, section 4).

    pycocoevalcap measures the length of a text in pairs of words; so does this function.
    """
    lengths = [sum(n for gram, n in counts.items() if len(gram) == 2) for counts in (grams, reference)]
    penalty = np.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * LENGTH_SIGMA**2))
    cosines = []
    for x, y in zip(vectors(grams), vectors(reference), strict=True):
        product = sum(min(weight, y[g]) * y[g] for g, weight in x.items() if g in y)
        norms = [np.sqrt(sum(w * w for w in vector.values())) for vector in (x, y)]
        cosines.append(product / np.prod(norms) if all(norms) else product)
    return penalty * np.mean(cosines)


def _pairs(predictions, answers):
    """Predictions beside their answers, tuples of at least one string."""
    pairs = list(zip(predictions, answers, strict=True))
    if any(isinstance(a, str) or not a for _, a in pairs):
        raise ValueError("answers: each must be a non-empty tuple of strings")
    return pairs


METRICS = {"exact match": exact_match, "VQA accuracy": vqa_accuracy, "CIDEr-D": cider_d}


def auc(margins: Array, labels: Array) -> float:
    """Area under the ROC curve: how often a positive has a larger margin than a negative; ties count half.

    margins (n,) float; labels (n,) bool. Raises ValueError if all labels are equal.
    """
    margins, labels = np.asarray(margins, float), np.asarray(labels, bool)
    positives, negatives = np.sort(margins[labels]), margins[~labels]
    if not len(positives) or not len(negatives):
        raise ValueError("auc: there must be positives and negatives")
    below = np.searchsorted(positives, negatives, "left")
    up_to = np.searchsorted(positives, negatives, "right")
    return float(1 - np.mean(below + up_to) / (2 * len(positives)))


# ---------------------------------------------------------------- means and their intervals


def summarise(scores: Array, rng: np.random.Generator) -> dict:
    """{"score", "ci95", "n"} of one score for each query: the mean with its 95% interval."""
    scores = np.asarray(scores, float)
    n = len(scores)
    if np.isin(scores, (0.0, 1.0)).all():
        score, ci95 = interval(scores)
    else:
        score, ci95 = float(scores.mean()), _middle([scores[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)])
    return {"score": score, "ci95": ci95, "n": n}


def summarise_auc(margins: Array, labels: Array, rng: np.random.Generator) -> dict:
    """{"score", "ci95", "n"} of `auc`, by a bootstrap within the positives and within the negatives."""
    margins, labels = np.asarray(margins, float), np.asarray(labels, bool)
    kinds = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    samples = (np.concatenate([rng.choice(kind, len(kind)) for kind in kinds]) for _ in range(RESAMPLES))
    ci95 = _middle([auc(margins[i], labels[i]) for i in samples])
    return {"score": auc(margins, labels), "ci95": ci95, "n": len(labels)}


def _middle(values):
    """Both ends of the middle 95% of resampled values."""
    return [float(x) for x in np.percentile(values, (2.5, 97.5))]


def interval(hits: Array) -> tuple[float, list[float]]:
    """Mean of 0/1 scores with its 95% Wilson interval."""
    n, p, z = len(hits), float(np.mean(hits)), Z
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def over_seeds(scores: Array) -> dict:
    """{"score", "ci95", "n"} of one score for each seed: the mean with Student's 95% interval, None for one seed.

    No bootstrap: resampled means of three numbers stay between the smallest and the largest, and that range holds the
    true mean only three times in four.
    """
    scores = np.asarray(scores, float)
    n, mean = len(scores), float(np.mean(scores))
    if n == 1:
        return {"score": mean, "ci95": None, "n": 1}
    half = _student(n - 1) * float(scores.std(ddof=1)) / n**0.5
    return {"score": mean, "ci95": [mean - half, mean + half], "n": n}


def _student(freedom):
    """The 97.5% point of Student's t."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
