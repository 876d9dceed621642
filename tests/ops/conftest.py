"""Shape checks on for every test of this floor, and ``ops_cases`` importable from anywhere."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from tinyflamingo import ops  # noqa: E402
from tinyflamingo.ops import shapes  # noqa: E402


@pytest.fixture(autouse=True)
def shape_checks():
    with shapes.checking():
        yield


@pytest.fixture(params=["reference", "fast"])
def floor(request):
    """The test body runs once on each floor."""
    with ops.use(request.param):
        yield request.param
