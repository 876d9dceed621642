"""How many flops of a training step are matrix products, and how fast BLAS computes so many.

Every dense layer and attention of a step is noted with its shapes and with what is differentiated: one product forward,
and one more in backward for each argument that trains or carries a gradient. Causal attention is counted too, although
our own loops compute it. Not counted: norms, activations, softmax, convolution, cross-attention by segments.

Implements no section of the chapter. Not here: the times of whole steps (`step_lines.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from autograd.tracer import isbox

from tinyflamingo import ops
from tinyflamingo.ops.types import Array

SIDE = 1024  # of a matrix that BLAS multiplies at its full rate


def gemm_flops(step: Callable) -> int:
    """Flops of the matrix products of one call of step()."""
    flops: list[int] = []

    def note(name, args):
        if name in COUNTS:
            flops.append(COUNTS[name](*args))

    with ops.watching(note):
        step()
    return sum(flops)


def gemm_rate() -> float:
    """GFLOP/s of a float32 product of two square matrices, the best of eight."""
    a, times = np.ones((SIDE, SIDE), np.float32), []
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(times) / 1e9


def _linear(x, w, b):
    return 2 * math.prod(x.shape) * w.shape[1] * (1 + isbox(x) + isbox(w))


def _attention(q, k, v, key_mask):
    """Two products forward; four in backward: for q, k, v and the softmax."""
    B, T, H, K = q.shape
    backward = 4 if any(map(isbox, (q, k, v))) else 0
    return 2 * B * H * T * k.shape[1] * K * (2 + backward)


def relative_attention_flops(q: Array, k: Array, v: Array, r: Array, u: Array, vb: Array, visible_from: Array) -> int:
    """Three products forward and five in backward, for the visible pairs of a query and a key; one more for r."""
    _, T, H, K = q.shape
    own = np.arange(k.shape[1] - T, k.shape[1])
    pairs = int(np.maximum(own + 1 - np.maximum(visible_from, 0), 0).sum())
    backward = 5 + isbox(r) if any(map(isbox, (q, k, v))) else 0
    return 2 * H * K * pairs * (3 + backward)


COUNTS: dict[str, Callable[..., int]] = {
    "linear": _linear,
    "attention": _attention,
    "relative_attention": relative_attention_flops,
}
