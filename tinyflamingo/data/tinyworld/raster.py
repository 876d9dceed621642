"""Draws the pictures of TinyWorld: coloured shapes on a background, anti-aliased.

Serves chapter §2 (the vision encoder): pictures are drawn when they are needed, so no data set is
necessary. A shape is a signed distance (`shapes.py`). A pixel whose centre is d pixels inside the edge
has coverage clip(0.5 + d, 0, 1), which smooths the edge over one pixel. Only the pixels around a shape
are computed, so a 32 x 32 picture takes about a tenth of a millisecond.

Coordinates are pixels of a 32 x 32 frame for every size of the picture. (0, 0) is the top left corner,
not the centre of the first pixel; (16, 16) is the middle; y points down.

Not here: the content of pictures (`scenes.py`) and the words (`language.py`); pictures from files
(`data/images.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinyflamingo.data.tinyworld.glyphs import signed_distance
from tinyflamingo.data.tinyworld.shapes import EXTENT

FRAME = 32  # the frame that coordinates refer to, in pixels

RGB = tuple[float, float, float]

# Eight colours with common names. The RGB distance of any two is at least 95.
COLOURS: dict[str, RGB] = {
    "red": (222, 30, 38),
    "orange": (255, 132, 0),
    "yellow": (252, 226, 30),
    "green": (36, 160, 60),
    "cyan": (50, 210, 230),
    "blue": (35, 80, 235),
    "purple": (140, 45, 185),
    "pink": (255, 135, 200),
}

STAND_OUT = 90.0  # smallest RGB distance between any point of a background and a mark's colour before its jitter
JITTER = 12.0  # most by which a channel of a mark's colour changes


@dataclass(frozen=True)
class Mark:
    """One shape in a picture."""

    shape: str  # a name that glyphs.signed_distance knows
    rgb: RGB  # 0..255 each
    x: float  # centre, in pixels of the 32-pixel frame
    y: float  # the same, downwards
    radius: float  # in pixels of the frame; the shape stays within EXTENT * radius
    angle: float = 0.0  # degrees, clockwise


@dataclass(frozen=True)
class Background:
    """The background of the marks: one colour, or a linear gradient, with or without noise."""

    start: RGB
    end: RGB | None = None  # None: one colour
    angle: float = 0.0  # direction from start to end: degrees, clockwise, 0 is to the right
    noise: float = 0.0  # each channel of each pixel changes by at most this much


BLACK = Background((0, 0, 0))
WHITE = Background((255, 255, 255))


# ---- drawing ---------------------------------------------------------------------------------


def draw(
    objects: Iterable[Mark],
    background: Background,
    rng: np.random.Generator | None = None,
    side: int = FRAME,
) -> np.ndarray:
    """Draw the marks in order on the background: uint8 (side, side, 3).

    rng draws the background's noise and nothing else; without noise it can be None. The content does not
    depend on `side`: a larger picture, shrunk, equals the smaller one up to rounding. Raises `ValueError`
    for an unknown shape, or for noise without an rng.
    """
    canvas = _paint_background(background, rng, side)
    for mark in objects:
        _paint_mark(canvas, mark)
    # 0.5 rounds to nearest; without the clip, values outside 0..255 would wrap around
    return (np.minimum(np.maximum(canvas, 0), 255) + np.float32(0.5)).astype(np.uint8)


def _paint_background(background: Background, rng, side: int) -> np.ndarray:
    """Float32 (side, side, 3)."""
    canvas = np.empty((side, side, 3), "f4")
    canvas[:] = background.start
    if background.end is not None:
        step = np.asarray(background.end, "f4") - np.asarray(background.start, "f4")
        canvas += _ramp(side, background.angle)[:, :, None] * step
    if background.noise:
        if rng is None:
            raise ValueError("a background with noise needs an rng")
        grain = rng.random((FRAME, FRAME, 3), "f4") * np.float32(2) - np.float32(1)
        # the grain has the size of the frame, so each side needs the same random numbers
        cells = np.arange(side) * FRAME // side
        canvas += np.float32(background.noise) * grain[cells[:, None], cells]
    return canvas


def _ramp(side: int, angle: float) -> np.ndarray:
    """Float32 (side, side) from 0 at one corner or edge to 1 at the opposite one."""
    axis = (np.arange(side, dtype="f4") + 0.5) / side - 0.5
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    reach = abs(c) + abs(s)  # width of the unit square in this direction
    return (axis * (c / reach)).astype("f4") + (axis * (s / reach)).astype("f4")[:, None] + 0.5


def _paint_mark(canvas: np.ndarray, mark: Mark) -> None:
    """Blend one mark into the canvas, in place; only the box around it changes."""
    side = len(canvas)
    scale = side / FRAME
    reach = mark.radius * EXTENT * scale + 1  # one more pixel for the smooth edge
    (left, right), (top, bottom) = (
        (max(0, int(centre * scale - reach)), min(side, int(centre * scale + reach) + 1)) for centre in (mark.x, mark.y)
    )
    if left >= right or top >= bottom:
        return
    x = (np.arange(left, right, dtype="f4") + 0.5) / scale - mark.x
    y = (np.arange(top, bottom, dtype="f4") + 0.5)[:, None] / scale - mark.y
    cover = _coverage(mark, x.astype("f4"), y.astype("f4"), scale)[:, :, None]
    box = canvas[top:bottom, left:right]
    box += cover * (np.asarray(mark.rgb, "f4") - box)


def _coverage(mark: Mark, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """The fraction of each pixel that the mark covers, 0..1. x and y are relative to its centre."""
    c = np.float32(np.cos(np.radians(mark.angle)) / mark.radius)
    s = np.float32(np.sin(np.radians(mark.angle)) / mark.radius)
    distance = signed_distance(mark.shape, c * x + s * y, c * y - s * x)
    return np.minimum(np.maximum(np.float32(0.5) - np.float32(mark.radius * scale) * distance, 0), 1)


# ---- random colours and backgrounds ----------------------------------------------------------


def jitter(rgb: RGB, rng: np.random.Generator) -> RGB:
    """The colour with each channel changed by at most JITTER, within 0..255."""
    moved = np.asarray(rgb) + rng.uniform(-JITTER, JITTER, 3)
    return tuple(np.minimum(np.maximum(moved, 0), 255).tolist())


def sample_background(rng: np.random.Generator, avoid: Iterable[RGB]) -> Background:
    """A background with a clear contrast to each colour of `avoid` (RGB, 0..255).

    At every point, with noise, the distance to each of these colours is at least STAND_OUT. About one in
    five is black and one in five is white, the canvas of most drawing programs. Raises `ValueError`
    if there is no such background.
    """
    avoid = np.asarray(list(avoid), float).reshape(-1, 3)
    for _ in range(200):
        background = _any_background(rng)
        if contrast(background, avoid) >= STAND_OUT:
            return background
    raise ValueError(f"there is no background with enough contrast to all of the colours {avoid.tolist()}")


def contrast(background: Background, colours: Iterable[RGB]) -> float:
    """The smallest RGB distance between any point of the background and any of the colours."""
    colours = np.asarray(colours, float).reshape(-1, 3)
    if len(colours) == 0:
        return np.inf
    start = np.asarray(background.start, float)
    step = np.asarray(background.end or background.start, float) - start
    # a gradient is a line segment in RGB space, so this is the distance of a point to a segment
    along = np.clip((colours - start) @ step / max(step @ step, 1e-9), 0, 1)
    nearest = np.linalg.norm(colours - start - along[:, None] * step, axis=1).min()
    return float(nearest - np.sqrt(3) * background.noise)


def _any_background(rng: np.random.Generator) -> Background:
    kind = rng.random()
    if kind < 0.2:
        return BLACK
    if kind < 0.4:
        return WHITE
    start = _muted(rng)
    noise = rng.uniform(2, 10) if rng.random() < 0.4 else 0.0
    if kind < 0.7:
        return Background(start, noise=noise)
    return Background(start, _muted(rng), rng.uniform(0, 360), noise)


def _muted(rng: np.random.Generator) -> RGB:
    """A grey; in half of the cases it has a tint, which is weaker than any of the COLOURS."""
    tint = rng.uniform(-28, 28, 3) if rng.random() < 0.5 else 0.0
    return tuple(np.clip(rng.uniform(0, 255) + tint + np.zeros(3), 0, 255).tolist())
