"""Augmentation keeps size, type and sides: nothing is mirrored, and every picture changes in its own way."""

import numpy as np
import pytest

from tinyflamingo.data.augment import augmented, disguised


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


def test_a_disguise_mixes_channels_and_covers_a_part(rng):
    before = np.broadcast_to(np.array([200, 100, 0], np.uint8), (400, 20, 20, 3)).copy()
    before[:, 0, 0] = 255  # so the mean colour is not that of the rest
    after = disguised(rng, before)
    assert after.shape == before.shape and after.dtype == np.uint8
    assert (before[:, 1:] == (200, 100, 0)).all(), "the input has changed"
    common = np.array([np.unique(p.reshape(-1, 3), axis=0, return_counts=True)[1].max() for p in after])
    covered = common < 399
    assert 0.3 < covered.mean() < 0.5 and (400 - common[covered] >= 9).all() and (400 - common[covered] <= 82).all()
    kept = (after[:, 10, 0] == (200, 100, 0)).all(-1)
    assert 0.35 < kept.mean() < 0.7, "about 0.6 of the pictures get other colours"
    np.testing.assert_allclose(after[~covered][:, 5:].sum(-1), 300, atol=2)


def test_without_a_disguise_a_picture_comes_back(rng, monkeypatch):
    from tinyflamingo.data import augment

    monkeypatch.setattr(augment, "EXCHANGED", 0.0)
    monkeypatch.setattr(augment, "COVERED", 0.0)
    before = np.random.default_rng(0).integers(0, 256, (4, 9, 6, 3), np.uint8)
    np.testing.assert_array_equal(disguised(rng, before), before)
