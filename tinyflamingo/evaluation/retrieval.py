"""Which shots a prompt gets, and in what order: RICES and prompt ensembling (chapter §5).

Retrieval-based in-context example selection (Yang et al. 2022; paper, appendix A.2): the examples
most similar to the query, the most similar last, next to it. Ensembling: one score from several
orders of the same shots. Pure functions of arrays.

Not here: prompts themselves and who scores them.
"""

from __future__ import annotations

import math

import numpy as np


def rices(support, queries, k):
    """The k examples most similar to each query: support (n, D), queries (q, D) -> indices (q, k).

    By cosine of frozen features; the most similar comes LAST, of equal ones the first in the
    support. Raises ValueError if there are fewer than k examples.
    """
    if not 0 <= k <= len(support):
        raise ValueError(f"rices: {k} shots of {len(support)} examples")
    likeness = _unit(queries) @ _unit(support).T
    return np.argsort(-likeness, axis=1, kind="stable")[:, :k][:, ::-1]


def _unit(x):
    """Rows of length 1; a row of zeros stays."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))


def pooled(features):
    """Features (n, F, S, Dv) to one row each (n, Dv): the mean over frames and places."""
    return features.mean(axis=(1, 2))


def permutations(rng, k, times):
    """Orders of k shots, (m, k): `times` different ones at random, the paper's 6; all of them if there are fewer."""
    found = {}  # keeps the order in which they were drawn
    while len(found) < min(times, math.factorial(k)):
        found[tuple(int(i) for i in rng.permutation(k))] = None
    return np.array(list(found), int).reshape(len(found), k)


def ensemble(log_likelihoods):
    """Scores of candidates under several orders of the shots, (times, ...), to one each: the mean log-likelihood."""
    return np.mean(log_likelihoods, axis=0)
