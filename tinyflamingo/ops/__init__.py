"""The operations of the model: arrays in, arrays out, no parameters and no state.

Every operation exists twice. ``reference.py`` is its readable definition in plain ``autograd.numpy``. ``fast.py`` and
the ``fast_*`` files compute the same with fused primitives, gradients written by hand, and the kernels of
``kernels.py``. This file describes each operation, checks its arguments and calls it on the floor (one of the two)
that ``switch.py`` chooses. It implements no section of the chapter; all sections are built from it.

All functions take float32 or float64 arrays or autograd boxes, and keep the dtype, forward and backward. Letters:
B batch, T query tokens, S key tokens, H heads, K head size, R latents, N media, D width, V vocabulary.
"""

from __future__ import annotations

import numpy as np

from .check import check_grad as check_grad  # "as": the name is public in `ops` too
from .shapes import expect
from .switch import backend_name, run
from .switch import use as use
from .switch import watching as watching
from .team import parallel_map as parallel_map
from .team import use_workers as use_workers
from .team import workers as workers
from .types import Array
from .value_and_grad import value_and_grad as value_and_grad
from .value_and_grad import vjp as vjp


def engine() -> str:
    """What runs the kernels: "numba", "numpy" (Numba is not installed) or "autograd" (the reference has no kernels)."""
    if backend_name() == "reference":
        return "autograd"
    from . import kernels

    return kernels.ENGINE


# ---------------------------------------------------------------- dense layers and norms


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """x @ w + b: x (..., Din), w (Din, Dout), b (Dout,) or None -> (..., Dout)."""
    expect(w, "Din Dout", Din=x.shape[-1])
    if b is not None:
        expect(b, "Dout", Dout=w.shape[1])
    return run("linear", x, w, b)


def rms_norm(x: Array, gain: Array, eps: float = 1e-6) -> Array:
    """x / sqrt(mean(x^2) + eps) * gain: x (..., D), gain (D,) -> (..., D).

    Zhang & Sennrich 2019 (arXiv 1910.07467); the norm of Gopher and Chinchilla.
    """
    expect(gain, "D", D=x.shape[-1])
    return run("rms_norm", x, gain, eps)


def layer_norm(x: Array, gain: Array, bias: Array, eps: float = 1e-5) -> Array:
    """(x - mean) / sqrt(var + eps) * gain + bias (arXiv 1607.06450): x (..., D), gain and bias (D,) -> (..., D)."""
    expect(gain, "D", D=x.shape[-1])
    expect(bias, "D", D=x.shape[-1])
    return run("layer_norm", x, gain, bias, eps)


# ---------------------------------------------------------------- activations, any shape


def gelu(x: Array, gain: float = 1.0) -> Array:
    """gain * 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form of arXiv 1606.08415.

    gain is for networks that keep activations at unit variance.
    """
    return run("gelu", x, gain)


def gelu_erf(x: Array) -> Array:
    """x Phi(x), Phi the normal distribution function: exact GELU, which `gelu` approximates.

    The public ports of Flamingo and some of their language models use this form.
    """
    return run("gelu_erf", x)


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x): CLIP's form of GELU, at most 0.021 from the tanh form (arXiv 1606.08415)."""
    return run("quick_gelu", x)


def relu(x: Array) -> Array:
    """max(x, 0), with slope 0 at 0."""
    return run("relu", x)


def squared_relu(x: Array) -> Array:
    """max(x, 0)^2 (So et al. 2021, arXiv 2109.08668): the activation of Flamingo's new layers."""
    return run("squared_relu", x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return run("sigmoid", x)


# ---------------------------------------------------------------- tables, losses, the optimiser


def embed(table: Array, ids: Array) -> Array:
    """Rows of a table (V, D): ids int of any shape -> ids.shape + (D,). Raises ValueError for an id outside 0..V-1."""
    ids = np.asarray(ids)
    _check_range(ids, table.shape[0], "embed: id")
    return run("embed", table, ids)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """-log softmax(logits)[target] per row: logits (M, V), targets (M,) int in 0..V-1, else ValueError -> (M,)."""
    targets = np.asarray(targets)
    expect(logits, "M V", M=targets.shape[0])
    _check_range(targets, logits.shape[1], "cross_entropy: target")
    return run("cross_entropy", logits, targets)


def _check_range(ids, size, name):
    """Integers with 0 <= ids < size. NumPy would accept a negative index and count from the end."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name}s must be integers, not {ids.dtype}")
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{name} {wrong} is outside 0..{size - 1}")


def adamw(x: Array, m: Array, v: Array, g: Array, decay: Array, *rates: float) -> None:
    """One step of AdamW in place (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2).

    x, m, v, g, decay: parameters, both moments, gradient and weight decay, all (P,); x, m and v are overwritten.
    rates: learning rate, beta_1, beta_2, 1 - beta_1^t, 1 - beta_2^t, epsilon.
    """
    for name, part in {"m": m, "v": v, "g": g, "decay": decay}.items():
        if part.shape != x.shape or part.dtype != x.dtype:
            raise ValueError(f"adamw: {name} is {part.dtype} {part.shape}, but the parameters {x.dtype} {x.shape}")
    run("adamw", x, m, v, g, decay, *rates)


# ---------------------------------------------------------------- attention


def attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(K)) v for every head (Vaswani et al. 2017, arXiv 1706.03762).

    q (B, T, H, K), k and v (B, S, H, K), key_mask (B, S) bool, True for visible keys -> (B, T, H, K).
    A query whose keys are all masked gets exactly 0.
    """
    B, T, H, K = q.shape
    expect(k, "B S H K", B=B, H=H, K=K)
    expect(v, "B S H K", B=B, S=k.shape[1], H=H, K=K)
    if key_mask is not None:
        key_mask = np.asarray(key_mask, bool)
        expect(key_mask, "B S", B=B, S=k.shape[1])
    return run("attention", q, k, v, key_mask)


def relative_attention(q: Array, k: Array, v: Array, r: Array, u: Array, vb: Array, visible_from: Array) -> Array:
    """Causal attention with Transformer-XL's relative positions (Dai et al. 2019, arXiv 1901.02860).

    score(i, j) = ((q_i + u) . k_j + (q_i + vb) . r_{i-j}) / sqrt(K), softmax over the visible j.

    q (B, T, H, K); k and v (B, S, H, K) with S >= T. r (S, H, K): row n is for distance n. u, vb (H, K). Query i is at
    key position S - T + i: cached decoding passes one query and all keys. visible_from (B, T) int: the first key
    position that the query may attend to, for packed documents and left padding. If this position is after the query's
    own, no key is visible and the output is exactly 0. -> (B, T, H, K). Raises ValueError for S < T.
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
    return run("relative_attention", q, k, v, r, u, vb, visible_from)


def segment_attention(q: Array, k: Array, v: Array, phi: Array, first_medium: Array | None = None) -> Array:
    """Flamingo's masked cross-attention: a token attends to the latents of one medium, its ``phi``.

    q (B, T, H, K); k and v (B, N, R, H, K); phi (B, T) int, media counted from 1 (section 2.3 of arXiv 2204.14198)
    -> (B, T, H, K). With ``first_medium`` (B, T) int a token attends to all media from ``first_medium`` to ``phi`` in
    one softmax (the ablation "all previous images" in table 10). Where phi is 0 the output and all gradients are
    exactly 0. N may be 0. Raises ValueError for phi outside 0..N, and for first_medium outside 1..phi where phi > 0.
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
    return run("segment_attention", q, k, v, phi, first_medium)


def _check_first_medium(first_medium, phi):
    wrong = (phi > 0) & ((first_medium < 1) | (first_medium > phi))
    if wrong.any():
        first, last = first_medium[wrong][0], phi[wrong][0]
        raise ValueError(f"segment_attention: first_medium is {first} but must be in 1..{last} (phi is {last})")


# ---------------------------------------------------------------- pictures, channels last


def conv2d(x: Array, w: Array, b: Array | None = None, stride: int = 1, groups: int = 1, extra: str = "end") -> Array:
    """Convolution with SAME padding as in TensorFlow and JAX: the output has ceil(size / stride) pixels.

    x (B, Y, X, Cin), w (kh, kw, Cin/groups, Cout), b (Cout,) or None -> (B, Yo, Xo, Cout). If the padding is an odd
    number of pixels, the extra one goes to the end, or to the start with extra="start", as in PyTorch with padding
    kernel // 2. Raises ValueError when the channels do not fit the groups.
    """
    if w.shape[2] * groups != x.shape[3] or w.shape[3] % groups:
        raise ValueError(f"conv2d: {x.shape[3]} channels in {groups} groups do not fit weights {w.shape}")
    if b is not None:
        expect(b, "Cout", Cout=w.shape[3])
    return run("conv2d", x, w, b, stride, groups, extra)


def standardise_weight(w: Array, gain: Array) -> Array:
    """Scaled weight standardisation (Brock et al. 2021, arXiv 2102.06171, section 3).

    w (kh, kw, Cin, Cout), gain (Cout,): the N = kh kw Cin weights of each output channel get mean 0 and variance 1/N,
    times a learned gain, so that the signal keeps its variance. N times the variance counts as at least 1e-4, as in the
    authors' code.
    """
    expect(gain, "Cout", Cout=w.shape[3])
    return run("standardise_weight", w, gain)


def gated_residual(shortcut: Array, branch: Array, gates: Array) -> Array:
    """shortcut + branch * gates: both (B, Y, X, C), gates (B, C), one gate for each picture and channel."""
    B, _, _, C = expect(branch, "B Y X C").shape
    expect(shortcut, "B Y X C", B=B, Y=branch.shape[1], X=branch.shape[2], C=C)
    expect(gates, "B C", B=B, C=C)
    return run("gated_residual", shortcut, branch, gates)


def mean_pixels(x: Array) -> Array:
    """Mean over the pixels: x (B, Y, X, C) -> (B, C)."""
    return run("mean_pixels", expect(x, "B Y X C"))


def max_pool3(x: Array, extra: str = "end") -> Array:
    """Largest value of 3x3 windows, stride 2: x (B, Y, X, C) -> (B, ceil(Y/2), ceil(X/2), C).

    Padded as in `conv2d`, with -inf. If values are equal, the gradient goes to the first one.
    """
    return run("max_pool3", expect(x, "B Y X C"), extra)


def avg_pool2(x: Array) -> Array:
    """Mean of 2x2 windows of the pixels that exist, stride 2: x (B, Y, X, C) -> (B, ceil(Y/2), ceil(X/2), C)."""
    return run("avg_pool2", expect(x, "B Y X C"))
