"""The loss of every token, and weights divided by their sum (chapter §4; paper, equation 2).

Not here: the contrastive loss (`model/contrastive.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.types import Array


def token_losses(logits: Array, targets: Array) -> Array:
    """Cross-entropy of every token: logits (..., V) against targets (...) -> (...)."""
    flat = np.reshape(logits, (-1, logits.shape[-1]))
    return np.reshape(ops.cross_entropy(flat, targets.reshape(-1)), targets.shape)


def shares_of(weights: Array, total: Array | None = None) -> Array:
    """Weights divided by their sum, so that a weighted mean becomes a sum. All 0 if the sum is 0.

    total: the sum over all ranks, if these weights are a part of a batch.
    """
    return weights / np.maximum(np.sum(weights) if total is None else total, np.finfo(weights.dtype).tiny)
