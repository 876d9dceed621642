"""Whole checkpoints of OpenFlamingo: its logits, its names, several files, and the way back."""

import numpy as np
import parity_whole
import pytest


def installed():
    for module in ("torch", "transformers", "open_clip", "open_flamingo"):
        pytest.importorskip(module)


@pytest.mark.parametrize("kind", parity_whole.LAYERS)
def test_logits_equal_the_program(floor, kind):
    installed()
    assert parity_whole.whole(kind, np.float32) < 1e-4
