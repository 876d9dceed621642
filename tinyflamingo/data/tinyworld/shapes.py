"""Sixteen shapes as signed distances: the things in TinyWorld pictures.

Serves chapter §2 (the vision encoder learns from these pictures). A shape is a function
`f(x, y) -> distance`. The distance is negative inside, zero on the edge and positive outside. x and y
are arrays in units of the shape's radius. The centre is at (0, 0), and y points DOWN, as in pictures.

Captions name twelve of the shapes. No training text names the other four, so the trained model can
learn them only from examples in a prompt (few-shot, §5).

All shapes have about the same area (`AREA`) and stay within the disc of radius `EXTENT`, so that the
size does not reveal the shape. Not here: colours, pixels, smoothing (`raster.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tinyflamingo.ops.types import Array

EXTENT = 1.35  # the largest distance of a point of a shape from its centre, in radii
AREA = (1.75, 3.0)  # every area is between these two, in radii squared (a unit disc has 3.14)


# ---- building blocks -------------------------------------------------------------------------


def _disc(x: Array, y: Array, cx: float, cy: float, r: float) -> Array:
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - np.float32(r)


def _bar(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    """A centred rectangle."""
    dx, dy = np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _turned(x: Array, y: Array, degrees: float) -> tuple[Array, Array]:
    """The coordinates in a frame that is turned clockwise by `degrees`."""
    c, s = np.cos(np.radians(degrees)).astype("f4"), np.sin(np.radians(degrees)).astype("f4")
    return c * x + s * y, c * y - s * x


def polygon(x: Array, y: Array, corners: list[tuple[float, float]]) -> Array:
    """Signed distance to a closed polygon whose edges do not cross.

    The distance is that to the nearest edge. A point is inside if a ray from it to the right crosses
    an odd number of edges. The edges are on a new first axis, so there is no Python loop.
    """
    a = np.asarray(corners, "f4")
    b = np.concatenate([a[1:], a[:1]])
    shape = (-1,) + (1,) * np.ndim(x)
    ax, ay, bx, by = (v.reshape(shape) for v in (a[:, 0], a[:, 1], b[:, 0], b[:, 1]))
    ex, ey = bx - ax, by - ay
    px, py = x - ax, y - ay
    along = np.minimum(np.maximum((px * ex + py * ey) / (ex * ex + ey * ey), 0), 1)  # np.clip is slower
    squared = ((px - ex * along) ** 2 + (py - ey * along) ** 2).min(axis=0)
    # the sign of px*ey - py*ex is the point's side of the edge; it also depends on the edge's direction
    straddles = (ay > y) != (by > y)
    crosses = straddles & ((px * ey < py * ex) == (ey > 0))
    inside = np.logical_xor.reduce(crosses, axis=0)
    return np.where(inside, -1, 1).astype("f4") * np.sqrt(squared)


def _rays(count: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """Corners of a star: outer and inner points alternate, the first one is at the top."""
    angles = np.pi * np.arange(2 * count) / count
    radii = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return list(zip(radii * np.sin(angles), -radii * np.cos(angles), strict=True))


# ---- the corners -----------------------------------------------------------------------------

_TRIANGLE = [(0, -1.25), (1.12, 0.72), (-1.12, 0.72)]
_STAR = _rays(5, 1.33, 0.56)
_HEART = [(0, -0.4), (0.92, 0.08), (0, 1.15), (-0.92, 0.08)]  # the lobes touch its sides
_DIAMOND = [(0, -1.32), (0.76, 0), (0, 1.32), (-0.76, 0)]
_ARROW = [(-1.25, -0.3), (0.05, -0.3), (0.05, -1.05), (1.3, 0),
          (0.05, 1.05), (0.05, 0.3), (-1.25, 0.3)]  # fmt: skip
_HOUSE = [(0, -1.2), (1.25, -0.1), (0.85, -0.1), (0.85, 1.0), (0.25, 1.0), (0.25, 0.3),
          (-0.25, 0.3), (-0.25, 1.0), (-0.85, 1.0), (-0.85, -0.1), (-1.25, -0.1)]  # fmt: skip
_BOLT = [(0.75, -1.1), (-0.35, -1.1), (-0.95, 0.25), (-0.15, 0.25), (-0.6, 1.2), (0.95, -0.25),
         (0.2, -0.25)]  # fmt: skip
_HOURGLASS = [(-0.95, -0.95), (0.95, -0.95), (0.15, 0), (0.95, 0.95), (-0.95, 0.95),
              (-0.15, 0)]  # fmt: skip
_DROP = [(0, -1.33), (0.68, 0.05), (-0.68, 0.05)]
_TEE = [(-1.0, -0.9), (1.0, -0.9), (1.0, -0.25), (0.33, -0.25), (0.33, 1.1), (-0.33, 1.1),
        (-0.33, -0.25), (-1.0, -0.25)]  # fmt: skip


# ---- the shapes ------------------------------------------------------------------------------


def _heart(x: Array, y: Array) -> Array:
    lobes = _disc(np.abs(x), y, 0.48, -0.3, 0.58)
    return np.minimum(lobes, polygon(x, y, _HEART))


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(_bar(x, y, 1.12, 0.36), _bar(x, y, 0.36, 1.12))


def _moon(x: Array, y: Array) -> Array:
    """A crescent that opens to the right: a disc minus another disc."""
    return np.maximum(_disc(x, y, 0.17, 0, 1.2), -_disc(x, y, 0.75, 0, 0.9))


def _drop(x: Array, y: Array) -> Array:
    return np.minimum(_disc(x, y, 0, 0.42, 0.77), polygon(x, y, _DROP))


def _gear(x: Array, y: Array) -> Array:
    """A wheel with six teeth and a hole."""
    distance = _disc(x, y, 0, 0, 0.9)
    for degrees in (0, 60, 120):
        distance = np.minimum(distance, _bar(*_turned(x, y, degrees), 0.25, 1.2))
    return np.maximum(distance, -_disc(x, y, 0, 0, 0.42))


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: _disc(x, y, 0, 0, 0.95),
    "square": lambda x, y: _bar(x, y, 0.84, 0.84),
    "triangle": lambda x, y: polygon(x, y, _TRIANGLE),
    "star": lambda x, y: polygon(x, y, _STAR),
    "heart": _heart,
    "cross": _cross,
    "ring": lambda x, y: np.abs(_disc(x, y, 0, 0, 0.82)) - np.float32(0.27),
    "moon": _moon,
    "diamond": lambda x, y: polygon(x, y, _DIAMOND),
    "arrow": lambda x, y: polygon(x, y, _ARROW),
    "house": lambda x, y: polygon(x, y, _HOUSE),
    "bolt": lambda x, y: polygon(x, y, _BOLT),
    "hourglass": lambda x, y: polygon(x, y, _HOURGLASS),
    "drop": _drop,
    "tee": lambda x, y: polygon(x, y, _TEE),
    "gear": _gear,
}

UNNAMED = ("hourglass", "drop", "tee", "gear")
NAMED = tuple(name for name in SHAPES if name not in UNNAMED)


def signed_distance(name: str, x: Array, y: Array) -> Array:
    """Distance of the points (x, y) to the edge of the shape `name`, negative inside.

    x, y: float arrays of equal shape, in radii from the centre, y down. Returns float32 of that
    shape, in radii. Raises `ValueError` for a name that is not in `SHAPES`.
    """
    if name not in SHAPES:
        raise ValueError(f"no shape is called {name!r}; use {', '.join(SHAPES)}")
    return SHAPES[name](np.asarray(x, "f4"), np.asarray(y, "f4"))
