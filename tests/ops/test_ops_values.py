"""The two floors agree, with Numba, without its JIT and without Numba. float32 stays float32."""

import os
import subprocess
import sys
from pathlib import Path

import autograd.numpy as anp
import numpy as np
import ops_cases
import pytest
from autograd import make_vjp
from float32 import assert_float32_backward

from tinyflamingo import ops

ROOT = Path(__file__).parents[2]
CASES = ops_cases.build()
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_floors_agree(name):
    ops_cases.compare_floors(*CASES[name], tol=1e-10)


def test_floors_agree_on_the_optimiser():
    ops_cases.compare_adamw(1e-14)


@each_case
def test_floors_agree_in_float32(name):
    function, args = CASES[name]
    ops_cases.compare_floors(function, [a.astype(np.float32) for a in args], tol=2e-4)


@each_case
def test_gradients(name, floor):
    function, args = CASES[name]
    ops.check_grad(function, *args)


@each_case
def test_float32_inside_backward(name, floor):
    """The guards fail if a gradient is float64 at the inputs or the output."""
    function, args = CASES[name]
    args = [a.astype(np.float32) for a in args]

    def guarded(packed):
        inputs = [assert_float32_backward(x * np.float32(1)) for x in packed]
        y = function(*inputs)
        assert y.dtype == np.float32
        return anp.sum(assert_float32_backward(y) * np.float32(0.5))

    vjp, value = make_vjp(guarded)(tuple(args))
    assert value.dtype == np.float32
    assert all(g.dtype == np.float32 for g in vjp(np.float32(1)))


@each_case
def test_strided_inputs(name):
    """Views that are not contiguous, such as a slice of a packed qkv, give the same numbers."""
    function, args = CASES[name]
    views = []
    for a in args:
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]))
        wide[..., ::2] = a
        views.append(wide[..., ::2])
    for y, z in zip(_flat(function, args), _flat(function, views), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-10, atol=1e-12)


def _flat(function, args):
    y, gradients = ops_cases.gradients(function, args)
    return [y, *gradients]


@each_case
def test_inputs_are_not_written_to(name, floor):
    function, args = CASES[name]
    copies = [a.copy() for a in args]
    ops_cases.gradients(function, args)
    for a, copy in zip(args, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


@each_case
def test_gradient_may_be_computed_twice(name, floor):
    function, args = CASES[name]
    vjp, y = make_vjp(lambda x: function(x, *args[1:]))(args[0])
    g = np.ones_like(y)
    np.testing.assert_array_equal(vjp(g), vjp(g))


def _run_cases(*arguments, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TINYFLAMINGO_OPS": "fast", **environment}
    command = [sys.executable, "-W", "ignore", str(Path(ops_cases.__file__)), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_jit():
    assert _run_cases(NUMBA_DISABLE_JIT="1").startswith("numba:")


def test_without_numba():
    assert _run_cases("--no-numba").startswith("numpy:")


@pytest.mark.parametrize(
    "module, unwanted",
    [
        ("tinyflamingo.ops", ("numba", "llvmlite", "torch", "tinyflamingo.ops.fast", "tinyflamingo.ops.kernels")),
        ("tinyflamingo", ("numpy", "autograd", "numba", "tinyflamingo.ops")),
        ("tinyflamingo.cli", ("numpy", "autograd", "numba", "tinyflamingo.ops")),
        ("tinyflamingo.training.run", ("numba", "llvmlite", "torch")),
    ],
)
def test_an_import_loads_no_more_than_it_needs(module, unwanted):
    """A module that is not loaded is not compiled either."""
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({unwanted!r})))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_unknown_floor_names_both():
    code = "from tinyflamingo import ops; import numpy as np; ops.relu(np.ones(3))"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TINYFLAMINGO_OPS": "quick"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "TINYFLAMINGO_OPS must be 'reference' or 'fast', not 'quick'" in done.stderr
    with pytest.raises(ValueError, match="'reference' or 'fast'"), ops.use("quick"):
        pass


# ---- arrays of different precision -------------------------------------------------------------


@pytest.mark.parametrize("dtypes", ["fd", "df"])
@pytest.mark.parametrize("channels", [3, 8, 16, 25])
def test_pictures_and_weights_of_different_precision(floor, rng, dtypes, channels):
    """As float32 pictures in a model of float64. Forward and gradients are near those in one precision."""
    x, w = (rng.standard_normal(shape) for shape in ((2, 9, 7, 3), (3, 3, 3, channels)))

    def run(x, w):
        y, _, pull = ops.vjp(lambda p: ops.conv2d(p["x"], p["w"], None, stride=2), {"x": x, "w": w})
        return [y, *pull(np.ones_like(y)).values()]

    exact = run(x, w)
    for value, expected in zip(run(x.astype(dtypes[0]), w.astype(dtypes[1])), exact, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side, channels", [(1, 5), (3, 5), (3, 40), (3, 300)])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_picture_gives_no_output_and_no_gradient(floor, side, channels, stride):
    x, w = np.zeros((0, 6, 5, 20), "f4"), np.ones((side, side, 20, channels), "f4")
    y, _, pull = ops.vjp(lambda p: ops.conv2d(p["x"], p["w"], None, stride), {"x": x, "w": w})
    gradients = pull(np.zeros_like(y))
    assert y.shape == (0, -(-6 // stride), -(-5 // stride), channels)
    assert gradients["x"].shape == x.shape and not gradients["w"].any()


@pytest.mark.parametrize("dtypes", ["fdd", "dff", "fdf", "ddf"])
def test_tokens_and_media_of_different_precision(floor, rng, dtypes):
    q, k, v = (rng.standard_normal(shape) for shape in ((1, 40, 2, 16), (1, 2, 4, 2, 16), (1, 2, 4, 2, 16)))
    phi = np.repeat([[0, 1, 2]], (10, 20, 10), axis=1)

    def run(*arrays):
        y, _, pull = ops.vjp(lambda p: ops.segment_attention(*p.values(), phi), dict(zip("qkv", arrays, strict=True)))
        return [y, *pull(np.ones_like(y)).values()]

    mixed = run(*(array.astype(dtype) for array, dtype in zip((q, k, v), dtypes, strict=True)))
    for value, expected in zip(mixed, run(q, k, v), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
