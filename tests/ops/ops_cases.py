"""Every operation at small, awkward sizes: ``CASES[name] = (function, float64 arguments)``.

The tests of values, gradients and mutants use them. Run as a script, in a subprocess without JIT or without Numba, this
file compares the fast floor with the reference. Only float arguments are listed; integers and masks are inside the
functions.
"""

import sys

import numpy as np

from tinyflamingo import ops

B, T, S, H, K, R, N = 2, 5, 7, 3, 4, 3, 4


def build():
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.standard_normal(shape)

    phi = np.array([[0, 0, 1, 1, 3], [2, 4, 4, 4, 1]])
    ids = np.array([[1, 2, 1], [0, 1, 1]])
    targets = np.array([1, 2, 0, 5])
    key_mask = np.arange(S)[None, :] < np.array([[0], [4]])
    visible_from = np.array([[0, 3, 7, 2, 6], [2, 2, 0, 5, 5]])  # the 7 is after its own position: no key is visible
    qkv = normal(B, T, H, K), normal(B, S, H, K), normal(B, S, H, K)
    media = normal(B, N, R, H, K), normal(B, N, R, H, K)
    first = np.array([[0, 0, 1, 1, 2], [2, 1, 4, 2, 1]])
    # Lengths of runs and numbers of latents that no loop divides; some are large enough for BLAS and for padding.
    many = np.repeat([[0, 1, 2, 3], [1, 1, 0, 3]], [2, 11, 9, 8], axis=1)
    many_first = np.minimum(many, np.repeat([[0, 1, 1, 3], [1, 1, 0, 1]], [2, 11, 9, 8], axis=1))
    many_qkv = normal(2, 30, 2, 5), normal(2, 3, 9, 2, 5), normal(2, 3, 9, 2, 5)
    relative = *qkv, normal(S, H, K), normal(H, K), normal(H, K)
    long = 80  # more than one block of queries
    long_start = np.where(np.arange(long) < 30, 0, 30)[None]
    rows_start = np.array([[0] * 9 + [9] * 11 + [22] * 6, [-1] * 8 + [20] * 4 + [9] * 14])  # 2 blocks; unordered starts
    rows_qkv = normal(2, 26, 2, K), normal(2, 29, 2, K), normal(2, 29, 2, K)
    long_qkv = [normal(1, long, 2, K) for _ in range(3)]

    cases = {
        "linear": (ops.linear, [normal(B, T, 6), normal(6, 5), normal(5)]),
        "linear, no bias": (ops.linear, [normal(6), normal(6, 5)]),
        "rms_norm": (ops.rms_norm, [normal(B, T, 6), normal(6)]),
        "layer_norm": (ops.layer_norm, [normal(B, T, 6), normal(6), normal(6)]),
        "gelu": (ops.gelu, [3 * normal(B, T, 6)]),
        "gelu, gain": (lambda x: ops.gelu(x, 1.7), [3 * normal(B, T, 6)]),
        "gelu_erf": (ops.gelu_erf, [3 * normal(B, T, 6)]),
        "quick_gelu": (ops.quick_gelu, [3 * normal(B, T, 6)]),
        "relu": (ops.relu, [normal(B, 6)]),
        "squared_relu": (ops.squared_relu, [normal(B, 6)]),
        "sigmoid": (ops.sigmoid, [3 * normal(B, 6)]),
        "embed": (lambda table: ops.embed(table, ids), [normal(4, 6)]),
        "cross_entropy": (lambda x: ops.cross_entropy(x, targets), [normal(4, 6)]),
        "attention": (ops.attention, qkv),
        "attention, masked": (lambda q, k, v: ops.attention(q, k, v, key_mask), qkv),
        "relative_attention": (lambda *a: ops.relative_attention(*a, visible_from), relative),
        "relative_attention, one query": (
            lambda *a: ops.relative_attention(*a, visible_from[:, :1]),
            [qkv[0][:, :1], *relative[1:]],
        ),
        "relative_attention, blocks": (
            lambda *a: ops.relative_attention(*a, long_start),
            [*long_qkv, normal(long, 2, K), normal(2, K), normal(2, K)],
        ),
        "relative_attention, rows": (
            lambda *a: ops.relative_attention(*a, rows_start),
            [*rows_qkv, normal(29, 2, K), normal(2, K), normal(2, K)],
        ),
        "segment_attention": (lambda *a: ops.segment_attention(*a, phi), [qkv[0], *media]),
        "segment_attention, previous": (lambda *a: ops.segment_attention(*a, phi, first), [qkv[0], *media]),
        "segment_attention, long": (lambda *a: ops.segment_attention(*a, many), many_qkv),
        "segment_attention, long, previous": (lambda *a: ops.segment_attention(*a, many, many_first), many_qkv),
        "avg_pool2, even": (ops.avg_pool2, [normal(B, 4, 6, 3)]),
        "avg_pool2, odd": (ops.avg_pool2, [normal(B, 5, 3, 2)]),
        "max_pool3, even": (ops.max_pool3, [normal(B, 4, 6, 3)]),
        "max_pool3, odd": (ops.max_pool3, [normal(B, 5, 3, 2)]),
        "max_pool3, odd first": (lambda x: ops.max_pool3(x, "start"), [normal(B, 6, 7, 2)]),
        "max_pool3, one pixel": (lambda x: ops.max_pool3(x, "start"), [normal(B, 1, 2, 2)]),
        "mean_pixels": (ops.mean_pixels, [normal(B, 3, 5, 4)]),
        "gated_residual": (ops.gated_residual, [normal(B, 3, 5, 4), normal(B, 3, 5, 4), normal(B, 4)]),
        "standardise_weight": (ops.standardise_weight, [2 + normal(3, 2, 4, 5), normal(5)]),
        "standardise_weight, flat": (ops.standardise_weight, [0.001 * normal(1, 1, 3, 2), normal(2)]),
    }
    for kernel in [(1, 1), (2, 2), (3, 3), (3, 2)]:
        for stride in (1, 2, 3):
            for groups in (1, 2):
                _add_conv(cases, normal, (B, 5, 6, 4), kernel, 6, stride, groups)
    # Multiples of four pixels or inputs and others; one pixel; a kernel larger than the picture.
    for width in (1, 3, 4, 7, 8, 9):
        _add_conv(cases, normal, (2, 2, width, 3), (3, 3), 3)
    _add_conv(cases, normal, (1, 2, 9, 5), (1, 3), 6, stride=2)
    _add_conv(cases, normal, (1, 1, 1, 2), (3, 3), 3)
    _add_conv(cases, normal, (2, 2, 3, 2), (5, 7), 3)
    _add_conv(cases, normal, (2, 2, 3, 2), (5, 7), 3, stride=3)
    # More than 16 channels: with stride 1, backward is a convolution with the flipped kernel.
    for kernel in [(1, 1), (2, 2), (3, 3), (3, 2)]:
        _add_conv(cases, normal, (2, 3, 5, 17), kernel, 6)
    _add_conv(cases, normal, (2, 4, 5, 17), (3, 3), 6, stride=2)
    _add_conv(cases, normal, (1, 3, 4, 34), (3, 3), 6, groups=2)
    _add_conv(cases, normal, (1, 1, 1, 17), (5, 4), 3)
    for kernel, stride in [((3, 3), 2), ((7, 7), 2), ((2, 2), 1), ((1, 1), 2)]:
        _add_conv(cases, normal, (2, 6, 5, 3), kernel, 4, stride, extra="start")
    _add_conv(cases, normal, (2, 4, 4, 17), (2, 4), 3, extra="start")
    _add_conv(cases, normal, (9, 2, 3, 1), (2, 2), 3)  # more pictures than NumPy's kernels process at a time
    _add_square(cases, normal)
    _add_conv(cases, normal, (1, 2, 15, 2), (1, 2), 25)  # tiles of all sizes
    return cases


def _add_square(cases, normal, n=5):
    """Square matrices in every product: a forgotten transposition gives wrong numbers, not an error of shapes."""
    qkv, media, ones = [normal(n, n, n, n) for _ in range(3)], normal(2, 1, 1, n, n, n), np.ones((1, n), int)
    more = {
        "linear, square": (ops.linear, [normal(n, n), normal(n, n), normal(n)]),
        "rms_norm, square": (ops.rms_norm, [normal(n, n), normal(n)]),
        "layer_norm, square": (ops.layer_norm, [normal(n, n), normal(n), normal(n)]),
        "attention, square": (ops.attention, qkv),
        "relative_attention, square": (
            lambda *a: ops.relative_attention(*a, np.zeros((n, n), int)),
            [*qkv, normal(n, n, n), normal(n, n), normal(n, n)],
        ),
        "segment_attention, square": (lambda *a: ops.segment_attention(*a, ones), [qkv[0][:1], *media]),
        "gated_residual, square": (ops.gated_residual, [normal(n, n, n, n), normal(n, n, n, n), normal(n, n)]),
        "standardise_weight, square": (ops.standardise_weight, [normal(1, 1, n, n), normal(n)]),
    }
    cases.update(more)
    _add_conv(cases, normal, (1, 2, 2, 1), (2, 2), 4)  # as many pixels as inputs and outputs
    _add_conv(cases, normal, (1, 2, 2, 17), (2, 2), 17)


def _add_conv(cases, normal, size, kernel, out, stride=1, groups=1, extra="end"):
    """A convolution of pictures `size` (B, Y, X, Cin) to `out` channels."""
    name = f"conv2d of {size} by {kernel} to {out}, stride {stride}, groups {groups}, extra pixel at the {extra}"
    cases[name] = (
        lambda x, w, b: ops.conv2d(x, w, b, stride, groups, extra),
        [normal(*size), normal(*kernel, size[3] // groups, out), normal(out)],
    )


def gradients(function, args):
    """The value, and the gradient of a fixed random projection for every argument."""
    from autograd import make_vjp

    y = function(*args)
    c = np.random.default_rng(1).standard_normal(np.shape(y)).astype(y.dtype)
    results = []
    for i in range(len(args)):
        vjp, _ = make_vjp(lambda x, i=i: function(*args[:i], x, *args[i + 1 :]))(args[i])
        results.append(vjp(c))
    return y, results


def on_floor(name, function, args):
    """The value and the gradients on one floor."""
    with ops.use(name):
        y, results = gradients(function, args)
    return [y, *results]


def compare(expected, got, tol):
    """The largest difference between the results of two floors."""
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        assert np.shape(a) == np.shape(b)
        assert a.dtype == b.dtype
        difference = float(np.max(np.abs(a - b), initial=0.0))
        assert difference <= tol, f"the floors differ by {difference}"  # each one: Python's max may ignore NaN
        worst = max(worst, difference)
    return worst


def compare_floors(function, args, tol):
    """The largest difference between the floors, values and gradients."""
    return compare(*(on_floor(name, function, args) for name in ("reference", "fast")), tol)


def compare_adamw(tol):
    """Three steps of the optimiser on both floors: the largest difference of parameters and moments."""
    rng, results = np.random.default_rng(5), []
    initial, gradients, decay = rng.standard_normal(33), rng.standard_normal((3, 33)), rng.uniform(0, 1, 33)
    for name in ("reference", "fast"):
        state = np.stack([initial, np.zeros(33), np.zeros(33)])
        with ops.use(name):
            for t, g in enumerate(gradients, start=1):
                ops.adamw(*state, g, decay, 0.01, 0.9, 0.98, 1 - 0.9**t, 1 - 0.98**t, 1e-8)
        results.append(state)
    worst = float(np.max(np.abs(results[0] - results[1])))
    assert worst <= tol, f"the floors differ by {worst}"
    return worst


def main():
    if "--no-numba" in sys.argv:
        sys.modules["numba"] = None  # importing it now raises ImportError
    cases = build()
    worst = max(compare_adamw(1e-14), *(compare_floors(*case, tol=1e-10) for case in cases.values()))
    print(f"{ops.engine()}: {len(cases)} cases, largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
