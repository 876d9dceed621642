"""Answers and questions as arrays, for models that are no language models (chapter §5).

An answer is the word in each of a row of slots, up to an end mark, so that a caption nobody showed can
still be put together, and a closed set of labels is the case of one slot. A question is the set of
its words. Not here: the models (`specialists.py`).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

END = ""  # the word after the last
UNKNOWN = 1e-6  # probability of a word that no example had
CONSTANT = 0.5  # what all questions share, beside what tells them apart, which has length 1


class Answers(NamedTuple):
    """predictions: a text a query; scores: of each of a query's candidates, () where it has none."""

    predictions: list
    scores: list


def best(options, scores):
    """The option with the highest score."""
    return options[int(np.argmax(scores))]


class Slots:
    """The words of the training answers, and texts to numbers and back."""

    def __init__(self, answers):
        self.words = [END, *dict.fromkeys(word for answer in answers for word in answer.split())]
        self.length = 1 + max(len(answer.split()) for answer in answers)
        self._number = {word: i for i, word in enumerate(self.words)}

    def targets(self, answers):
        """The number of the word in each slot: (n, length), of training answers."""
        rows = [[self._number[word] for word in answer.split()] for answer in answers]
        return np.array([row + [self._number[END]] * (self.length - len(row)) for row in rows])

    def text(self, log_probs):
        """The likeliest word of each slot (length, words), up to the first end mark."""
        words = [self.words[i] for i in log_probs.argmax(axis=1)]
        return " ".join(words[: words.index(END)] if END in words else words)

    def score(self, log_probs, answer):
        """Log-probability of an answer, which may have words, and more of them, than any example had."""
        words = answer.split()
        words += [END] * (self.length - len(words))
        known = [(i, self._number[w]) for i, w in enumerate(words[: self.length]) if w in self._number]
        return sum(float(log_probs[place]) for place in known) + np.log(UNKNOWN) * (len(words) - len(known))

    def answers(self, log_probs, candidates):
        """`Answers` of log-probabilities (n, length, words)."""
        scores = [
            [self.score(row, option) for option in options] for row, options in zip(log_probs, candidates, strict=True)
        ]
        predictions = [
            best(options, mine) if options else self.text(row)
            for row, options, mine in zip(log_probs, candidates, scores, strict=True)
        ]
        return Answers(predictions, scores)


def question_words(train_questions, questions):
    """What of the training questions' words stands in each question: (n, W + 1) float32, rows of length 1.

    Words, pairs of words and whole questions count the more the rarer they are in training; what
    stands in every question tells nothing. The last column is a constant, so W may be 0.
    """
    seen_in = Counter(gram for question in train_questions for gram in _grams(question))
    rare = {gram: np.log(len(train_questions) / n) for gram, n in seen_in.items() if n < len(train_questions)}
    place = {gram: i for i, gram in enumerate(rare)}
    table = np.zeros((len(questions), len(rare) + 1), np.float32)
    for row, question in zip(table, questions, strict=True):
        for gram in _grams(question) & place.keys():
            row[place[gram]] = rare[gram]
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.float32(1e-6))
    table[:, -1] = CONSTANT
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def _grams(question):
    words = question.split()
    return {*words, *zip(words, words[1:], strict=False), question}


def log_softmax(logits):
    """Log-probabilities over the last axis."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
