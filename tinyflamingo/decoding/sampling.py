"""Sampling: the next token is drawn at random, with the model's probabilities (chapter §5).

Temperature, top-k and top-p. Not here: the loop over tokens (`model/generate.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.model.generate import likeliest, log_softmax_allowed
from tinyflamingo.ops.types import Array


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # among the k likeliest tokens; 0: among all
    top_p: float = 1.0  # among the smallest set of tokens whose probabilities add up to top_p

    def __post_init__(self) -> None:
        for name, value, right, allowed in (
            ("temperature", self.temperature, 0 <= self.temperature < np.inf, "[0, inf)"),
            ("top_k", self.top_k, self.top_k >= 0, "[0, inf)"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "(0, 1]"),
        ):
            if not right:
                raise UserError(f"sampling: {name} is {value} but must be in {allowed}")


GREEDY = Sampling()


def sampler(sampling: Sampling, rng: np.random.Generator | None = None) -> Callable:
    """The function that `generate` takes as `choose`. Raises `UserError` if a generator is needed and missing."""
    if sampling.temperature == 0:
        return likeliest
    if rng is None:
        raise UserError("sampling needs a generator of random numbers: give rng=np.random.default_rng(seed)")
    return lambda log_probs: draw(log_probs, sampling, rng)


def draw(log_probs: Array, sampling: Sampling, rng: np.random.Generator) -> Array:
    """One token for each row of log-probabilities (B, V + 1)."""
    with np.errstate(over="ignore"):  # near temperature 0 the best stays 0, and all others become -inf
        scaled = (log_probs - log_probs.max(axis=-1, keepdims=True)) / sampling.temperature
    probs = restrict(np.exp(log_softmax_allowed(scaled)), sampling)
    return np.array([rng.choice(len(p), p=p) for p in probs])


def restrict(probs: Array, sampling: Sampling) -> Array:
    """Probabilities (B, V) restricted to the top_k likeliest and to the smallest set that reaches top_p."""
    order = np.argsort(-probs, axis=-1, kind="stable")
    ranked = np.take_along_axis(probs, order, axis=-1)
    keep = np.cumsum(ranked, axis=-1) - ranked < sampling.top_p
    if sampling.top_k:
        keep &= np.arange(probs.shape[-1]) < sampling.top_k
    kept = np.zeros_like(probs)
    np.put_along_axis(kept, order, ranked * keep, axis=-1)
    return kept / kept.sum(axis=-1, keepdims=True)
