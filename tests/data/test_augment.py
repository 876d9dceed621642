"""Augmentation keeps size, type and sides: nothing is mirrored, and every picture changes in its own way."""

import numpy as np
import pytest

from tinyflamingo.data.augment import augmented


def left_and_right(n, side=32):
    """Pictures that are red on the left and blue on the right."""
    pictures = np.zeros((n, side, side, 3), np.uint8)
    pictures[:, :, : side // 2, 0] = pictures[:, :, side // 2 :, 2] = 200
    return pictures


def test_nothing_is_mirrored_and_little_is_lost(rng):
    before = left_and_right(200)
    after = augmented(rng, before).astype(int)
    assert after.shape == before.shape
    left, right = after[:, :, :8], after[:, :, -8:]
    assert (left[..., 0].mean((1, 2)) > left[..., 2].mean((1, 2))).all()
    assert (right[..., 2].mean((1, 2)) > right[..., 0].mean((1, 2))).all()


def test_equal_pictures_become_different_and_the_input_stays(rng):
    before = left_and_right(8)
    after = augmented(rng, before)
    assert len({picture.tobytes() for picture in after}) == 8 and after.dtype == np.uint8
    assert np.array_equal(before, left_and_right(8))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 7, 3), (3, 5, 2, 3)])
def test_pictures_of_any_size(rng, shape):
    assert augmented(rng, np.full(shape, 128, np.uint8)).shape == shape


def test_without_changes_a_picture_comes_back(rng, monkeypatch):
    from tinyflamingo.data import augment

    for name in ("ANGLE", "SCALE", "SHIFT", "COLOUR"):
        monkeypatch.setattr(augment, name, 0.0)
    before = np.random.default_rng(0).integers(0, 256, (4, 9, 6, 3), np.uint8)
    np.testing.assert_array_equal(augmented(rng, before), before)
