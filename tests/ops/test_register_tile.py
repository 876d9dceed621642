"""The register tile against its definition in NumPy, for the tiles of other processors too."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from tinyflamingo.ops import jit, register_tile  # noqa: E402


@pytest.mark.parametrize(
    "features, size",
    [("+avx,+avx2,+avx512f", (8, 16)), ("+neon", (8, 4)), ("+avx,+avx2", (4, 8)), ("+sse2", (4, 4)), ("", (4, 4))],
)
def test_the_tile_follows_the_processor(features, size, monkeypatch):
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert jit.tile_size() == size


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("dtype, rows, lanes", [("f4", 8, 16), ("f4", 8, 4), ("f4", 4, 8), ("f4", 4, 4), ("f8", 8, 16)])
def test_code_for_vectors_equals_the_definition(dtype, rows, lanes, rng, monkeypatch):
    """Rows and widths that no tile divides, operands between other numbers, nothing written beside the result."""
    monkeypatch.setattr(register_tile, "ROWS", rows)
    monkeypatch.setattr(register_tile, "LANES", lanes)

    @numba.njit
    def compiled(x, rows, columns, w, pitch, width, bias, out, places, add):
        register_tile._in_registers(x, rows, columns, w, pitch, width, bias, out, places, add)

    for m, depth, width in [(1, 1, 1), (9, 3, 107), (17, 5, 24), (8, 0, 3), (0, 2, 8)]:
        x, w, bias, out = (rng.standard_normal(n).astype(dtype) for n in (400, 700, width, 2200))
        places = 128 * rng.permutation(17)[:m]
        operands = x, rng.integers(0, 200, m), rng.integers(0, 200, depth), w, width + 3, width, bias
        for add in (False, True):
            expected, result = out.copy(), out.copy()
            register_tile.add_product(*operands, expected, places, add)
            compiled(*operands, result, places, add)
            np.testing.assert_allclose(result, expected, atol=1e-5 if dtype == "f4" else 1e-13)
