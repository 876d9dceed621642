"""Scores of answers: one number a query, then a mean with a 95% interval (chapter §5).

Exact match, VQA accuracy (Antol et al. 2015), CIDEr-D (Vedantam et al. 2015, as pycocoevalcap has
it), top-1 and ROC AUC. A metric gives one score a query, so that any mean can say how sure it is:
Wilson's interval for scores that are 0 or 1, a bootstrap over queries for others, Student's t over
the few seeds of a training.

Not here: who answers (`evaluation/run.py`, `evaluation/specialists.py`).
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from tinyflamingo.data.tinyworld.language import NUMBERS

RESAMPLES = 1000
Z = 1.96  # of a 95% interval
# Student's t for 95%, by degrees of freedom from 1 on; beyond, `_student` expands around the normal.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
LONGEST_GRAM, LENGTH_SIGMA = 4, 6.0  # CIDEr-D


# ---------------------------------------------------------------- one score a query


def exact_match(predictions, answers):
    """1 where a prediction is the first of its answers, character by character, else 0. (n,)"""
    return np.array([float(p == a[0]) for p, a in _pairs(predictions, answers)])


def top_1(predictions, answers):
    """1 where a prediction is any of its answers, after `normalise`. (n,)"""
    return np.array([float(normalise(p) in map(normalise, a)) for p, a in _pairs(predictions, answers)])


def vqa_accuracy(predictions, answers):
    """min(people who said so / 3, 1), averaged over all ways to leave one person out. (n,)

    answers: for each query what people said, ten of them in the data sets (Antol et al. 2015). With
    a single answer nobody can be left out, and it counts in full.
    """
    return np.array([_vqa_score(normalise(p), [normalise(x) for x in a]) for p, a in _pairs(predictions, answers)])


def _vqa_score(prediction, people):
    if len(people) == 1:
        return float(prediction == people[0])
    same = [person == prediction for person in people]
    return float(np.mean([min((sum(same) - own) / 3, 1.0) for own in same]))


def normalise(text: str) -> str:
    """An answer as VQA compares it: lower case, no punctuation, no articles, small numbers as digits.

    A mark between two letters becomes a space, any other goes; a point or comma inside a number stays
    out of the way ("1,000" is 1000, "2.5" is 2.5); apostrophes go, so "dont" and "don't" are one.
    """
    text = re.sub(r"(?<=\d),(?=\d)|'|(?<!\d)\.|\.(?!\d)", "", text.lower())
    words = re.sub(r"[^\w.]|_", " ", text).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in ("a", "an", "the"))


_DIGITS = {"none": "0", "zero": "0"} | {word: str(i) for i, word in enumerate(NUMBERS[:11]) if i}


def cider_d(predictions, answers):
    """CIDEr-D of every prediction against its references, from 0 to 10. (n,)

    Texts are compared as they are cut at spaces: tokenise them before. How rare an n-gram is, is
    counted over the references of all queries, so a score depends on the company it is in. Equal to
    `Cider` of pycocoevalcap 1.2, which measures lengths in pairs of words; so do we.
    """
    pairs = _pairs(predictions, answers)
    references = [[_grams(text) for text in texts] for _, texts in pairs]
    seen_in = Counter(gram for grams in references for gram in set().union(*grams))
    weigh = {gram: np.log(len(pairs)) - np.log(n) for gram, n in seen_in.items()}
    rarest = np.log(len(pairs)) if pairs else 0.0

    def vectors(grams):
        return [
            {g: n * weigh.get(g, rarest) for g, n in grams.items() if len(g) == size}
            for size in range(1, LONGEST_GRAM + 1)
        ]

    scores = []
    for (prediction, _), grams in zip(pairs, references, strict=True):
        said = _grams(prediction)
        likeness = [_likeness(said, vectors(said), other, vectors(other)) for other in grams]
        scores.append(10.0 * float(np.mean(likeness)))
    return np.array(scores)


def _grams(text):
    """How often each run of one to four words stands in a text."""
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST_GRAM + 1) for i in range(len(words) - n + 1))


def _likeness(said, said_vectors, meant, meant_vectors):
    """Mean over n of the clipped cosine, less where lengths differ (Vedantam et al. 2015, section 4)."""
    pairs_of_words = [sum(n for gram, n in grams.items() if len(gram) == 2) for grams in (said, meant)]
    penalty = np.exp(-((pairs_of_words[0] - pairs_of_words[1]) ** 2) / (2 * LENGTH_SIGMA**2))
    cosines = []
    for ours, theirs in zip(said_vectors, meant_vectors, strict=True):
        product = sum(min(w, theirs[g]) * theirs[g] for g, w in ours.items() if g in theirs)
        lengths = [np.sqrt(sum(w * w for w in vector.values())) for vector in (ours, theirs)]
        cosines.append(product / np.prod(lengths) if all(lengths) else product)
    return penalty * np.mean(cosines)


def _pairs(predictions, answers):
    """Predictions beside their answers, tuples of at least one string."""
    pairs = list(zip(predictions, answers, strict=True))
    if any(isinstance(a, str) or not a for _, a in pairs):
        raise ValueError("answers: each must be a non-empty tuple of strings")
    return pairs


METRICS = {"exact match": exact_match, "VQA accuracy": vqa_accuracy, "CIDEr-D": cider_d, "top-1": top_1}


def auc(margins, labels) -> float:
    """Area under the ROC curve: how often a positive has a larger margin than a negative; ties count half.

    margins (n,) float; labels (n,) bool. Raises ValueError without both kinds of labels.
    """
    margins, labels = np.asarray(margins, float), np.asarray(labels, bool)
    positives, negatives = np.sort(margins[labels]), margins[~labels]
    if not len(positives) or not len(negatives):
        raise ValueError("auc: there must be positives and negatives")
    below, up_to = (np.searchsorted(positives, negatives, side) for side in ("left", "right"))
    return float(1 - np.mean(below + up_to) / (2 * len(positives)))


# ---------------------------------------------------------------- means and their intervals


def summarise(scores, rng) -> dict:
    """{"score", "ci95", "n"} of one score a query: the mean with its 95% interval."""
    scores = np.asarray(scores, float)
    if np.isin(scores, (0.0, 1.0)).all():
        score, ci95 = interval(scores)
        return {"score": score, "ci95": ci95, "n": len(scores)}
    means = [scores[rng.integers(len(scores), size=len(scores))].mean() for _ in range(RESAMPLES)]
    return {"score": float(scores.mean()), "ci95": _middle(means), "n": len(scores)}


def summarise_auc(margins, labels, rng) -> dict:
    """{"score", "ci95", "n"} of `auc`, by a bootstrap within the positives and within the negatives."""
    margins, labels = np.asarray(margins, float), np.asarray(labels, bool)
    kinds = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    drawn = (np.concatenate([rng.choice(kind, len(kind)) for kind in kinds]) for _ in range(RESAMPLES))
    return {
        "score": auc(margins, labels),
        "ci95": _middle([auc(margins[i], labels[i]) for i in drawn]),
        "n": len(labels),
    }


def _middle(values):
    """What the middle 95% of resampled values span."""
    return [float(x) for x in np.percentile(values, (2.5, 97.5))]


def interval(hits):
    """Mean of 0/1 scores with its 95% Wilson interval."""
    n, p, z = len(hits), float(np.mean(hits)), Z
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def over_seeds(scores) -> dict:
    """{"score", "ci95", "n"} of one score a seed: the mean with Student's 95% interval, None for one seed.

    No bootstrap: resampling three numbers never leaves their range, which holds the true mean only
    three times in four.
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
