"""Random tensors in a peer's names and shapes."""

import numpy as np
import pytest

from tinyflamingo.interop import names


@pytest.fixture
def random_tensors():
    """A function: a table of rows -> {name: array}, without zeros and without gains of 1."""

    def make(rows, dtype=np.float64, seed=0):
        rng = np.random.default_rng(seed)
        return {row.theirs: (0.3 * rng.standard_normal(row.shape) + 0.1).astype(dtype) for row in rows}

    return make


@pytest.fixture
def round_trip():
    """A function: import and export give the same arrays again."""

    def check(rows, tensors):
        back = names.export_arrays(rows, names.import_arrays(rows, tensors, "test"), "test")
        assert list(back) == [row.theirs for row in rows]
        for name, array in tensors.items():
            np.testing.assert_array_equal(back[name], array, err_msg=name)

    return check
