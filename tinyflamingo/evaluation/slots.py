"""Answers and questions as arrays, for the specialists that classify (chapter §5).

An answer is a row of slots with a word in each, up to an end mark. So a caption that no example had can be put
together; a closed set of labels is the case of one slot. A question is the set of its words.

Not here: the models (`specialists.py`).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from tinyflamingo.ops.types import Array

END = ""  # the word after the last
UNKNOWN = 1e-6  # probability of a word that no example had
CONSTANT = 0.5  # value of the column that all questions share; the part that tells them apart has length 1


class Answers(NamedTuple):
    """predictions: a text for each query; scores: one for each candidate of each query, [] without candidates."""

    predictions: list
    scores: list


def best(options: list, scores: list) -> str:
    """The option with the highest score."""
    return options[int(np.argmax(scores))]


class Slots:
    """The words of the training answers; texts to numbers and back."""

    def __init__(self, answers: list):
        self.words = [END, *dict.fromkeys(word for answer in answers for word in answer.split())]
        self.length = 1 + max(len(answer.split()) for answer in answers)
        self._number = {word: i for i, word in enumerate(self.words)}

    def targets(self, answers: list) -> Array:
        """The number of the word in each slot of training answers: (n, length)."""
        rows = [[self._number[word] for word in answer.split()] for answer in answers]
        return np.array([row + [self._number[END]] * (self.length - len(row)) for row in rows])

    def text(self, log_probs: Array) -> str:
        """The likeliest word of each slot (length, words), up to the first end mark."""
        words = [self.words[i] for i in log_probs.argmax(axis=1)]
        return " ".join(words[: words.index(END)] if END in words else words)

    def score(self, log_probs: Array, answer: str) -> float:
        """Log-probability of an answer. Unknown words, and words after the last slot, have probability UNKNOWN."""
        words = answer.split()
        words += [END] * (self.length - len(words))
        known = [(i, self._number[w]) for i, w in enumerate(words[: self.length]) if w in self._number]
        return sum(float(log_probs[place]) for place in known) + np.log(UNKNOWN) * (len(words) - len(known))

    def answers(self, log_probs: Array, candidates: list) -> Answers:
        """`Answers` of log-probabilities (n, length, words)."""
        scores = [
            [self.score(row, option) for option in options] for row, options in zip(log_probs, candidates, strict=True)
        ]
        predictions = [
            best(options, row_scores) if options else self.text(row)
            for row, options, row_scores in zip(log_probs, candidates, scores, strict=True)
        ]
        return Answers(predictions, scores)


def question_words(train_questions: list, questions: list) -> Array:
    """Which words of the training questions occur in each question: (n, W + 1) float32, rows of length 1.

    Words, pairs of words and whole questions have a weight that rises with their rarity in training; what all training
    questions share has no column. The last column is a constant, so W may be 0.
    """
    questions_with = Counter(gram for question in train_questions for gram in _grams(question))
    n = len(train_questions)
    weights = {gram: np.log(n / times) for gram, times in questions_with.items() if times < n}
    column = {gram: i for i, gram in enumerate(weights)}
    table = np.zeros((len(questions), len(weights) + 1), np.float32)
    for row, question in zip(table, questions, strict=True):
        for gram in _grams(question).keys() & column.keys():
            row[column[gram]] = weights[gram]
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.float32(1e-6))
    table[:, -1] = CONSTANT
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def _grams(question):
    """Words, pairs of words and the question, as a dict: the order of a set differs between two runs."""
    words = question.split()
    return dict.fromkeys([*words, *zip(words, words[1:], strict=False), question])


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
