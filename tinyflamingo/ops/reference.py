"""The reference floor: every operation as a student would write it, in plain ``autograd.numpy``.

This is the definition. ``fast.py`` must give the same numbers: the tests run the same bodies with both, and the whole
model runs on this file alone with TINYFLAMINGO_OPS=reference.

The code is simple and slow, but careful about precision. Three habits keep float32, forward and backward (under NumPy 2
``mean``, ``max``, ``where`` and the float64 scalars in autograd's own gradients turn it into float64):

* a mean is a sum times a Python float;
* a maximum is computed from the unboxed value (``getval``): in a softmax its gradient cancels;
* a mask is multiplied or added; ``np.where`` is not used.

``ops/__init__.py`` checks the arguments and describes their shapes. Serves chapter §2 to §4. Not here: speed.
"""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval

from .types import Array

# ---------------------------------------------------------------- dense layers and norms


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """x @ w + b."""
    y = np.matmul(x, w)
    return y if b is None else y + b


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """x / rms(x) * gain over the last axis."""
    mean_square = np.sum(x * x, axis=-1, keepdims=True) * (1.0 / x.shape[-1])
    return x / np.sqrt(mean_square + eps) * gain


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> Array:
    """(x - mean) / std * gain + bias over the last axis."""
    centred = x - np.sum(x, axis=-1, keepdims=True) * (1.0 / x.shape[-1])
    variance = np.sum(centred * centred, axis=-1, keepdims=True) * (1.0 / x.shape[-1])
    return centred / np.sqrt(variance + eps) * gain + bias


# ---------------------------------------------------------------- activations


def gelu(x: Array, gain: float) -> Array:
    """gain * 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    root_two_over_pi = 0.7978845608028654
    return gain * 0.5 * x * (1.0 + np.tanh(root_two_over_pi * (x + 0.044715 * (x * x * x))))


@primitive
def erf(x: Array) -> Array:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. NumPy has no erf; the standard library has one."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


defvjp(erf, lambda ans, x: lambda g: g * (2 / math.sqrt(math.pi)) * np.exp(-x * x))


def gelu_erf(x: Array) -> Array:
    """x Phi(x)."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x)."""
    return x * sigmoid(1.702 * x)


def relu(x: Array) -> Array:
    """max(x, 0), with slope 0 at 0."""
    return x * (getval(x) > 0)


def squared_relu(x: Array) -> Array:
    """max(x, 0)^2."""
    positive = relu(x)
    return positive * positive


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written with tanh so that nothing overflows."""
    return 0.5 * (np.tanh(0.5 * x) + 1.0)


# ---------------------------------------------------------------- tables, losses, the optimiser


def embed(table: Array, ids: Array) -> Array:
    """table[ids]."""
    return table[ids]


def cross_entropy(logits: Array, targets: Array) -> Array:
    """-log softmax(logits)[target]."""
    shifted = logits - np.max(getval(logits), axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(shifted), axis=-1)) - shifted[np.arange(len(targets)), targets]


def adamw(x: Array, m: Array, v: Array, g: Array, decay: Array, *rates: float) -> None:
    """Running means of the gradient and of its square, then a step along their ratio, with weight decay."""
    rate, beta_1, beta_2, unbias_1, unbias_2, epsilon = rates
    m += (1 - beta_1) * (g - m)
    v += (1 - beta_2) * (g * g - v)
    x -= rate * (m / unbias_1 / (np.sqrt(v / unbias_2) + epsilon) + decay * x)


# ---------------------------------------------------------------- attention


def masked_softmax(scores: Array, visible: Array) -> Array:
    """Softmax over the visible entries of the last axis. A row without visible entries is exactly 0."""
    visible = visible.astype(scores.dtype)
    scores = scores - 1e9 * (1.0 - visible)
    weights = np.exp(scores - np.max(getval(scores), axis=-1, keepdims=True)) * visible
    total = np.sum(weights, axis=-1, keepdims=True)
    return weights / (total + (getval(total) == 0))  # an empty row is 0 / 1, not 0 / 0


def attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(K)) v for each head."""
    B, T, H, K = q.shape
    S = k.shape[1]
    scores = np.einsum("bthk,bshk->bhts", q, k) * K**-0.5
    mask = np.ones((B, S), bool) if key_mask is None else key_mask
    weights = masked_softmax(scores, np.broadcast_to(mask[:, None, None, :], (B, H, T, S)))
    return np.einsum("bhts,bshk->bthk", weights, v)


def relative_attention(q: Array, k: Array, v: Array, r: Array, u: Array, vb: Array, visible_from: Array) -> Array:
    """Causal Transformer-XL attention: the position score depends only on the distance i - j."""
    B, T, H, K = q.shape
    S = k.shape[1]
    content = np.einsum("bthk,bshk->bhts", q + u, k)
    by_distance = np.einsum("bthk,nhk->bhtn", q + vb, r)
    own = S - T + np.arange(T)[:, None]  # key position of query i, as a column
    key = np.arange(S)[None, :]
    distance = np.maximum(own - key, 0)  # later keys are masked below, so any valid index is fine
    position = by_distance[:, :, np.arange(T)[:, None], distance]
    visible = (key <= own)[None] & (key[None] >= visible_from[:, :, None])  # (B, T, S)
    scores = (content + position) * K**-0.5
    weights = masked_softmax(scores, np.broadcast_to(visible[:, None], (B, H, T, S)))
    return np.einsum("bhts,bshk->bthk", weights, v)


def segment_attention(q: Array, k: Array, v: Array, phi: Array, first_medium: Array | None = None) -> Array:
    """Flamingo's masked cross-attention as in the paper: scores for all media, then a mask."""
    B, N, R, H, K = k.shape
    T = q.shape[1]
    if N == 0:
        return q * 0.0  # exactly 0, with zero gradient
    k, v = np.reshape(k, (B, N * R, H, K)), np.reshape(v, (B, N * R, H, K))
    medium = np.repeat(np.arange(N) + 1, R)  # media are counted from 1, as in phi
    first_medium = phi if first_medium is None else first_medium
    visible = (first_medium[:, :, None] <= medium) & (medium <= phi[:, :, None])
    scores = np.einsum("bthk,bshk->bhts", q, k) * K**-0.5
    weights = masked_softmax(scores, np.broadcast_to(visible[:, None], (B, H, T, N * R)))
    return np.einsum("bhts,bshk->bthk", weights, v)


# ---------------------------------------------------------------- pictures


def same_padding(size: int, kernel: int, stride: int, extra: str = "end") -> tuple[int, int]:
    """(before, after): zeros that make the output ceil(size / stride). `extra`: where an extra one goes."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before = total // 2 if extra == "end" else total - total // 2
    return before, total - before


def conv2d(x: Array, w: Array, b: Array | None = None, stride: int = 1, groups: int = 1, extra: str = "end") -> Array:
    """A sum over the kernel's taps: for each tap, the shifted and strided picture times the matrix of that tap."""
    kh, kw = w.shape[:2]
    y = 0.0
    for i, tap in enumerate(windows(x, kh, kw, stride, extra)):
        y = y + _grouped(tap, w[i // kw, i % kw], groups)
    return y if b is None else y + b


def windows(x: Array, kh: int, kw: int, stride: int, extra: str, fill: float = 0.0) -> list[Array]:
    """The pixels that each tap of a kernel reads: kh * kw shifted and strided pictures, row by row."""
    _, Y, X, _ = x.shape
    out_y, out_x = -(-Y // stride), -(-X // stride)
    pads = ((0, 0), same_padding(Y, kh, stride, extra), same_padding(X, kw, stride, extra), (0, 0))
    x = np.pad(x, pads, mode="constant", constant_values=fill)
    return [
        x[:, dy : dy + (out_y - 1) * stride + 1 : stride, dx : dx + (out_x - 1) * stride + 1 : stride]
        for dy in range(kh)
        for dx in range(kw)
    ]


def _grouped(x, w, groups):
    """(B, Y, X, Cin) times (Cin/groups, Cout): each group of channels uses its own columns of w."""
    if groups == 1:
        return np.matmul(x, w)
    width, out = x.shape[-1] // groups, w.shape[-1] // groups
    parts = [np.matmul(x[..., i * width : (i + 1) * width], w[:, i * out : (i + 1) * out]) for i in range(groups)]
    return np.concatenate(parts, axis=-1)


STANDARDISE_FLOOR = 1e-4  # smallest N * Var(w)


def standardise_weight(w: Array, gain: Array) -> Array:
    """(w - mean) / sqrt(N Var) * gain, over all axes but the last."""
    fan_in = w.shape[0] * w.shape[1] * w.shape[2]
    centred = w - np.sum(w, axis=(0, 1, 2)) * (1.0 / fan_in)
    spread = np.sum(centred * centred, axis=(0, 1, 2))  # N * Var(w)
    spread = spread + relu(STANDARDISE_FLOOR - spread)  # the larger of the two
    return centred * (gain / np.sqrt(spread))


def gated_residual(shortcut: Array, branch: Array, gates: Array) -> Array:
    """shortcut + branch * gates."""
    return shortcut + branch * gates[:, None, None, :]


def mean_pixels(x: Array) -> Array:
    """Mean over Y and X."""
    return np.sum(x, axis=(1, 2)) * (1.0 / (x.shape[1] * x.shape[2]))


def max_pool3(x: Array, extra: str) -> Array:
    """The largest of nine taps. Gradients do not need its place. Padding is -inf for the choice and 0 for the sum."""
    winner = np.argmax(np.stack(windows(getval(x), 3, 3, 2, extra, -np.inf)), axis=0)
    return sum(tap * (winner == i) for i, tap in enumerate(windows(x, 3, 3, 2, extra)))


def avg_pool2(x: Array) -> Array:
    """Mean of 2x2 windows. If a size is odd, the last window is the mean of the pixels that exist."""
    _, Y, X, _ = x.shape
    x = np.pad(x, ((0, 0), (0, Y % 2), (0, X % 2), (0, 0)), mode="constant")
    rows = x[:, 0::2] + x[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) * pool_weights(Y, X, x.dtype)


def pool_weights(Y: int, X: int, dtype: Any) -> Array:
    """(out_y, out_x, 1): 1 / (number of pixels) for each 2x2 window."""
    rows = np.full((Y + 1) // 2, 2)
    columns = np.full((X + 1) // 2, 2)
    rows[-1:] -= Y % 2
    columns[-1:] -= X % 2
    return (1.0 / (rows[:, None, None] * columns[None, :, None])).astype(dtype)
