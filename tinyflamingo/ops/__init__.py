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

from .check import assert_float32_backward, check_grad
from .shapes import expect
from .switch import backend, backend_name, use
from .team import parallel_map, use_workers, workers
from .value_and_grad import value_and_grad, vjp

__all__ = [
    "adamw",
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
    "gated_residual",
    "gelu",
    "gelu_erf",
    "layer_norm",
    "linear",
    "max_pool3",
    "mean_pixels",
    "quick_gelu",
    "relative_attention",
    "relu",
    "rms_norm",
    "segment_attention",
    "parallel_map",
    "sigmoid",
    "squared_relu",
    "standardise_weight",
    "use",
    "use_workers",
    "value_and_grad",
    "vjp",
    "workers",
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


def gelu(x, gain=1.0):
    """gain * 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form of arXiv 1606.08415.

    gain: a Python float, for networks whose activations keep unit variance.
    """
    return backend().gelu(x, gain)


def gelu_erf(x):
    """x Phi(x), Phi the normal distribution function: GELU itself, which `gelu` approximates.

    The public ports of Flamingo and some of their language models use this form.
    """
    return backend().gelu_erf(x)


def quick_gelu(x):
    """x sigmoid(1.702 x): CLIP's form of GELU, at most 0.021 from the other (arXiv 1606.08415)."""
    return backend().quick_gelu(x)


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


def cross_entropy(logits, targets):
    """-log softmax(logits)[target], one number a row: logits (M, V), targets (M,) int -> (M,).

    Raises ValueError for a target outside 0..V-1.
    """
    targets = np.asarray(targets)
    expect(logits, "M V", M=targets.shape[0])
    _check_range(targets, logits.shape[1], "cross_entropy: target")
    return backend().cross_entropy(logits, targets)


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


def relative_attention(q, k, v, r, u, vb, visible_from):
    """Causal attention with Transformer-XL's relative positions (Dai et al. 2019, 1901.02860).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K), softmax over the visible j.

    q (B, T, H, K); k and v (B, S, H, K), S >= T: query i stands at key position S - T + i, so that
    cached decoding passes one query and all keys. r (S, H, K): row n is distance n. u, vb (H, K).
    visible_from (B, T) int: the first key position that the query may see (packed documents, left
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
    visible_from = np.asarray(visible_from)
    expect(visible_from, "B T", B=B, T=T)
    return backend().relative_attention(q, k, v, r, u, vb, visible_from)


def segment_attention(q, k, v, phi, first_medium=None):
    """Flamingo's masked cross-attention: a token sees the latents of one medium, its ``phi``.

    q (B, T, H, K); k and v (B, N, R, H, K); phi (B, T) int, media counted from 1 (section 2.3 of
    arXiv 2204.14198) -> (B, T, H, K). With ``first_medium`` (B, T) int a token sees all media from
    ``first_medium`` to ``phi`` at once, in one softmax (the ablation in its table 10: all previous images).
    Where phi is 0 the output is exactly 0 and so are all gradients. N may be 0. Raises ValueError
    for phi outside 0..N, and for first_medium outside 1..phi where phi is not 0.
    """
    B, T, H, K = q.shape
    phi = np.asarray(phi)
    expect(k, "B N R H K", B=B, H=H, K=K)
    expect(v, "B N R H K", B=B, N=k.shape[1], R=k.shape[2], H=H, K=K)
    expect(phi, "B T", B=B, T=T)
    if phi.size and (phi.min() < 0 or phi.max() > k.shape[1]):
        wrong = phi.min() if phi.min() < 0 else phi.max()
        raise ValueError(f"segment_attention: phi is {wrong} but there are {k.shape[1]} media")
    if first_medium is not None:
        first_medium = np.asarray(first_medium)
        _check_first_medium(expect(first_medium, "B T", B=B, T=T), phi)
    return backend().segment_attention(q, k, v, phi, first_medium)


def _check_first_medium(first_medium, phi):
    wrong = (phi > 0) & ((first_medium < 1) | (first_medium > phi))
    if wrong.any():
        first, last = first_medium[wrong][0], phi[wrong][0]
        raise ValueError(f"segment_attention: first_medium is {first} but must be in 1..{last}, its phi")


# ---------------------------------------------------------------- pictures, channels last


def conv2d(x, w, b=None, stride=1, groups=1, odd="end"):
    """Convolution with SAME padding as in TensorFlow and JAX: output ceil(size / stride).

    x (B, Y, X, Cin), w (kh, kw, Cin/groups, Cout), b (Cout,) or None -> (B, Yo, Xo, Cout). An odd
    pixel of padding goes at the end; odd="start" is what PyTorch's padding of half an odd kernel
    does. Raises ValueError when the channels do not fit the groups.
    """
    if w.shape[2] * groups != x.shape[3] or w.shape[3] % groups:
        raise ValueError(f"conv2d: {x.shape[3]} channels in {groups} groups do not fit weights {w.shape}")
    if b is not None:
        expect(b, "Cout", Cout=w.shape[3])
    return backend().conv2d(x, w, b, stride, groups, odd)


def standardise_weight(w, gain):
    """Scaled weight standardisation (Brock et al. 2021, arXiv 2102.06171, section 3).

    w (kh, kw, Cin, Cout), gain (Cout,): every output channel gets mean 0 and variance 1/N over its
    fan-in of N values, times a learned gain. The signal that passes then keeps its variance.
    N times the variance counts as 1e-4 at least, as in the authors' code.
    """
    expect(gain, "Cout", Cout=w.shape[3])
    return backend().standardise_weight(w, gain)


def gated_residual(shortcut, branch, gates):
    """shortcut + branch * gates: both (B, Y, X, C), gates (B, C), one a picture and channel."""
    B, _, _, C = expect(branch, "B Y X C").shape
    expect(shortcut, "B Y X C", B=B, Y=branch.shape[1], X=branch.shape[2], C=C)
    expect(gates, "B C", B=B, C=C)
    return backend().gated_residual(shortcut, branch, gates)


def mean_pixels(x):
    """Mean over the pixels: x (B, Y, X, C) -> (B, C)."""
    expect(x, "B Y X C")
    return backend().mean_pixels(x)


def max_pool3(x, odd="end"):
    """Largest value of 3x3 windows, stride 2: x (B, Y, X, C) -> (B, ceil(Y/2), ceil(X/2), C).

    Windows reach beyond the edge as those of `conv2d` do; of equal values the first counts.
    """
    expect(x, "B Y X C")
    return backend().max_pool3(x, odd)


def avg_pool2(x):
    """Mean of 2x2 windows, stride 2: x (B, Y, X, C) -> (B, ceil(Y/2), ceil(X/2), C).

    At an odd edge the last window averages the pixels that are there; any size works.
    """
    expect(x, "B Y X C")
    return backend().avg_pool2(x)


# ---------------------------------------------------------------- the optimiser


def adamw(x, m, v, g, decay, rate, beta_1, beta_2, unbias_1, unbias_2, epsilon):
    """One step of AdamW in place (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    x, m, v, g, decay: parameters, both moments, gradient and weight decay, all (P,). The rest are
    Python floats; unbias_1 and unbias_2 are 1 - beta^t. x, m and v are written.
    """
    for name, part in {"m": m, "v": v, "g": g, "decay": decay}.items():
        if part.shape != x.shape or part.dtype != x.dtype:
            raise ValueError(f"adamw: {name} is {part.dtype} {part.shape}, the parameters {x.dtype} {x.shape}")
    backend().adamw(x, m, v, g, decay, rate, beta_1, beta_2, unbias_1, unbias_2, epsilon)
