"""How many flops of a training step are matrix products that BLAS does, and at what rate it does them.

Every dense layer and attention of one step is noted as it is called, with its shapes and with what
of it is differentiated: a product forward, one more in backward for each argument that trains or
carries a gradient. Not counted: what our own loops do (norms, activations, softmax, convolutions,
cross-attention by segments).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time

import numpy as np
from autograd.tracer import isbox

from tinyflamingo import ops
from tinyflamingo.ops.fast_relative import query_blocks


def gemm_flops(step) -> int:
    """Flops of the matrix products of one call of step()."""
    notes, lock = [], threading.Lock()

    def note(flops):
        with lock:
            notes.append(flops)

    with contextlib.ExitStack() as stack:
        for name, count in COUNTS.items():
            stack.enter_context(_noted(name, count, note))
        step()
    return sum(notes)


def gemm_rate(n=1024) -> float:
    """GFLOP/s of a float32 matrix product, the best of a few."""
    a, times = np.ones((n, n), np.float32), []
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times) / 1e9


@contextlib.contextmanager
def _noted(name, count, note):
    """`ops.<name>` also notes its flops, for the length of a ``with`` block."""
    real = getattr(ops, name)

    def counting(*args):
        note(count(*args))
        return real(*args)

    setattr(ops, name, counting)
    try:
        yield
    finally:
        setattr(ops, name, real)


def _linear(x, w, b=None):
    return 2 * math.prod(x.shape) * w.shape[1] * (1 + isbox(x) + isbox(w))


def _attention(q, k, v, key_mask=None):
    """Two products forward; of the four in backward each serves one of q, k, v or the softmax."""
    B, T, H, K = q.shape
    backward = 4 if any(map(isbox, (q, k, v))) else 0
    return 2 * B * H * T * k.shape[1] * K * (2 + backward)


def _relative_attention(q, k, v, r, u, vb, visible_from):
    """Three products forward and five in backward, of blocks up to the diagonal; one more for r."""
    B, T, H, K = q.shape
    pairs = sum((rows.stop - rows.start) * keys for rows, _, keys in query_blocks(T, k.shape[1]))
    backward = 5 + isbox(r) if any(map(isbox, (q, k, v))) else 0
    return 2 * B * H * K * pairs * (3 + backward)


COUNTS = {"linear": _linear, "attention": _attention, "relative_attention": _relative_attention}
