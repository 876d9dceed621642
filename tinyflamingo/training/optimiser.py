"""AdamW on one long vector, gradient clipping in two kinds, and the learning-rate schedule.

Chapter §2 (adaptive gradient clipping of the NF-ResNet) and the training of all stages (paper,
appendix B.1: AdamW, global-norm clipping, warm-up). Parameters are views into one vector, so a step
is a handful of passes over memory.

Not here: the loop that calls it (`training/run.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree


@dataclass(frozen=True)
class OptimiserConfig:
    """Knobs of one stage."""

    learning_rate: float = 2e-3
    beta_1: float = 0.9
    beta_2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.05  # on matrices; never on gains, biases, gates
    warmup: int = 50  # steps from 0 to the full rate
    final_share: float = 0.05  # of the rate, at the end of a cosine
    clip: float = 1.0  # largest global norm of the gradient
    agc: float = 0.0  # lambda of adaptive gradient clipping, 0: off


class AdamW:
    """State of one stage: `params` (a tree of views), `vector`, and the two moments m and v."""

    def __init__(self, params, config: OptimiserConfig, no_decay=()):
        """no_decay: prefixes of names without weight decay (paper: the resampler)."""
        self.vector = flatten(params)
        self.params = view_tree(self.vector, params)
        self.m, self.v = np.zeros_like(self.vector), np.zeros_like(self.vector)
        self.config = config
        self.decay = _decay_vector(params, config.weight_decay, tuple(no_decay))

    def step(self, gradient, step, steps):
        """One update by a gradient vector; returns the gradient's norm before clipping.

        step counts from 0. A gradient that is not finite raises FloatingPointError and changes nothing.
        """
        c = self.config
        norm = float(np.sqrt(np.dot(gradient, gradient)))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        gradient = gradient * np.float32(min(1.0, c.clip / (norm + 1e-12)))
        rate, unbias = learning_rate(c, step, steps), [1 - beta ** (step + 1) for beta in (c.beta_1, c.beta_2)]
        ops.adamw(self.vector, self.m, self.v, gradient, self.decay, rate, c.beta_1, c.beta_2, *unbias, c.epsilon)
        return norm


def learning_rate(config: OptimiserConfig, step, steps):
    """Linear warm-up, then a cosine down to `final_share`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


def _decay_vector(params, weight_decay, no_decay):
    """Weight decay of every scalar: matrices and kernels only, and none under a `no_decay` prefix."""
    parts = []
    for name, leaf in named_leaves(params).items():
        decays = leaf.ndim >= 2 and not name.startswith(no_decay or ("\0",))
        parts.append(np.full(leaf.size, weight_decay if decays else 0.0, np.float32))
    return np.concatenate(parts)


def adaptive_clip(gradients, params, limit, epsilon=1e-3):
    """Adaptive gradient clipping (NFNet paper, section 4), in place on a tree of gradients.

    Where the norm of an output unit's gradient exceeds `limit` times the norm of its weights (at
    least epsilon), it is scaled down to that. Units: the last axis of kernels and matrices; a
    vector or scalar is one unit.
    """
    weights = named_leaves(params)
    for name, g in named_leaves(gradients).items():
        axes = tuple(range(g.ndim - 1)) if g.ndim >= 2 else None
        norm_g = np.sqrt(np.sum(g * g, axis=axes, keepdims=True))
        norm_w = np.sqrt(np.sum(weights[name] ** 2, axis=axes, keepdims=True))
        allowed = limit * np.maximum(norm_w, epsilon)
        g *= np.minimum(1.0, allowed / np.maximum(norm_g, 1e-6)).astype(g.dtype)
    return gradients
