"""The pictures of TinyWorld: different shapes, clear contrasts, smooth edges."""

import itertools

import numpy as np
import pytest

from tinyflamingo.data.tinyworld.raster import (
    BLACK,
    COLOURS,
    STAND_OUT,
    WHITE,
    Background,
    Mark,
    contrast,
    draw,
    jitter,
    sample_background,
)
from tinyflamingo.data.tinyworld.shapes import AREA, EXTENT, NAMED, SHAPES, UNNAMED, signed_distance

PURE = (255.0, 255.0, 255.0)


def coverage(shape, radius=4.5, side=32, angle=0.0):
    """The coverage 0..1 of one white shape in the middle of a black picture."""
    return draw([Mark(shape, PURE, 16, 16, radius, angle)], BLACK, side=side)[..., 0] / 255


def iou(a, b):
    return np.minimum(a, b).sum() / np.maximum(a, b).sum()


def reduced(picture, side=32):
    """Mean over blocks."""
    k = len(picture) // side
    return picture.reshape(side, k, side, k, -1).astype(float).mean((1, 3))


# ---- shapes ----------------------------------------------------------------------------------


def test_there_are_twelve_named_shapes_and_four_that_are_not():
    assert set(NAMED) | set(UNNAMED) == set(SHAPES)
    assert (len(NAMED), len(UNNAMED)) == (12, 4)
    assert set(UNNAMED) == {"hourglass", "drop", "tee", "gear"}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_has_the_common_size_and_keeps_its_extent(name):
    grid = np.linspace(-2, 2, 401, dtype="f4")
    x, y = np.meshgrid(grid, grid)
    inside = signed_distance(name, x, y) < 0
    area = inside.sum() * (4 / 400) ** 2
    assert AREA[0] <= area <= AREA[1]
    assert np.hypot(x, y)[inside].max() <= EXTENT


@pytest.mark.parametrize("name", SHAPES)
def test_distance_is_float32_and_changes_by_at_most_the_step(name):
    grid = np.linspace(-2, 2, 201, dtype="f4")
    x, y = np.meshgrid(grid, grid)
    d = signed_distance(name, x, y)
    assert d.dtype == np.float32 and d.shape == x.shape
    step = grid[1] - grid[0]
    for axis in (0, 1):
        assert np.abs(np.diff(d, axis=axis)).max() <= step * 1.01


def test_polygon_distance_on_known_points():
    # a T: the bar is from -1 to 1 at the top, the stem is 0.33 wide to each side
    x = np.array([0.0, 0.0, 0.9, 0.9, -3.0], "f4")
    y = np.array([0.5, 2.1, 0.5, -0.5, -0.5], "f4")
    expected = [-0.33, 1.0, 0.57, -0.1, 2.0]
    np.testing.assert_allclose(signed_distance("tee", x, y), expected, atol=1e-6)


@pytest.mark.parametrize("one, other", list(itertools.combinations(SHAPES, 2)))
def test_every_two_shapes_differ_when_small(one, other):
    # they must also differ after a shift by half a pixel
    a = coverage(one)
    for dx, dy in itertools.product((-0.5, 0, 0.5), repeat=2):
        mark = Mark(other, PURE, 16 + dx, 16 + dy, 4.5)
        assert iou(a, draw([mark], BLACK)[..., 0] / 255) < 0.85


def test_unknown_shape_names_the_known_ones():
    with pytest.raises(ValueError, match="blob.*circle"):
        signed_distance("blob", np.zeros(1), np.zeros(1))


# ---- drawing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 16, 32, 33, 96])
def test_dtype_and_size(side):
    picture = draw([Mark("heart", COLOURS["red"], 10, 20, 6)], WHITE, side=side)
    assert picture.dtype == np.uint8 and picture.shape == (side, side, 3)


def test_same_seed_same_picture():
    background = Background((90, 90, 90), (150, 140, 130), 30, noise=8)
    marks = [Mark("star", COLOURS["pink"], 12, 14, 6, 10)]
    one, two, other = (draw(marks, background, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_noise_needs_a_generator():
    with pytest.raises(ValueError, match="rng"):
        draw([], Background((90, 90, 90), noise=8))


def test_colour_is_exact_inside_and_background_exact_outside():
    picture = draw([Mark("circle", (10, 200, 30), 16, 16, 6)], Background((70, 80, 90)))
    assert picture[16, 16].tolist() == [10, 200, 30]
    assert picture[0, 0].tolist() == [70, 80, 90]


def test_x_is_right_and_y_is_down():
    rows, columns = np.nonzero(draw([Mark("square", PURE, 24, 8, 4)], BLACK)[..., 0])
    assert abs(columns.mean() + 0.5 - 24) < 0.1 and abs(rows.mean() + 0.5 - 8) < 0.1


def test_later_marks_cover_earlier_ones():
    red, blue = Mark("circle", (255, 0, 0), 16, 16, 8), Mark("circle", (0, 0, 255), 16, 16, 4)
    assert draw([red, blue], BLACK)[16, 16].tolist() == [0, 0, 255]
    assert draw([blue, red], BLACK)[16, 16].tolist() == [255, 0, 0]


@pytest.mark.parametrize("x, y", [(-50, 16), (16, 90), (0, 0), (32, 32), (-3, 31)])
def test_marks_may_leave_the_picture(x, y):
    picture = draw([Mark("gear", PURE, x, y, 6)], BLACK)
    larger = draw([Mark("gear", PURE, (x + 32) / 3, (y + 32) / 3, 2)], BLACK, side=96)
    # the same mark in a frame three times as large: the middle of that frame is the picture
    np.testing.assert_allclose(picture, larger[32:64, 32:64], atol=1)


@pytest.mark.parametrize("name", SHAPES)
def test_edges_are_smooth_and_cover_the_right_amount(name):
    cover = coverage(name, 7)
    assert np.mean((cover > 0.05) & (cover < 0.95)) > 0.01
    grid = (np.arange(32 * 16, dtype="f4") + 0.5) / 16 - 16
    x, y = np.meshgrid(grid / 7, grid / 7)
    exact = (signed_distance(name, x, y) < 0).mean() * 32**2
    assert cover.sum() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
def test_a_larger_picture_reduced_is_the_smaller_one(name):
    mark = Mark(name, COLOURS["orange"], 14.3, 17.8, 7, 9)
    background = Background((20, 30, 40), (120, 90, 140), 200, noise=5)
    small = draw([mark], background, np.random.default_rng(3), 32)
    large = draw([mark], background, np.random.default_rng(3), 128)
    difference = np.abs(reduced(large) - small)
    assert difference.max() < 64  # coverage from the distance is not exact at tips thinner than a pixel
    assert difference.mean() < 0.8


def test_turning_is_clockwise():
    tilted = coverage("arrow", 9, angle=15)  # an arrow to the right: its tip moves down
    rows = np.arange(32)[:, None]
    tip = tilted[:, 24:]
    assert (rows * tip).sum() / tip.sum() > 16.5


# ---- colours and backgrounds -----------------------------------------------------------------


def test_colours_are_well_apart():
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) >= 95


def test_jitter_is_small_bounded_and_seeded():
    rng = np.random.default_rng(0)
    for rgb in COLOURS.values():
        moved = jitter(rgb, rng)
        assert max(abs(a - b) for a, b in zip(moved, rgb, strict=True)) <= 12
        assert 0 <= min(moved) and max(moved) <= 255
    assert jitter(PURE, np.random.default_rng(1)) == jitter(PURE, np.random.default_rng(1))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_colours_stand_out_in_every_pixel(count):
    rng = np.random.default_rng(count)
    for _ in range(200):
        avoid = [jitter(COLOURS[c], rng) for c in rng.choice(list(COLOURS), count, replace=False)]
        background = sample_background(rng, avoid)
        pixels = draw([], background, rng).reshape(-1, 1, 3).astype(float)
        if avoid:
            gaps = np.linalg.norm(pixels - np.asarray(avoid), axis=-1)
            assert gaps.min() >= STAND_OUT - 1  # 1 for the rounding to whole numbers
            assert gaps.min() >= contrast(background, avoid) - 1


def test_any_eight_colours_have_a_background():
    assert sample_background(np.random.default_rng(0), COLOURS.values())


def test_plain_black_and_plain_white_are_common():
    rng = np.random.default_rng(0)
    drawn = [sample_background(rng, [c]) for c in COLOURS.values() for _ in range(250)]
    for plain in (BLACK, WHITE):
        assert 0.16 < drawn.count(plain) / len(drawn) < 0.27
    assert any(b.end for b in drawn) and any(b.noise for b in drawn)


def test_colours_that_leave_no_background_are_an_error():
    everything = list(itertools.product(range(0, 256, 51), repeat=3))
    with pytest.raises(ValueError, match="there is no background"):
        sample_background(np.random.default_rng(0), everything)
