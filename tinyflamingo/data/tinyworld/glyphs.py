"""More shapes: written digits, and wild shapes that have no name.

Serves chapter §2 and §5. A digit is the path of a pen, in one of a few hands (styles of writing). A wild
shape is a random polygon, or a polygon with round lumps, bites and holes. A model could memorise twelve
outlines; to distinguish 192 wild shapes, it must learn what an outline is. `signed_distance` knows all
shapes that `raster.py` can draw.

Not here: the sixteen shapes (`shapes.py`) and the words about all of them (`language.py`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from tinyflamingo.data.tinyworld import shapes
from tinyflamingo.data.tinyworld.shapes import EXTENT, SHAPES, polygon

if TYPE_CHECKING:
    from tinyflamingo.ops.types import Array

HANDS = 4  # the number of ways to write each digit
ANGULAR, LUMPY = 96, 96  # numbers of wild shapes of both sorts
WILD = tuple(f"wild {i}" for i in range(ANGULAR + LUMPY))
WILD_AREA = 2.2  # the area of each wild shape, in radii squared

# Corners of the pen's path, x to the right and y down, in radii.
_DIGITS = {
    "zero": [(0, -1.1), (0.5, -0.75), (0.62, 0), (0.5, 0.75), (0, 1.1), (-0.5, 0.75), (-0.62, 0), (-0.5, -0.75),
             (0, -1.1)],
    "one": [(-0.35, -0.65), (0.1, -1.1), (0.1, 1.1)],
    "two": [(-0.6, -0.6), (-0.4, -1.0), (0.1, -1.1), (0.55, -0.8), (0.5, -0.3), (-0.6, 1.05), (0.68, 1.05)],
    "three": [(-0.55, -0.9), (0, -1.1), (0.5, -0.75), (0.4, -0.25), (-0.1, -0.05), (0.5, 0.2), (0.55, 0.75),
              (0.05, 1.1), (-0.6, 0.9)],
    "four": [(0.35, 1.1), (0.35, -1.1), (-0.7, 0.4), (0.75, 0.4)],
    "five": [(0.6, -1.05), (-0.5, -1.05), (-0.55, -0.15), (0.1, -0.25), (0.58, 0.15), (0.52, 0.75), (0.05, 1.1),
             (-0.6, 0.9)],
    "six": [(0.45, -1.05), (-0.2, -0.7), (-0.6, 0.1), (-0.5, 0.8), (0, 1.1), (0.5, 0.8), (0.5, 0.25), (0, 0),
            (-0.5, 0.3)],
    "seven": [(-0.65, -1.05), (0.65, -1.05), (-0.15, 1.1)],
    "eight": [(0, -0.05), (-0.48, -0.4), (-0.4, -0.9), (0, -1.1), (0.4, -0.9), (0.48, -0.4), (0, -0.05),
              (-0.58, 0.4), (-0.48, 0.9), (0, 1.1), (0.48, 0.9), (0.58, 0.4), (0, -0.05)],
    "nine": [(0.5, -0.35), (0, -0.02), (-0.5, -0.35), (-0.48, -0.85), (0, -1.1), (0.48, -0.85), (0.5, -0.35),
             (0.4, 0.5), (0, 1.1)],
}  # fmt: skip
DIGITS = tuple(_DIGITS)


def written(digit: str, hand: int) -> str:
    """The name of a digit in one hand, for `signed_distance`."""
    return f"{digit} {hand}"


def signed_distance(name: str, x: Array, y: Array) -> Array:
    """Like `shapes.signed_distance`, also for "three 2" (a digit and a hand) and "wild 17"."""
    if name in SHAPES:
        return shapes.signed_distance(name, x, y)
    kind, _, number = name.partition(" ")
    x, y = np.asarray(x, "f4"), np.asarray(y, "f4")
    if kind in _DIGITS and number.isdecimal() and int(number) < HANDS:
        corners, half_width = _hand(kind, int(number))
        return _path(x, y, corners) - half_width
    if name in WILD:
        return (_angular if int(number) < ANGULAR else _lumpy)(x, y, int(number))
    raise ValueError(f"no shape is called {name!r}; use {', '.join(SHAPES)}, a digit and a hand, or a wild shape")


def _path(x: Array, y: Array, corners) -> Array:
    """Distance to a path of straight lines."""
    a, b = np.asarray(corners[:-1], "f4"), np.asarray(corners[1:], "f4")
    shape = (-1,) + (1,) * np.ndim(x)
    ax, ay, ex, ey = (v.reshape(shape) for v in (a[:, 0], a[:, 1], *(b - a).T))
    along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
    return np.sqrt(((x - ax - ex * along) ** 2 + (y - ay - ey * along) ** 2).min(axis=0))


@functools.cache
def _hand(digit, number):
    """Corners of a digit in one hand, and half the width of the pen."""
    rng = np.random.default_rng([1837, DIGITS.index(digit), number])
    corners = np.asarray(_DIGITS[digit]) * rng.uniform(0.85, 1.0, 2)
    return corners + rng.uniform(-0.07, 0.07, corners.shape), np.float32(rng.uniform(0.16, 0.24))


def _angular(x: Array, y: Array, number) -> Array:
    return polygon(x, y, _corners(number))


@functools.cache
def _corners(number):
    """Corners of an angular wild shape, at random angles and distances. Odd numbers have a mirror axis."""
    rng = np.random.default_rng([1871, number])
    while True:
        corners = _around(rng, mirrored=number % 2 == 1)
        x, y = corners.T
        area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        corners = (corners - corners.mean(axis=0)) * np.sqrt(WILD_AREA / area)
        if np.hypot(*corners.T).max() < EXTENT:
            return corners


def _lumpy(x: Array, y: Array, number) -> Array:
    """A polygon with some discs added and some removed, scaled to the common area."""
    parts, middle, scale = _lumps(number)
    return _carved(x / scale + middle[0], y / scale + middle[1], parts) * scale


def _carved(x: Array, y: Array, parts) -> Array:
    corners, discs = parts
    distance = polygon(x, y, corners)
    for cx, cy, radius, added in discs:
        disc = np.hypot(x - cx, y - cy) - radius
        distance = np.minimum(distance, disc) if added else np.maximum(distance, -disc)
    return distance


@functools.cache
def _lumps(number):
    """Parts of a lumpy wild shape, its centre, and the scale for the common area; it stays within EXTENT."""
    rng = np.random.default_rng([1871, number])
    x, y = np.meshgrid(*[np.linspace(-2.5, 2.5, 161, dtype="f4")] * 2)
    cell = (5 / 160) ** 2
    while True:
        parts = _corners(int(rng.integers(ANGULAR))), [_disc(rng, added) for added in rng.random(3) < (1.0, 0.6, 0.3)]
        inside = _carved(x, y, parts) < 0
        middle = np.float32([x[inside].mean(), y[inside].mean()])
        scale = np.float32(np.sqrt(WILD_AREA / (inside.sum() * cell)))
        if scale * np.hypot(x[inside] - middle[0], y[inside] - middle[1]).max() < EXTENT:
            return parts, middle, scale


def _disc(rng, added):
    """A disc (x, y, radius, added): a lump near the edge, or a bite or a hole anywhere."""
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1) if added else rng.uniform(0, 1.0)
    radius = rng.uniform(0.4, 0.7) if added else rng.uniform(0.3, 0.5)
    return (*np.float32([away * np.sin(angle), away * np.cos(angle), radius]), added)


def _around(rng, mirrored):
    """Five to nine corners, clockwise around the origin, without large gaps."""
    count = int(rng.integers(5, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.7, count)) / count
    radii = rng.uniform(0.35, 1.3, count)
    if mirrored:
        half = np.pi * (np.arange(count // 2 + 1) + 0.5) / (count // 2 + 1)
        angles = np.concatenate([half, 2 * np.pi - half[::-1]])
        radii = np.concatenate([radii[: len(half)], radii[: len(half)][::-1]])
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)
