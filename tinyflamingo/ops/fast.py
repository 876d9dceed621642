"""The fast floor: dense layers, norms, activations, tables, losses and the optimiser, fused.

Each function equals its namesake in ``reference.py``, forward and backward, and is one
``@primitive`` with a gradient written by hand (the optimiser needs none): autograd sees one node
where the reference makes ten, and everything stays in the dtype that came in. Attention and
convolution are in ``fast_attention.py``, ``fast_relative.py``, ``fast_segment.py`` and ``fast_conv.py``.

The pattern, in all of these files: the public name wraps a primitive whose last argument,
``saved``, is an empty dict of this one call. Forward leaves there what backward needs; when nobody
differentiates, it is dropped with the call. Saved arrays are never written to again, so that a
gradient may be asked for twice.
"""

import numpy as np
from autograd.extend import defvjp, defvjp_argnums, primitive

from . import kernels
from .fast_attention import attention
from .fast_conv import avg_pool2, conv2d, gated_residual, max_pool3, mean_pixels, standardise_weight
from .fast_relative import relative_attention
from .fast_segment import segment_attention

__all__ = [
    "adamw",
    "attention",
    "avg_pool2",
    "conv2d",
    "cross_entropy",
    "embed",
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
    "sigmoid",
    "squared_relu",
    "standardise_weight",
]

CHUNK = 1 << 15  # elements of an elementwise op that stay in L2 from one pass to the next


def rows(x):
    """x as a contiguous 2-D array (everything, last axis); a view whenever it can be one."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- linear


def linear(x, w, b=None):
    """``reference.linear``: one 2-D GEMM, 2 M Din Dout flops; a 3-D matmul would loop over B.

    Backward is two more GEMMs of the same size. No (B, Din, Dout) weight gradient is ever formed.
    """
    return _linear(x, w) if b is None else _linear_bias(x, w, b)


@primitive
def _linear(x, w):
    return (rows(x) @ w).reshape(x.shape[:-1] + w.shape[1:])


@primitive
def _linear_bias(x, w, b):
    y = rows(x) @ w
    y += b
    return y.reshape(x.shape[:-1] + w.shape[1:])


def _linear_dx(ans, x, w, *b):
    return lambda g: (rows(g) @ w.T).reshape(x.shape)


def _linear_dw(ans, x, w, *b):
    return lambda g: rows(x).T @ rows(g)


def _linear_db(ans, x, w, b):
    return lambda g: column_sums(rows(g))


def column_sums(x):
    """Sum of the rows of x (M, D) -> (D,): by BLAS, which is faster than ``sum(axis=0)``."""
    return np.ones(len(x), x.dtype) @ x


defvjp(_linear, _linear_dx, _linear_dw)
defvjp(_linear_bias, _linear_dx, _linear_dw, _linear_db)


# ---------------------------------------------------------------- norms


def rms_norm(x, gain, eps):
    """``reference.rms_norm``: x is read once and y written once; keeps one number a row."""
    return _rms_norm(x, gain, eps, {})


@primitive
def _rms_norm(x, gain, eps, saved):
    x2 = rows(x)
    out = np.empty_like(x2)
    saved["inverse"] = np.empty(len(x2), x.dtype)
    kernels.rms_norm_forward(x2, gain, x.dtype.type(eps), out, saved["inverse"])
    return out.reshape(x.shape)


def _rms_norm_vjp(argnums, ans, args, kwargs):
    x, gain, _, saved = args

    def backward(g):
        x2 = rows(x)
        dx, dgain = np.empty_like(x2), np.empty_like(gain)
        kernels.rms_norm_backward(rows(g), x2, gain, saved["inverse"], dx, dgain)
        return _pick(argnums, dx.reshape(x.shape), dgain)

    return backward


defvjp_argnums(_rms_norm, _rms_norm_vjp)


def layer_norm(x, gain, bias, eps):
    """``reference.layer_norm``: x is read once and y written once; keeps two numbers a row."""
    return _layer_norm(x, gain, bias, eps, {})


@primitive
def _layer_norm(x, gain, bias, eps, saved):
    x2 = rows(x)
    out = np.empty_like(x2)
    mean, inverse = saved["mean"], saved["inverse"] = np.empty((2, len(x2)), x.dtype)
    kernels.layer_norm_forward(x2, gain, bias, x.dtype.type(eps), out, mean, inverse)
    return out.reshape(x.shape)


def _layer_norm_vjp(argnums, ans, args, kwargs):
    x, gain, bias, _, saved = args

    def backward(g):
        x2 = rows(x)
        dx, dgain, dbias = np.empty_like(x2), np.empty_like(gain), np.empty_like(bias)
        mean, inverse = saved["mean"], saved["inverse"]
        kernels.layer_norm_backward(rows(g), x2, gain, mean, inverse, dx, dgain, dbias)
        return _pick(argnums, dx.reshape(x.shape), dgain, dbias)

    return backward


defvjp_argnums(_layer_norm, _layer_norm_vjp)


def _pick(argnums, *gradients):
    """The gradients that autograd asked for, in its order."""
    return tuple(gradients[i] for i in argnums)


# ---------------------------------------------------------------- activations


def gelu(x, gain):
    """``reference.gelu`` in chunks that stay in L2: 1r 2w of memory, t = tanh(inner) is kept.

    NumPy's tanh is vectorised, a ``math.tanh`` in a Numba loop is not: a kernel, NumPy, a kernel.
    """
    return _gelu(x, gain, {})


@primitive
def _gelu(x, gain, saved):
    gain = x.dtype.type(gain)
    flat = np.ascontiguousarray(x).reshape(-1)
    t = saved["t"] = np.empty_like(flat)
    out = np.empty_like(flat)
    for i in range(0, len(flat), CHUNK):
        xi, ti = flat[i : i + CHUNK], t[i : i + CHUNK]
        kernels.gelu_inner(xi, ti)
        np.tanh(ti, out=ti)
        kernels.gelu_outer(xi, ti, gain, out[i : i + CHUNK])
    return out.reshape(x.shape)


def _gelu_vjp(ans, x, gain, saved):
    gain = x.dtype.type(gain)

    def backward(g):
        flat, gflat = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(g).reshape(-1)
        dx = np.empty_like(flat)
        for i in range(0, len(flat), CHUNK):
            part = slice(i, i + CHUNK)
            kernels.gelu_backward(gflat[part], flat[part], saved["t"][part], gain, dx[part])
        return dx.reshape(x.shape)

    return backward


defvjp(_gelu, _gelu_vjp)


def quick_gelu(x):
    """``reference.quick_gelu`` in chunks that stay in L2: 1r 2w of memory, the sigmoid is kept."""
    return _quick_gelu(x, {})


@primitive
def _quick_gelu(x, saved):
    flat = np.ascontiguousarray(x).reshape(-1)
    gate, out = np.empty_like(flat), np.empty_like(flat)
    saved["gate"] = gate
    for i in range(0, len(flat), CHUNK):
        part = slice(i, i + CHUNK)
        np.multiply(flat[part], x.dtype.type(0.851), out=gate[part])  # sigmoid(2 y) = (tanh(y) + 1) / 2
        np.tanh(gate[part], out=gate[part])
        gate[part] += 1
        gate[part] *= 0.5
        np.multiply(flat[part], gate[part], out=out[part])
    return out.reshape(x.shape)


def _quick_gelu_vjp(ans, x, saved):
    def backward(g):
        flat, gate = np.ascontiguousarray(x).reshape(-1), saved["gate"]
        dx = np.empty_like(flat)
        for i in range(0, len(flat), CHUNK):
            part = slice(i, i + CHUNK)
            np.subtract(1, gate[part], out=dx[part])  # gate (1 + 1.702 x (1 - gate))
            dx[part] *= flat[part]
            dx[part] *= x.dtype.type(1.702)
            dx[part] += 1
            dx[part] *= gate[part]
        return dx.reshape(x.shape) * g

    return backward


defvjp(_quick_gelu, _quick_gelu_vjp)


@primitive
def gelu_erf(x):
    """``reference.gelu_erf``: 1r 1w; keeps nothing but x. Backward 2r 1w."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    kernels.gelu_erf_forward(flat, out)
    return out.reshape(x.shape)


def _gelu_erf_vjp(ans, x):
    def backward(g):
        flat, gflat = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(g).reshape(-1)
        dx = np.empty_like(flat)
        kernels.gelu_erf_backward(gflat, flat, dx)
        return dx.reshape(x.shape)

    return backward


defvjp(gelu_erf, _gelu_erf_vjp)


@primitive
def relu(x):
    """``reference.relu``: 1r 1w; backward reads the output for its mask."""
    return np.maximum(x, 0)


defvjp(relu, lambda ans, x: lambda g: g * (ans > 0))


@primitive
def squared_relu(x):
    """``reference.squared_relu``: 1r 1w; keeps nothing but x. Backward 2r 1w."""
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    kernels.squared_relu_forward(x.reshape(-1), out.reshape(-1))
    return out


def _squared_relu_vjp(ans, x):
    def backward(g):
        x1, g1 = np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(g).reshape(-1)
        dx = np.empty_like(x1)
        kernels.squared_relu_backward(g1, x1, dx)
        return dx.reshape(x.shape)

    return backward


defvjp(squared_relu, _squared_relu_vjp)


@primitive
def sigmoid(x):
    """``reference.sigmoid``: 1r 1w and three passes in place; backward needs only the output."""
    y = np.multiply(x, 0.5)
    y = np.tanh(y)
    y += 1
    y *= 0.5
    return y


defvjp(sigmoid, lambda ans, x: lambda g: g * (ans * (1 - ans)))


# ---------------------------------------------------------------- tables and losses


@primitive
def embed(table, ids):
    """``reference.embed``: M rows copied. Backward adds M rows into zeros: no sort, no add.at."""
    return table[ids]


def _embed_vjp(ans, table, ids):
    def backward(g):
        dtable = np.zeros_like(table)
        kernels.scatter_add_rows(rows(g), np.ascontiguousarray(ids).reshape(-1), dtable)
        return dtable

    return backward


defvjp(embed, _embed_vjp)


def cross_entropy(logits, targets):
    """``reference.cross_entropy``: 1r 1w of (M, V), exp by NumPy; keeps the probabilities.

    Backward is one more 1r 1w. No one-hot targets are formed.
    """
    return _cross_entropy(logits, targets, {})


@primitive
def _cross_entropy(logits, targets, saved):
    M, V = logits.shape
    p = saved["p"] = np.empty((M, V), logits.dtype)
    nll = np.empty(M, p.dtype)
    step = max(CHUNK // V, 1)
    for i in range(0, M, step):
        part = p[i : i + step]
        np.copyto(part, logits[i : i + step])
        kernels.subtract_row_max(part)
        at_target = part[np.arange(len(part)), targets[i : i + step]]
        np.exp(part, out=part)
        total = part.sum(axis=1)
        part /= total[:, None]
        nll[i : i + step] = np.log(total) - at_target
    return nll


def _cross_entropy_vjp(ans, logits, targets, saved):
    def backward(g):
        dlogits = saved["p"] * g[:, None]
        dlogits[np.arange(len(targets)), targets] -= g
        return dlogits

    return backward


defvjp(_cross_entropy, _cross_entropy_vjp)


# ---------------------------------------------------------------- the optimiser


def adamw(x, m, v, g, decay, rate, beta_1, beta_2, unbias_1, unbias_2, epsilon):
    """``reference.adamw`` in one pass: 5r 3w of memory, no temporaries."""
    kernels.adamw(x, m, v, g, decay, *map(x.dtype.type, (rate, beta_1, beta_2, unbias_1, unbias_2, epsilon)))
