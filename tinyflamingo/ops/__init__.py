"""The ground floor: arrays in, arrays out, no parameters and no state.

Every operation of the model is here once to be read (``reference.py``, plain ``autograd.numpy``)
and once to be waited for (``fast.py`` and the ``fast_*`` files: fused primitives with gradients
written by hand, over the loops in ``kernels.py``). This file says what each one is, checks what a
caller can get wrong, and passes the call on; ``switch.py`` says to which.

All functions take float32 or float64 arrays or autograd boxes, and keep the dtype, forward and
backward. Letters: B batch, T query tokens, S key tokens, H heads, K head size, R latents, N media,
D width, V vocabulary.
"""

import numpy as np
from autograd.tracer import getval, isbox

from .check import assert_float32_backward, check_grad
from .shapes import expect
from .switch import backend, backend_name, use
from .value_and_grad import value_and_grad

__all__ = [
    "assert_float32_backward",
    "attention",
    "avg_pool2",
    "backend_name",
    "check_grad",
    "conv2d",
    "cross_entropy",
    "embed",
    "engine",
    "expect",
    "gelu",
    "layer_norm",
    "linear",
    "relative_attention",
    "relu",
    "rms_norm",
    "segment_attention",
    "sigmoid",
    "squared_relu",
    "use",
    "value_and_grad",
]


def engine():
    """What runs the loops: "numba", "numpy" (Numba is not installed) or "autograd" (reference)."""
    if backend_name() == "reference":
        return "autograd"
    from . import kernels

    return kernels.ENGINE


# ---------------------------------------------------------------- dense layers and norms


def linear(x, w, b=None):
    """x @ w + b: x (..., Din), w (Din, Dout), b (Dout,) or None -> (..., Dout)."""
    expect(w, "Din Dout", Din=x.shape[-1])
    if b is not None:
        expect(b, "Dout", Dout=w.shape[1])
    return backend().linear(x, w, b)


def rms_norm(x, gain, eps=1e-6):
    """x / sqrt(mean(x^2) + eps) * gain: x (..., D), gain (D,) -> (..., D).

    Zhang & Sennrich 2019 (arXiv 1910.07467); the norm of Gopher and Chinchilla.
    """
    expect(gain, "D", D=x.shape[-1])
    return backend().rms_norm(x, gain, eps)


def layer_norm(x, gain, bias, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * gain + bias: x (..., D), gain and bias (D,) -> (..., D).

    Ba, Kiros & Hinton 2016 (arXiv 1607.06450).
    """
    expect(gain, "D", D=x.shape[-1])
    expect(bias, "D", D=x.shape[-1])
    return backend().layer_norm(x, gain, bias, eps)


# ---------------------------------------------------------------- activations, any shape


def gelu(x):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form of arXiv 1606.08415."""
    return backend().gelu(x)


def relu(x):
    """max(x, 0), with slope 0 at 0."""
    return backend().relu(x)


def squared_relu(x):
    """max(x, 0)^2 (So et al. 2021, arXiv 2109.08668): the activation of Flamingo's new layers."""
    return backend().squared_relu(x)


def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    return backend().sigmoid(x)


# ---------------------------------------------------------------- tables and losses


def embed(table, ids):
    """Rows of a table: table (V, D), ids int of any shape -> ids.shape + (D,).

    Raises ValueError for an id outside 0..V-1.
    """
    ids = np.asarray(ids)
    _check_range(ids, table.shape[0], "embed: id")
    return backend().embed(table, ids)


def cross_entropy(logits, targets, weights):
    """Weighted mean of -log softmax(logits)[target]: a scalar.

    logits (M, V), targets (M,) int, weights (M,) >= 0: sum(weights * nll) / sum(weights), and 0
    where all weights are 0. Raises ValueError for a target outside 0..V-1 or a negative weight.
    """
    targets = np.asarray(targets)
    expect(logits, "M V", M=targets.shape[0])
    _check_range(targets, logits.shape[1], "cross_entropy: target")
    if not isbox(weights):
        weights = np.asarray(weights, getval(logits).dtype)
    expect(weights, "M", M=targets.shape[0])
    if getval(weights).size and not getval(weights).min() >= 0:
        raise ValueError(f"cross_entropy: a weight is {getval(weights).min()}, below 0")
    return backend().cross_entropy(logits, targets, weights)


def _check_range(ids, size, name):
    """Integers, 0 <= ids < size; a negative one would quietly count from the end."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name}s must be integers, not {ids.dtype}")
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{name} {wrong} is outside 0..{size - 1}")


# ---------------------------------------------------------------- attention


def attention(q, k, v, key_mask=None):
    """softmax(q k^T / sqrt(K)) v for every head (Vaswani et al. 2017, arXiv 1706.03762).

    q (B, T, H, K), k and v (B, S, H, K), key_mask (B, S) bool, True where a key may be seen
    -> (B, T, H, K). A query whose keys are all masked gets exactly 0.
    """
    B, T, H, K = q.shape
    expect(k, "B S H K", B=B, H=H, K=K)
    expect(v, "B S H K", B=B, S=k.shape[1], H=H, K=K)
    if key_mask is not None:
        key_mask = np.asarray(key_mask, bool)
        expect(key_mask, "B S", B=B, S=k.shape[1])
    return backend().attention(q, k, v, key_mask)


def relative_attention(q, k, v, r, u, vb, start):
    """Causal attention with Transformer-XL's relative positions (Dai et al. 2019, 1901.02860).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K), softmax over the visible j.

    q (B, T, H, K); k and v (B, S, H, K), S >= T: query i stands at key position S - T + i, so that
    cached decoding passes one query and all keys. r (S, H, K): row n is distance n. u, vb (H, K).
    start (B, T) int: the first key position that the query may see (packed documents, left
    padding); beyond its own position the row is empty and the output exactly 0. -> (B, T, H, K).
    Raises ValueError for S < T.
    """
    B, T, H, K = q.shape
    S = k.shape[1]
    if S < T:
        raise ValueError(f"relative_attention: {T} queries but only {S} keys")
    expect(k, "B S H K", B=B, H=H, K=K)
    expect(v, "B S H K", B=B, S=S, H=H, K=K)
    expect(r, "S H K", S=S, H=H, K=K)
    expect(u, "H K", H=H, K=K)
    expect(vb, "H K", H=H, K=K)
    start = np.asarray(start)
    expect(start, "B T", B=B, T=T)
    return backend().relative_attention(q, k, v, r, u, vb, start)


def segment_attention(q, k, v, phi):
    """Flamingo's masked cross-attention: a token sees the latents of one medium, its ``phi``.

    q (B, T, H, K); k and v (B, N, R, H, K); phi (B, T) int, media counted from 1 (section 2.3 of
    arXiv 2204.14198) -> (B, T, H, K). Where phi is 0 the output is exactly 0 and so are all
    gradients. N may be 0. Raises ValueError for phi outside 0..N.
    """
    B, T, H, K = q.shape
    phi = np.asarray(phi)
    expect(k, "B N R H K", B=B, H=H, K=K)
    expect(v, "B N R H K", B=B, N=k.shape[1], R=k.shape[2], H=H, K=K)
    expect(phi, "B T", B=B, T=T)
    if phi.size and (phi.min() < 0 or phi.max() > k.shape[1]):
        wrong = phi.min() if phi.min() < 0 else phi.max()
        raise ValueError(f"segment_attention: phi is {wrong} but there are {k.shape[1]} media")
    return backend().segment_attention(q, k, v, phi)


# ---------------------------------------------------------------- pictures, channels last


def conv2d(x, w, b=None, stride=1, groups=1):
    """Convolution with SAME padding as in TensorFlow and JAX: output ceil(size / stride).

    x (B, Y, X, Cin), w (kh, kw, Cin/groups, Cout), b (Cout,) or None -> (B, Yo, Xo, Cout). An odd
    pixel of padding goes at the end. Raises ValueError when the channels do not fit the groups.
    """
    if w.shape[2] * groups != x.shape[3] or w.shape[3] % groups:
        raise ValueError(f"conv2d: {x.shape[3]} channels in {groups} groups do not fit weights {w.shape}")
    if b is not None:
        expect(b, "Cout", Cout=w.shape[3])
    return backend().conv2d(x, w, b, stride, groups)


def avg_pool2(x):
    """Mean of 2x2 windows, stride 2: x (B, Y, X, C) -> (B, ceil(Y/2), ceil(X/2), C).

    At an odd edge the last window averages the pixels that are there; any size works.
    """
    expect(x, "B Y X C")
    return backend().avg_pool2(x)
