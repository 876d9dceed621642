"""Which examples become shots, and in what order: RICES and the orders of an ensemble (chapter §5).

Retrieval-based in-context example selection (Yang et al. 2022; paper, appendix A.2) takes the examples most similar to
the query and puts the most similar last, next to the query. An ensemble scores candidates under several orders of the
same shots. Both are pure functions of arrays.

Not here: prompts and scores (`evaluation/few_shot.py`).
"""

from __future__ import annotations

import math

import numpy as np

from tinyflamingo.ops.types import Array


def rices(support: Array, queries: Array, k: int) -> Array:
    """The k examples most similar to each query: support (n, D), queries (q, D) -> indices (q, k).

    Similarity: cosine of frozen features. The most similar comes LAST; of equal ones the earlier in the support counts
    as more similar. Raises ValueError if there are fewer than k examples.
    """
    if not 0 <= k <= len(support):
        raise ValueError(f"rices: {k} shots of {len(support)} examples")
    similarity = unit_rows(queries) @ unit_rows(support).T
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k][:, ::-1]


def unit_rows(x: Array) -> Array:
    """Vectors (..., D) scaled to length 1; a vector of zeros stays."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))


def distances(asked: Array, known: Array) -> Array:
    """Squared distances (n, m) of the rows of (n, d) and (m, d)."""
    squares = (asked**2).sum(axis=1)[:, None] + (known**2).sum(axis=1)[None]
    return squares - 2 * asked @ known.T


def pooled(features: Array) -> Array:
    """The mean of features (n, F, S, Dv) over frames and cells: (n, Dv)."""
    return features.mean(axis=(1, 2))


def permutations(rng: np.random.Generator, k: int, times: int) -> Array:
    """`times` different random orders of k shots, (m, k); all k! orders if there are fewer. The paper takes 6."""
    orders: dict = {}  # a dict keeps the order in which they were drawn
    while len(orders) < min(times, math.factorial(k)):
        orders[tuple(int(i) for i in rng.permutation(k))] = None
    return np.array(list(orders), int).reshape(len(orders), k)
