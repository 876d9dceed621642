"""The fast floor: dense layers, norms, activations, tables, losses and the optimiser, fused.

Each function equals the function of the same name in ``reference.py``, forward and backward. It is one ``@primitive``
with a gradient written by hand (the optimiser needs none): autograd records one node where the reference makes ten, and
the dtype of the input is kept. Attention and convolution are in ``fast_attention.py``, ``fast_relative.py``,
``fast_segment.py`` and ``fast_conv.py``. Docstrings give the memory traffic: "2r 1w" reads two arrays of the size of x
and writes one.

The pattern in all these files: the public function calls a primitive whose last argument, ``saved``, is a new empty
dict. Forward stores in it what backward needs. If nobody differentiates, it is freed with the call. Saved arrays are
not written again, so a gradient can be computed twice. Implements no section of the chapter.
"""

from __future__ import annotations

import numpy as np

from . import kernels
from .fast_attention import attention  # noqa: F401
from .fast_conv import avg_pool2, conv2d, gated_residual, max_pool3, mean_pixels, standardise_weight  # noqa: F401
from .fast_relative import relative_attention  # noqa: F401
from .fast_segment import segment_attention  # noqa: F401
from .gradients import defvjp, defvjp_all, primitive
from .types import Array

CHUNK = 1 << 15  # logits that stay in L2 from one pass to the next


def rows(x: Array) -> Array:
    """x as a contiguous 2-D array (all other axes, last axis); a view if possible."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- dense layers and norms


@primitive
def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """``reference.linear``: one 2-D GEMM, 2 M Din Dout flops; a 3-D matmul would loop over B.

    Backward is two more GEMMs of the same size. It never makes a weight gradient for each example (B, Din, Dout).
    """
    y = x.reshape(-1, x.shape[-1]) @ w
    if b is not None:
        y += b
    return y.reshape(x.shape[:-1] + w.shape[1:])


defvjp(
    linear,
    lambda ans, x, w, b: lambda g: (rows(g) @ w.T).reshape(x.shape),
    lambda ans, x, w, b: lambda g: rows(x).T @ rows(g),
    lambda ans, x, w, b: lambda g: np.ones(len(rows(g)), g.dtype) @ rows(g),  # BLAS is faster than sum(axis=0)
)


def rms_norm(x: Array, gain: Array, eps: float) -> Array:
    """``reference.rms_norm``: 1r 1w; saves one number for each row."""
    return _rms_norm(x, gain, eps, {})


@primitive
def _rms_norm(x, gain, eps, saved):
    x2 = rows(x)
    out = np.empty_like(x2)
    saved["inverse"] = np.empty(len(x2), x.dtype)
    kernels.rms_norm_forward(x2, gain, x.dtype.type(eps), out, saved["inverse"])
    return out.reshape(x.shape)


def _rms_norm_backward(g, x, gain, eps, saved):
    x2 = rows(x)
    dx, dgain = np.empty_like(x2), np.empty_like(gain)
    kernels.rms_norm_backward(rows(g), x2, gain, saved["inverse"], dx, dgain)
    return dx.reshape(x.shape), dgain


defvjp_all(_rms_norm, _rms_norm_backward)


def layer_norm(x: Array, gain: Array, bias: Array, eps: float) -> Array:
    """``reference.layer_norm``: 1r 1w; saves two numbers for each row."""
    return _layer_norm(x, gain, bias, eps, {})


@primitive
def _layer_norm(x, gain, bias, eps, saved):
    x2 = rows(x)
    out = np.empty_like(x2)
    mean, inverse = saved["mean"], saved["inverse"] = np.empty((2, len(x2)), x.dtype)
    kernels.layer_norm_forward(x2, gain, bias, x.dtype.type(eps), out, mean, inverse)
    return out.reshape(x.shape)


def _layer_norm_backward(g, x, gain, bias, eps, saved):
    x2 = rows(x)
    dx, dgain, dbias = np.empty_like(x2), np.empty_like(gain), np.empty_like(bias)
    kernels.layer_norm_backward(rows(g), x2, gain, saved["mean"], saved["inverse"], dx, dgain, dbias)
    return dx.reshape(x.shape), dgain, dbias


defvjp_all(_layer_norm, _layer_norm_backward)


# ---------------------------------------------------------------- activations


def _flat(x):
    """x as a contiguous vector; a view if possible."""
    return np.ascontiguousarray(x).reshape(-1)


def _elementwise(kernel, *arrays):
    """A new array like the last one, filled by ``kernel(*arrays, out)`` on vectors."""
    out = np.empty(arrays[-1].shape, arrays[-1].dtype)
    kernel(*map(_flat, arrays), out.reshape(-1))
    return out


@primitive
def gelu(x: Array, gain: float) -> Array:
    """``reference.gelu``: 1r 1w, backward 2r 1w; saves nothing but x, backward computes the tanh again."""
    out = np.empty(x.shape, x.dtype)
    kernels.gelu_forward(_flat(x), x.dtype.type(gain), out.reshape(-1))
    return out


def _gelu_backward(g, x, gain):
    dx = np.empty(x.shape, x.dtype)
    kernels.gelu_backward(_flat(g), _flat(x), x.dtype.type(gain), dx.reshape(-1))
    return dx


defvjp_all(gelu, _gelu_backward)


def quick_gelu(x: Array) -> Array:
    """``reference.quick_gelu``; saves the sigmoid."""
    return _quick_gelu(x, {})


@primitive
def _quick_gelu(x, saved):
    gate = np.tanh(x * x.dtype.type(0.851))  # sigmoid(2 y) = (tanh(y) + 1) / 2
    gate += 1
    gate *= 0.5
    saved["gate"] = gate
    return x * gate


def _quick_gelu_backward(g, x, saved):
    dx = 1 - saved["gate"]  # gate (1 + 1.702 x (1 - gate))
    dx *= x
    dx *= x.dtype.type(1.702)
    dx += 1
    dx *= saved["gate"]
    return dx * g


defvjp_all(_quick_gelu, _quick_gelu_backward)


@primitive
def gelu_erf(x: Array) -> Array:
    """``reference.gelu_erf``: 1r 1w, backward 2r 1w; saves nothing but x."""
    return _elementwise(kernels.gelu_erf_forward, x)


defvjp(gelu_erf, lambda ans, x: lambda g: _elementwise(kernels.gelu_erf_backward, g, x))


@primitive
def relu(x: Array) -> Array:
    """``reference.relu``: 1r 1w; backward takes its mask from the output."""
    return np.maximum(x, 0)


defvjp(relu, lambda ans, x: lambda g: g * (ans > 0))


@primitive
def squared_relu(x: Array) -> Array:
    """``reference.squared_relu``: 1r 1w, backward 2r 1w; saves nothing but x."""
    return _elementwise(kernels.squared_relu_forward, x)


defvjp(squared_relu, lambda ans, x: lambda g: _elementwise(kernels.squared_relu_backward, g, x))


@primitive
def sigmoid(x: Array) -> Array:
    """``reference.sigmoid``: 2r 2w and two passes in place; backward needs only the output."""
    y = np.multiply(x, 0.5)
    y = np.tanh(y)
    y += 1
    y *= 0.5
    return y


defvjp(sigmoid, lambda ans, x: lambda g: g * (ans * (1 - ans)))


# ---------------------------------------------------------------- tables, losses, the optimiser


@primitive
def embed(table: Array, ids: Array) -> Array:
    """``reference.embed``: copies M rows. Backward adds M rows to zeros, without a sort or ``np.add.at``."""
    return table[ids]


def _embed_backward(g, table, ids):
    dtable = np.zeros_like(table)
    kernels.scatter_add_rows(rows(g), _flat(ids), dtable)
    return dtable


defvjp_all(embed, _embed_backward)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """``reference.cross_entropy``: 1r 1w of (M, V), exp by NumPy; saves the probabilities.

    Backward is 1r 1w more. Makes no one-hot targets.
    """
    return _cross_entropy(logits, targets, {})


@primitive
def _cross_entropy(logits, targets, saved):
    M, V = logits.shape
    p = saved["p"] = np.empty((M, V), logits.dtype)
    losses = np.empty(M, p.dtype)
    step = max(CHUNK // V, 1)
    for i in range(0, M, step):
        part = p[i : i + step]
        np.copyto(part, logits[i : i + step])
        kernels.subtract_row_max(part)
        at_target = part[np.arange(len(part)), targets[i : i + step]]
        np.exp(part, out=part)
        total = part.sum(axis=1)
        part /= total[:, None]
        losses[i : i + step] = np.log(total) - at_target
    return losses


def _cross_entropy_backward(g, logits, targets, saved):
    dlogits = saved["p"] * g[:, None]
    dlogits[np.arange(len(targets)), targets] -= g
    return dlogits


defvjp_all(_cross_entropy, _cross_entropy_backward)


def adamw(x: Array, m: Array, v: Array, g: Array, decay: Array, *rates: float) -> None:
    """``reference.adamw`` in one pass: 5r 3w of memory, no temporary arrays."""
    kernels.adamw(x, m, v, g, decay, *map(x.dtype.type, rates))
