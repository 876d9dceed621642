"""For every test: shape checks on, both floors of the operations, and one tokenizer for the session."""

import os

os.environ.setdefault("TINYFLAMINGO_CHECK", "1")  # before the package is imported

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tinyflamingo import ops  # noqa: E402
from tinyflamingo.data.tinyworld.text import tokenizer_lines  # noqa: E402
from tinyflamingo.model.tokenizer import train_tokenizer  # noqa: E402
from tinyflamingo.ops import shapes  # noqa: E402


@pytest.fixture(autouse=True)
def shape_checks():
    """On, whatever the environment says."""
    with shapes.checking():
        yield


@pytest.fixture(params=["reference", "fast"])
def floor(request):
    """The test body runs once on each floor."""
    with ops.use(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the toy: 662 pieces, half a second."""
    return train_tokenizer(tokenizer_lines(np.random.default_rng(0)), 662)
