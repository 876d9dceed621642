"""Every operation at the widths of real models, on both floors, values and gradients: few rows, float32.

The widths of `ops_cases.py` are small. Here: the channels of NFNets and of the NF-ResNet-50, the heads of the paper's
3B, 9B and 80B, and the vocabularies of public decoders.
"""

import numpy as np
import ops_cases
import pytest

from tinyflamingo import ops
from tinyflamingo.ops import product_kernels_numba

HEADS = {"OpenFlamingo": (8, 64), "3B": (16, 128), "9B": (32, 128), "80B": (64, 128), "one head": (1, 1024)}
D, HIDDEN, V = 8192, 32_768, 50_280  # of the 80B: width and feed-forward layer; of MPT: vocabulary


def normal(*shape, fan_in=1):
    """Normal numbers, always the same ones; weights get the variance 1 / fan_in."""
    return np.random.default_rng(7).standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)


def different(n, *shape):
    """n different arrays of a shape."""
    return list(normal(n, *shape))


def compare(function, *args):
    ops_cases.compare_floors(function, args, tol=2e-4)


# ---------------------------------------------------------------- convolution

# Pictures (B, Y, X, Cin), kernel, output channels, stride, groups, place of the extra pixel.
CONVOLUTIONS = [
    ((1, 4, 5, 128), 1, 1536, 1, 1, "end"),
    ((2, 3, 3, 1536), 1, 3072, 1, 1, "end"),  # NFNet's final convolution
    ((1, 4, 5, 16), 3, 1536, 1, 1, "end"),
    ((2, 4, 5, 16), 3, 3072, 2, 1, "end"),
    ((1, 5, 4, 1536), 3, 128, 1, 1, "end"),  # wide in backward only
    ((1, 4, 4, 768), 3, 768, 2, 6, "end"),  # NFNet's groups of 128
    ((1, 3, 4, 32), 3, 3072, 1, 2, "end"),
    ((1, 3, 4, 32), 1, 3072, 2, 2, "end"),
    ((1, 6, 4, 512), 3, 512, 2, 1, "start"),  # NF-ResNet-50
    ((1, 2, 2, 16), 3, 257, 1, 1, "start"),  # the first width without a loop
    ((9, 2, 2, 8), 2, 1001, 1, 1, "end"),
]


@pytest.mark.parametrize("size, kernel, out, stride, groups, extra", CONVOLUTIONS)
def test_convolution(size, kernel, out, stride, groups, extra):
    inputs = size[3] // groups
    w = normal(kernel, kernel, inputs, out, fan_in=kernel**2 * inputs)
    compare(lambda x, w, b: ops.conv2d(x, w, b, stride, groups, extra), normal(*size), w, normal(out))


# ---------------------------------------------------------------- attention

PHI = {
    "few tokens": [[0, 1, 1, 2], [2, 0, 1, 1]],
    "many tokens": np.repeat([[0, 1, 2, 2], [1, 1, 0, 2]], [1, 10, 3, 8], axis=1),
}


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("latents", [5, 64])
@pytest.mark.parametrize("tokens", PHI)
def test_cross_attention(heads, latents, tokens):
    phi, (H, K) = np.array(PHI[tokens]), HEADS[heads]
    k, v = different(2, 2, 2, latents, H, K)
    compare(lambda q, k, v: ops.segment_attention(q, k, v, phi), normal(*phi.shape, H, K), k, v)


@pytest.mark.parametrize("heads", ["3B", "80B"])
def test_cross_attention_to_all_previous_media(heads):
    phi, (H, K) = np.array(PHI["many tokens"]), HEADS[heads]
    k, v = different(2, 2, 2, 5, H, K)
    compare(lambda q, k, v: ops.segment_attention(q, k, v, phi, np.minimum(phi, 1)), normal(*phi.shape, H, K), k, v)


@pytest.mark.parametrize("heads", HEADS)
def test_dense_attention(heads):
    H, K = HEADS[heads]
    k, v = different(2, 2, 21, H, K)
    visible = np.arange(21) < np.array([[21], [9]])
    compare(lambda q, k, v: ops.attention(q, k, v, visible), normal(2, 5, H, K), k, v)


@pytest.mark.parametrize("heads", HEADS)
def test_relative_attention(heads):
    H, K = HEADS[heads]
    q, k, v = different(3, 1, 9, H, K)
    r, (u, vb), start = normal(9, H, K), different(2, H, K), np.array([[0, 0, 0, 0, 4, 4, 4, 4, 4]])
    compare(lambda *a: ops.relative_attention(*a, start), q, k, v, r, u, vb)


# ---------------------------------------------------------------- all others

ROWS = {
    "linear": (ops.linear, [normal(2, D), normal(D, 300, fan_in=D), normal(300)]),
    "linear, wide output": (ops.linear, [normal(2, 300), normal(300, HIDDEN, fan_in=HIDDEN), normal(HIDDEN)]),
    "rms_norm": (ops.rms_norm, [normal(2, 3, D), normal(D)]),
    "layer_norm": (ops.layer_norm, [normal(2, 3, D), *different(2, D)]),
    "gelu": (ops.gelu, [normal(2, HIDDEN)]),
    "gelu_erf": (ops.gelu_erf, [normal(2, HIDDEN)]),
    "quick_gelu": (ops.quick_gelu, [normal(2, HIDDEN)]),
    "relu": (ops.relu, [normal(2, HIDDEN)]),
    "squared_relu": (ops.squared_relu, [normal(2, HIDDEN)]),
    "sigmoid": (ops.sigmoid, [normal(2, HIDDEN)]),
    "embed": (lambda table: ops.embed(table, np.array([[1, 2, 1]])), [normal(4, D)]),
    "cross_entropy": (lambda x: ops.cross_entropy(x, np.array([1, V - 1])), [normal(2, V)]),
    "standardise_weight": (ops.standardise_weight, [normal(3, 3, 16, 3072), normal(3072)]),
    "gated_residual": (ops.gated_residual, [*different(2, 1, 2, 3, 1536), normal(1, 1536)]),
    "mean_pixels": (ops.mean_pixels, [normal(2, 2, 3, 3072)]),
    "max_pool3": (ops.max_pool3, [normal(1, 4, 5, 1536)]),
    "avg_pool2": (ops.avg_pool2, [normal(1, 4, 5, 1536)]),
}


@pytest.mark.parametrize("name", ROWS)
def test_other_operations(name):
    function, args = ROWS[name]
    compare(function, *args)


# ---------------------------------------------------------------- compilation


def test_wide_rows_share_their_kernels():
    """Nothing is compiled for a new width."""
    kernels = [product_kernels_numba._convolve, product_kernels_numba._correlate]
    kernels += [getattr(product_kernels_numba, name) for name in ("_scores", "_weighted", "_gradients")]
    phi, compiled = np.array([[1, 1, 2]]), []
    for width in (300, 300, 301):
        ops_cases.on_floor("fast", ops.conv2d, [normal(1, 2, 2, 4), normal(1, 1, 4, width)])
        media = different(2, 1, 2, 5, 1, width)
        ops_cases.on_floor("fast", lambda *a: ops.segment_attention(*a, phi), [normal(1, 3, 1, width), *media])
        compiled.append([len(kernel.signatures) for kernel in kernels])
    assert compiled[2] == compiled[1] == compiled[0]
