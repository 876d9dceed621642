"""Shapes beyond the sixteen: written digits, and wild shapes that have no name.

Serves §2 and §5. A digit is a pen's path, in a few hands. A wild shape is a random polygon: whoever
has to tell a hundred of them apart learns what outlines are, and not twelve outlines by heart.
`signed_distance` knows all shapes there are, as `raster.py` draws them.

Not here: the sixteen shapes themselves (`shapes.py`) and what is said about any of them (`language.py`).
"""

from __future__ import annotations

import functools

import numpy as np

from tinyflamingo.data.tinyworld import shapes
from tinyflamingo.data.tinyworld.shapes import EXTENT, SHAPES, Array, polygon

HANDS = 4  # ways in which each digit is written
WILD = tuple(f"wild {i}" for i in range(96))
WILD_AREA = 2.2  # of every wild shape, in radii squared

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
    """The name of a digit in one of the HANDS, as `signed_distance` knows it."""
    return f"{digit} {hand}"


def signed_distance(name: str, x: Array, y: Array) -> Array:
    """As `shapes.signed_distance`, and also for "three 2" (a digit and a hand) and "wild 17"."""
    if name in SHAPES:
        return shapes.signed_distance(name, x, y)
    kind, _, number = name.partition(" ")
    x, y = np.asarray(x, "f4"), np.asarray(y, "f4")
    if kind in _DIGITS and number.isdecimal() and int(number) < HANDS:
        corners, half_width = _hand(kind, int(number))
        return _path(x, y, corners) - half_width
    if name in WILD:
        return polygon(x, y, _wild(int(number)))
    raise ValueError(f"no shape is called {name!r}; there are {', '.join(SHAPES)}, digits in hands and wild ones")


def _path(x: Array, y: Array, corners) -> Array:
    """Distance to a path of straight lines."""
    a, b = np.asarray(corners[:-1], "f4"), np.asarray(corners[1:], "f4")
    shape = (-1,) + (1,) * np.ndim(x)
    ax, ay, ex, ey = (v.reshape(shape) for v in (a[:, 0], a[:, 1], *(b - a).T))
    along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
    return np.sqrt(((x - ax - ex * along) ** 2 + (y - ay - ey * along) ** 2).min(axis=0))


@functools.cache
def _hand(digit, number):
    """Corners and half the pen's width of a digit as one hand writes it."""
    rng = np.random.default_rng([1837, DIGITS.index(digit), number])
    corners = np.asarray(_DIGITS[digit]) * rng.uniform(0.85, 1.0, 2)
    return corners + rng.uniform(-0.07, 0.07, corners.shape), np.float32(rng.uniform(0.16, 0.24))


@functools.cache
def _wild(number):
    """Corners of a wild shape: a few at any angle and distance, every other shape with a mirror axis."""
    rng = np.random.default_rng([1871, number])
    while True:
        corners = _around(rng, mirrored=number % 2 == 1)
        x, y = corners.T
        area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        corners = (corners - corners.mean(axis=0)) * np.sqrt(WILD_AREA / area)
        if np.hypot(*corners.T).max() < EXTENT:
            return corners


def _around(rng, mirrored):
    """Five to nine corners, clockwise around the origin, no two neighbours far apart."""
    count = int(rng.integers(5, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(0, 0.7, count)) / count
    radii = rng.uniform(0.35, 1.3, count)
    if mirrored:
        half = np.pi * (np.arange(count // 2 + 1) + 0.5) / (count // 2 + 1)
        angles = np.concatenate([half, 2 * np.pi - half[::-1]])
        radii = np.concatenate([radii[: len(half)], radii[: len(half)][::-1]])
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)
