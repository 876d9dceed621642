"""Arrays without numbers: they have NumPy's shapes and take no memory, and their products are counted."""

import tracemalloc

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.ops.hollow import Hollow, HollowGenerator, hollow, tally

SHAPES = {
    "sums": lambda x: [np.sum(x), np.sum(x, axis=1), np.sum(x, axis=-1, keepdims=True), np.max(x, axis=(0, 2))],
    "arithmetic": lambda x: [x + 1, 2.0 * x * x[:, :1], x / np.exp(x[0]), -x, x > 0, np.ones((5, 1, 1, 1)) * x],
    "joining": lambda x: [np.concatenate([x, x[:, :1]], axis=1), np.pad(x, ((0, 0), (1, 2), (0, 3)))],
    "products": lambda x: [np.matmul(x, x[0].T), np.matmul(np.ones((5, 1, 2, 3)), x), x @ x[0].T],
    "einsum": lambda x: [np.einsum("abc,dbc->adb", x, x)],
    "views": lambda x: [x[1], x[:, None], x[..., ::2], x[[0, 1, 1]], np.reshape(x, (-1, 4)), x.T],
    "qr": lambda x: [np.linalg.qr(x[0, :3, :3])[0][:2]],
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_numpy(name):
    real = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    for filled, empty in zip(SHAPES[name](real), SHAPES[name](hollow((2, 3, 4))), strict=True):
        assert isinstance(empty, Hollow) and empty.shape == np.shape(filled)


def test_an_array_of_a_terabyte_takes_no_memory():
    tracemalloc.start()
    x = HollowGenerator().standard_normal((500_000, 500_000))
    y = np.tanh((x * 3.0).astype(np.float32) @ x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.shape == (500_000, 500_000) and y.size == 25 * 10**10 and peak < 1e5


def test_products_are_counted_inside_tally():
    x, w = hollow((2, 5, 3)), hollow((3, 7))
    with tally() as outer:
        np.matmul(x, w)
        with tally() as inner:
            np.einsum("abc,adc->abd", x, x)
    np.matmul(x, w)
    assert inner.flops == 2 * 2 * 5 * 5 * 3 and inner.bytes == 4 * (30 + 30 + 50)
    assert outer.flops == inner.flops + 2 * 2 * 5 * 3 * 7 and outer.bytes == inner.bytes + 4 * (30 + 21 + 70)
    assert (inner + outer).flops == inner.flops + outer.flops and (inner * 3).bytes == 3 * inner.bytes


def test_nested_tallies_with_equal_counts():
    """The inner one is removed, not an equal outer one."""
    with tally() as outer:
        with tally() as inner:
            pass
        np.matmul(hollow((2, 3)), hollow((3, 4)))
    assert inner.flops == 0 and outer.flops == 2 * 2 * 3 * 4


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_every_tap(groups):
    with ops.use("reference"), tally() as total:
        y = ops.conv2d(hollow((2, 7, 9, 4)), hollow((3, 3, 4 // groups, 6)), None, 2, groups)
    assert y.shape == (2, 4, 5, 6)
    assert total.flops == 2 * (2 * 4 * 5) * 6 * 9 * (4 // groups)
