"""What Numba compiles, how often, and that the user hears about it; the tanh of the kernels."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import ops_cases
import pytest

from tinyflamingo import ops

numba = pytest.importorskip("numba")

from tinyflamingo.ops import jit, kernels_numba, product_kernels_numba  # noqa: E402

ROOT = Path(__file__).parents[2]
LINE = "compiling the kernels, once on this machine"
compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

STEPS = """
from numba.core import event
from tinyflamingo import ops
from tinyflamingo.bench.contest import Inputs
from tinyflamingo.bench.lines import LINES

inputs = Inputs(False)
with event.install_recorder("numba:compile") as recorder, ops.use_workers(1):
    LINES["contrastive_step"].build(inputs).ours()
    LINES["language_step"].build(inputs).ours()
    LINES["flamingo_step"].build(inputs).ours()
print(sum(happened.is_start for _, happened in recorder.buffer))
"""


def _run(code, folder, **environment):
    """(what a new process prints, its stderr), with the cache of Numba in a folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TINYFLAMINGO_OPS": "fast", "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env | environment, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout.strip(), done.stderr


@compiled_only
def test_a_few_kernels_serve_the_steps_and_the_user_is_told_once(tmp_path):
    """All widths of the model share their kernels, and nothing is compiled again when the cache has it."""
    count, said = _run(STEPS, tmp_path)
    assert 30 < int(count) < 40
    assert said.count(LINE) == 1
    count, said = _run(STEPS, tmp_path)
    assert int(count) == 0
    assert LINE not in said


@pytest.mark.parametrize("code", ["ops.squared_relu(x)", "ops.gelu(x)", "ops.layer_norm(x, x[0], x[0])"])
def test_one_kernel_is_compiled_without_a_word(code, tmp_path):
    code = f"import numpy as np; from tinyflamingo import ops; x = np.ones((2, 3)); {code}"
    assert LINE not in _run(code, tmp_path)[1]


def test_nothing_is_said_without_jit(tmp_path):
    code = "import numpy as np; from tinyflamingo import ops; ops.conv2d(np.ones((1, 2, 2, 3)), np.ones((1, 1, 3, 4)))"
    assert LINE not in _run(code, tmp_path, NUMBA_DISABLE_JIT="1")[1]


@compiled_only
def test_convolutions_of_all_widths_share_their_kernels():
    kernels = [getattr(product_kernels_numba, name) for name in ("_convolve", "_correlate")]
    rng, compiled = np.random.default_rng(3), []
    for width in (16, 17, 24, 31, 128):
        x, w = rng.standard_normal((1, 5, 6, 3), np.float32), rng.standard_normal((3, 3, 3, width), np.float32)
        ops_cases.compare_floors(ops.conv2d, [x, w], tol=2e-4)
        compiled.append([len(kernel.signatures) for kernel in kernels])
    assert all(counts == compiled[0] for counts in compiled)


# ---------------------------------------------------------------- vectors of 512 bits

FEATURES = "+avx2,+avx512f"


@pytest.mark.parametrize(
    "features, chosen, expected",
    [
        (FEATURES, {}, f"{FEATURES},-prefer-256-bit"),
        ("+avx2", {}, None),
        (FEATURES, {"CPU_NAME": "generic"}, None),
        (FEATURES, {"CPU_FEATURES": "+sse"}, "+sse"),
    ],
)
def test_full_vectors_where_the_processor_has_them(features, chosen, expected, monkeypatch):
    monkeypatch.setattr(jit, "get_host_cpu_features", lambda: features)
    for name in ("CPU_NAME", "CPU_FEATURES"):
        monkeypatch.setattr(numba.config, name, chosen.get(name))
    jit.use_full_vectors()
    assert numba.config.CPU_FEATURES == expected


# ---------------------------------------------------------------- tanh and GELU


@pytest.fixture(scope="module")
def tanh():
    """The tanh of the kernels, for arrays."""

    @numba.njit(fastmath=jit.SUMS, error_model="numpy")
    def loop(x, out):
        for i in range(len(x)):
            out[i] = kernels_numba._tanh(x[i])

    def whole(x):
        out = np.empty_like(x)
        loop(x, out)
        return out

    return whole


def _grid():
    """Every exponent of float32, denormal numbers too, and the range where tanh bends, densely; both signs."""
    tiny, large = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    positive = np.concatenate([np.geomspace(tiny, large, 50_000), np.linspace(0, 12, 500_000)]).astype(np.float32)
    return np.concatenate([positive, -positive])


@compiled_only
def test_tanh_in_float32_is_right_to_a_few_units_in_the_last_place(tanh):
    x = _grid()
    exact, t = np.tanh(x.astype(np.float64)), tanh(x)
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert np.max(np.abs(t - exact) / unit) < 6
    assert np.max(np.abs(t)) == 1
    np.testing.assert_array_equal(t[np.abs(x) > 9.01], np.sign(x[np.abs(x) > 9.01]))
    np.testing.assert_array_equal(t, -tanh(-x))


def test_tanh_at_the_ends(tanh):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(tanh(x), [0, 0, 1, -1, np.nan])
    assert np.signbit(tanh(x)).tolist()[:4] == [False, True, False, True]


def test_tanh_in_float64_is_exact(tanh):
    x = np.linspace(-12, 12, 9999)
    np.testing.assert_allclose(tanh(x), np.tanh(x), rtol=1e-15)


def test_gelu_in_float32(floor):
    """gelu(x) - gelu(-x) = x, |gelu(x)| <= |x|, and values and slopes are close to those in float64, far out too."""
    x = np.linspace(-9, 9, 300_001).astype(np.float32)
    y, slope = ops_cases.on_floor(ops.backend_name(), ops.gelu, [x])
    exact = ops_cases.on_floor("reference", ops.gelu, [x.astype(np.float64)])
    assert y.dtype == slope.dtype == np.float32
    assert np.all(np.abs(y) <= np.abs(x))
    np.testing.assert_allclose(y - y[::-1], x, rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(y, exact[0], atol=3e-6)
    np.testing.assert_allclose(slope, exact[1], atol=3e-5)
