"""AdamW on one long vector, two kinds of gradient clipping, and the learning-rate schedule.

Chapter §2 (adaptive gradient clipping of the NF-ResNet) and the training of all stages (paper,
appendix B.1: AdamW, global-norm clipping, warm-up). Parameters are views into one vector, so a step
needs only a few passes over memory.

Not here: the training loop (`training/run.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree
from tinyflamingo.ops.types import Params


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser of one stage."""

    learning_rate: float = 2e-3
    beta_1: float = 0.9
    beta_2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.05  # on arrays of two or more axes, so never on gains, biases of layers, gates
    warmup: int = 50  # steps in which the rate grows from 0 to its full value
    final_share: float = 0.05  # share of the full rate that is left at the end of the cosine
    clip: float = 1.0  # largest global norm of a gradient
    agc: float = 0.0  # lambda of adaptive gradient clipping, 0: off


class Diverged(FloatingPointError, UserError):
    """A gradient that is not finite. A run adds its stage and step; any other command ends with this line."""


class AdamW:
    """State of one stage: `vector`, `params` (a tree of views into it), and the two moments m and v."""

    def __init__(self, params: Params, config: OptimiserConfig, no_decay: tuple[str, ...] = ()) -> None:
        """no_decay: parameters whose name has one of these prefixes get no weight decay (paper: the resampler)."""
        self.vector = flatten(params)
        self.params = view_tree(self.vector, params)
        self.m, self.v = np.zeros_like(self.vector), np.zeros_like(self.vector)
        self.config = config
        self.decay = _decay_vector(params, config.weight_decay, no_decay)

    def step(self, gradient: np.ndarray, step: int, steps: int) -> float:
        """One update by a gradient vector; returns the norm of the gradient before clipping.

        step counts from 0. A gradient that is not finite raises `Diverged` and changes nothing.
        """
        c = self.config
        norm = float(np.sqrt(np.dot(gradient, gradient)))
        if not math.isfinite(norm):
            raise Diverged(f"the norm of the gradient is {norm}: the training has diverged")
        gradient = gradient * np.float32(min(1.0, c.clip / (norm + 1e-12)))
        rate, unbias = learning_rate(c, step, steps), (1 - c.beta_1 ** (step + 1), 1 - c.beta_2 ** (step + 1))
        ops.adamw(self.vector, self.m, self.v, gradient, self.decay, rate, c.beta_1, c.beta_2, *unbias, c.epsilon)
        return norm


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to `final_share`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * cosine)


def _decay_vector(params, weight_decay, no_decay):
    """The weight decay of every scalar: 0 except for matrices and kernels without a prefix of `no_decay`."""
    parts = []
    for name, leaf in named_leaves(params).items():
        decays = leaf.ndim >= 2 and not name.startswith(no_decay or ("\0",))
        parts.append(np.full(leaf.size, weight_decay if decays else 0.0, np.float32))
    return np.concatenate(parts)


def adaptive_clip(gradients: Params, params: Params, limit: float, epsilon: float = 1e-3) -> Params:
    """Adaptive gradient clipping (NFNet paper, section 4), in place on a tree of gradients.

    The norm of an output unit's gradient may be at most `limit` times the norm of the unit's weights,
    where the norm of the weights counts as at least epsilon. A larger gradient is scaled down. Units:
    the last axis of kernels and matrices; a vector or a scalar is one unit.
    """
    weights = named_leaves(params)
    for name, g in named_leaves(gradients).items():
        axes = tuple(range(g.ndim - 1)) if g.ndim >= 2 else None
        norm_g = np.sqrt(np.sum(g * g, axis=axes, keepdims=True))
        norm_w = np.sqrt(np.sum(weights[name] ** 2, axis=axes, keepdims=True))
        allowed = limit * np.maximum(norm_w, epsilon)
        g *= np.minimum(1.0, allowed / np.maximum(norm_g, 1e-6)).astype(g.dtype)
    return gradients
