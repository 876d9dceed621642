"""Digits and wild shapes: they stay in the disc, have one area, differ, and none is like a held-out shape."""

import numpy as np
import pytest

from tinyflamingo.data.tinyworld import glyphs
from tinyflamingo.data.tinyworld.glyphs import ANGULAR, DIGITS, HANDS, WILD, WILD_AREA, signed_distance, written
from tinyflamingo.data.tinyworld.shapes import EXTENT, SHAPES, UNNAMED
from tinyflamingo.data.tinyworld.shapes import signed_distance as shape_distance

X, Y = np.meshgrid(*[np.linspace(-1.5, 1.5, 121, dtype="f4")] * 2)
CELL = (3 / 120) ** 2
ALL = (*(written(digit, hand) for digit in DIGITS for hand in range(HANDS)), *WILD)


def inside(name):
    return signed_distance(name, X, Y) < 0


@pytest.mark.parametrize("name", ALL)
def test_nothing_leaves_the_disc_and_distances_are_float32(name):
    distance = signed_distance(name, X, Y)
    assert distance.dtype == np.float32 and distance.shape == X.shape
    assert inside(name).any() and not inside(name)[np.hypot(X, Y) > EXTENT + 0.1].any()


def test_wild_shapes_have_one_area():
    areas = [inside(name).sum() * CELL for name in WILD]
    np.testing.assert_allclose(areas, WILD_AREA, atol=0.06)


def test_every_second_angular_shape_has_a_mirror_axis():
    mirrored = [signed_distance(name, X, Y) - signed_distance(name, -X, Y) for name in WILD[:ANGULAR]]
    assert [np.abs(difference).max() < 1e-4 for difference in mirrored] == [False, True] * (ANGULAR // 2)


def test_discs_are_added_to_lumpy_shapes_and_removed_from_them():
    """At the centre of the last disc, which no other disc changes."""
    for number in range(ANGULAR, len(WILD)):
        (corners, discs), _, _ = glyphs._lumps(number)
        x, y, _, added = discs[-1]
        assert (glyphs._carved(x, y, (corners, discs)) < 0) == added
    assert {added for number in range(ANGULAR, len(WILD)) for *_, added in glyphs._lumps(number)[0][1]} == {True, False}


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_a_digit_in_two_hands_is_more_similar_than_two_digits():
    masks = {digit: [inside(written(digit, hand)) for hand in range(HANDS)] for digit in DIGITS}
    for digit, own in masks.items():
        within = np.mean([overlap(a, b) for i, a in enumerate(own) for b in own[:i]])
        others = [overlap(own[0], m[0]) for other, m in masks.items() if other != digit]
        assert within > max(others)


def test_no_wild_shape_is_like_a_held_out_shape():
    for held_out in UNNAMED:
        mask = inside(held_out)
        assert max(overlap(mask, inside(name)) for name in WILD) < 0.85


def test_the_sixteen_shapes_are_unchanged():
    for name in SHAPES:
        np.testing.assert_array_equal(signed_distance(name, X, Y), shape_distance(name, X, Y))


@pytest.mark.parametrize("name", ["wild 192", "wild", "three", "three 9", "ten 0", "blob", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="no shape is called"):
        signed_distance(name, X, Y)
