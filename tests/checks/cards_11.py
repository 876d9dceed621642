"""Wrong answers to the exercises of notebook 11, and the hints they must get."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_11_1_wilson,
    check_11_2_classify,
    check_11_3_probe_gradient,
    check_11_4_rices,
)
from tinyflamingo.evaluation.metrics import interval


def standard_errors(hits, z=1.96):
    s, n = np.mean(hits), len(hits)
    return s - z * np.sqrt(s * (1 - s) / n), s + z * np.sqrt(s * (1 - s) / n)


def right_middle_only(hits, z=1.96):
    s, n = np.mean(hits), len(hits)
    middle, half = (s + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(s * (1 - s) / n) / (1 + z * z / n)
    return middle - half, middle + half


def always_95(hits, z=1.96):
    return interval(hits)[1]


def turned(hits, z=1.96):
    return interval(hits)[1][::-1]


def squares(a, b):
    return np.sum((a[:, None] - b) ** 2, axis=-1)


def means(support, labels):
    return np.stack([support[labels == c].mean(axis=0) for c in range(labels.max() + 1)])


def neighbour(support, labels, queries):
    return labels[squares(queries, support).argmin(-1)]


def sums(support, labels, queries):
    totals = np.stack([support[labels == c].sum(axis=0) for c in range(labels.max() + 1)])
    return squares(queries, totals).argmin(-1)


def farthest(support, labels, queries):
    return squares(queries, means(support, labels)).argmax(-1)


def dot_product(support, labels, queries):
    return (queries @ means(support, labels).T).argmax(-1)


def gradient(X, labels, W, decay, stable=True):
    scores = X @ W
    P = np.exp(scores - (scores.max(axis=1, keepdims=True) if stable else 0))
    P = P / P.sum(axis=1, keepdims=True)
    return X.T @ (P - np.eye(W.shape[1])[labels]) / len(X), decay * W


def no_mean(X, labels, W, decay):
    data, decayed = gradient(X, labels, W, decay)
    return len(X) * data + decayed


def no_decay(X, labels, W, decay):
    return gradient(X, labels, W, decay)[0]


def uphill(X, labels, W, decay):
    return -sum(gradient(X, labels, W, decay))


def overflowing(X, labels, W, decay):
    return sum(gradient(X, labels, W, decay, stable=False))


def transposed(X, labels, W, decay):
    return sum(gradient(np.hstack([X, X]), labels, np.vstack([W, W]), decay)).T


def cosines(query, support):
    return support @ query / np.linalg.norm(support, axis=1)


def most_similar_first(query, support, k):
    return np.argsort(-cosines(query, support))[:k]


def least_similar(query, support, k):
    return np.argsort(cosines(query, support))[:k]


def lengths_count(query, support, k):
    return np.argsort(support @ query)[-k:]


def by_distance(query, support, k):
    return np.argsort(-np.sum((support - query) ** 2, axis=1))[-k:]


def similarities(query, support, k):
    return np.sort(cosines(query, support))[-k:]


CARDS = [
    Card(
        "11.1",
        check_11_1_wilson,
        wrong=[
            (standard_errors, "z standard errors"),
            (right_middle_only, "under the root"),
            (always_95, "z is not used"),
            (turned, "low comes first"),
        ],
    ),
    Card(
        "11.2",
        check_11_2_classify,
        wrong=[
            (neighbour, "nearest single example"),
            (sums, "A prototype is a mean"),
            (farthest, "largest distance"),
            (dot_product, "dot product is not"),
        ],
    ),
    Card(
        "11.3",
        check_11_3_probe_gradient,
        wrong=[
            (no_mean, "divide by n"),
            (no_decay, "decay has a gradient"),
            (uphill, "makes the loss larger"),
            (transposed, r"\(D, C\)"),
        ],
        right=[overflowing],
    ),
    Card(
        "11.4",
        check_11_4_rices,
        wrong=[
            (most_similar_first, "belongs last"),
            (least_similar, "least similar"),
            (lengths_count, "Long features won"),
            (by_distance, "asks for the angle"),
            (similarities, "return indices"),
        ],
    ),
]
