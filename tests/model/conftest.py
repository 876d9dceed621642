"""``model_cases`` importable from anywhere, and a tiny Flamingo."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import model_cases  # noqa: E402


@pytest.fixture
def tiny():
    """A tiny Flamingo in float64 with open gates: config, params, frozen, and a batch of two rows."""
    return model_cases.tiny()
