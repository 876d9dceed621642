"""Every operation at small, awkward sizes: ``CASES[name] = (function, float64 arguments)``.

Used by the tests of values, of gradients and of mutations, and run as a script in a subprocess
without a JIT or without Numba: then it checks the fast floor against the reference by itself.
Only float arguments are listed; integers and masks are inside the functions.
"""

import sys

import numpy as np

B, T, S, H, K, R, N = 2, 5, 7, 3, 4, 3, 4


def build():
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.standard_normal(shape)

    def positive(*shape):
        return np.abs(rng.standard_normal(shape)) + 0.1

    from tinyflamingo import ops

    phi = np.array([[0, 0, 1, 1, 3], [2, 4, 4, 4, 1]])
    ids = np.array([[1, 2, 1], [0, 1, 1]])
    targets = np.array([1, 2, 0, 5])
    some_weights = np.array([1.0, 0.0, 2.0, 0.5])
    key_mask = np.arange(S)[None, :] < np.array([[0], [4]])
    start = np.array([[0, 3, 7, 2, 6], [2, 2, 0, 5, 5]])  # the 7 is beyond its position: empty
    qkv = normal(B, T, H, K), normal(B, S, H, K), normal(B, S, H, K)
    media = normal(B, N, R, H, K), normal(B, N, R, H, K)
    relative = *qkv, normal(S, H, K), normal(H, K), normal(H, K)
    long = 80  # more than one block of queries
    long_start = np.where(np.arange(long) < 30, 0, 30)[None]
    long_qkv = [normal(1, long, 2, K) for _ in range(3)]

    cases = {
        "linear": (ops.linear, [normal(B, T, 6), normal(6, 5), normal(5)]),
        "linear, no bias": (ops.linear, [normal(6), normal(6, 5)]),
        "rms_norm": (ops.rms_norm, [normal(B, T, 6), normal(6)]),
        "layer_norm": (ops.layer_norm, [normal(B, T, 6), normal(6), normal(6)]),
        "gelu": (ops.gelu, [3 * normal(B, T, 6)]),
        "relu": (ops.relu, [normal(B, 6)]),
        "squared_relu": (ops.squared_relu, [normal(B, 6)]),
        "sigmoid": (ops.sigmoid, [3 * normal(B, 6)]),
        "embed": (lambda table: ops.embed(table, ids), [normal(4, 6)]),
        "cross_entropy": (
            lambda x, w: ops.cross_entropy(x, targets, w),
            [normal(4, 6), positive(4)],
        ),
        "cross_entropy, some": (
            lambda x: ops.cross_entropy(x, targets, some_weights),
            [normal(4, 6)],
        ),
        "attention": (ops.attention, qkv),
        "attention, masked": (lambda q, k, v: ops.attention(q, k, v, key_mask), qkv),
        "relative_attention": (lambda *a: ops.relative_attention(*a, start), relative),
        "relative_attention, one query": (
            lambda *a: ops.relative_attention(*a, start[:, :1]),
            [qkv[0][:, :1], *relative[1:]],
        ),
        "relative_attention, blocks": (
            lambda *a: ops.relative_attention(*a, long_start),
            [*long_qkv, normal(long, 2, K), normal(2, K), normal(2, K)],
        ),
        "segment_attention": (lambda *a: ops.segment_attention(*a, phi), [qkv[0], *media]),
        "avg_pool2, even": (ops.avg_pool2, [normal(B, 4, 6, 3)]),
        "avg_pool2, odd": (ops.avg_pool2, [normal(B, 5, 3, 2)]),
    }
    for kernel in [(1, 1), (2, 2), (3, 3), (3, 2)]:
        for stride in (1, 2, 3):
            for groups in (1, 2):
                cases[f"conv2d {kernel} stride {stride} groups {groups}"] = (
                    lambda x, w, b, s=stride, g=groups: ops.conv2d(x, w, b, s, g),
                    [normal(B, 5, 6, 4), normal(*kernel, 4 // groups, 6), normal(6)],
                )
    cases["conv2d, one pixel"] = (ops.conv2d, [normal(1, 1, 1, 2), normal(3, 3, 2, 2)])
    return cases


def gradients(function, args):
    """The value, and the gradient of a fixed random projection for every argument."""
    from autograd import make_vjp

    y = function(*args)
    c = np.random.default_rng(1).standard_normal(np.shape(y)).astype(y.dtype)
    found = []
    for i in range(len(args)):
        vjp, _ = make_vjp(lambda x, i=i: function(*args[:i], x, *args[i + 1 :]))(args[i])
        found.append(vjp(c))
    return y, found


def compare_floors(function, args, tol):
    """The largest difference between the floors, values and gradients."""
    from tinyflamingo import ops

    results = []
    for name in ("reference", "fast"):
        with ops.use(name):
            y, found = gradients(function, args)
            results.append([y, *found])
    worst = 0.0
    for expected, got in zip(*results, strict=True):
        assert np.shape(expected) == np.shape(got)
        assert expected.dtype == got.dtype
        worst = max(worst, float(np.max(np.abs(expected - got), initial=0.0)))
    assert worst <= tol, f"the floors differ by {worst}"
    return worst


def main():
    if "--no-numba" in sys.argv:
        sys.modules["numba"] = None  # an import of it now raises ImportError
    from tinyflamingo import ops

    cases = build()
    worst = max(compare_floors(*case, tol=1e-10) for case in cases.values())
    print(f"{ops.engine()}: {len(cases)} cases, largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
