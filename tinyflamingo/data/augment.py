"""Random changes of pictures that keep what they show: the model then learns the thing, not the pixels.

Serves chapter §2: stage one on the user's own data, stages one and three on emoji. Each picture is turned, scaled,
shifted and recoloured a little. It is never mirrored: arrows, letters and "left of" would change their meaning. The
paper's towers saw hundreds of millions of pictures; a folder of a few hundred needs this. `disguised` changes more, so
it is only for things that are the same in every colour.

Not here: handwriting, which is bent too (`handwriting/drawings.py`).
"""

from __future__ import annotations

import numpy as np

ANGLE, SCALE, SHIFT, COLOUR = 0.12, 0.12, 0.07, 0.15  # standard deviations: radians, a logarithm, half sides, a factor
EXCHANGED, COVERED = 0.6, 0.4  # shares of the pictures that get other colours, and that are covered in part
COVER = 0.2, 0.4  # shortest and longest side of a cover, as shares of the picture's


def augmented(rng: np.random.Generator, pictures: np.ndarray) -> np.ndarray:
    """Pictures, uint8 (B, Y, X, 3), each changed in its own way. What comes into the picture repeats its border."""
    n, Y, X = pictures.shape[:3]
    angle, scale, shift = rng.normal(0, ANGLE, n), np.exp(rng.normal(0, SCALE, n)), rng.normal(0, SHIFT, (n, 1, 2))
    gain, light = np.exp(rng.normal(0, COLOUR, (n, 1, 1, 3))), rng.normal(0, COLOUR / 2, (n, 1, 1, 1))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    maps = np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
    lines = [(np.arange(size) + 0.5) / size * 2 - 1 for size in (Y, X)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(1, -1, 2)
    places = (np.matmul(grid, maps.transpose(0, 2, 1)) + shift + 1) / 2 * (Y, X) - 0.5
    moved = _sampled(pictures, places).reshape(n, Y, X, 3)
    return np.clip((moved - 128) * gain + 128 + 255 * light + 0.5, 0, 255).astype(np.uint8)


def disguised(rng: np.random.Generator, pictures: np.ndarray) -> np.ndarray:
    """Pictures, uint8 (B, Y, X, 3): some with their three channels mixed, some with a rectangle of their mean colour.

    The rectangle is cutout (DeVries and Taylor 2017).
    """
    n, size = len(pictures), pictures.shape[1:3]
    order = np.argsort(rng.random((n, 1, 1, 3)))
    weight = (rng.random(n) * (rng.random(n) < EXCHANGED)).reshape(n, 1, 1, 1)
    mixed = (
        pictures * (1 - weight) + np.take_along_axis(pictures, np.broadcast_to(order, pictures.shape), axis=3) * weight
    )
    sides = rng.uniform(*COVER, (2, n, 1)) * (rng.random((n, 1)) < COVERED)
    starts = rng.random((2, n, 1)) * (1 - sides)
    places = [(np.arange(length) + 0.5) / length for length in size]
    rows, columns = ((a <= x) & (x < a + side) for a, x, side in zip(starts, places, sides, strict=True))
    cover = (rows[:, :, None] & columns[:, None])[..., None]
    return np.where(cover, mixed.mean(axis=(1, 2), keepdims=True), mixed).round().astype(np.uint8)


def _sampled(pictures, places):
    """Colours (B, P, 3) at places (B, P, 2) of each picture, in pixels, between pixels by linear interpolation."""
    n, Y, X = pictures.shape[:3]
    places = np.clip(places, 0, (Y - 1, X - 1)).astype(np.float32)
    low = np.minimum(places.astype(int), (max(Y - 2, 0), max(X - 2, 0)))
    y, x = np.moveaxis(places - low, -1, 0)[..., None]
    rows, columns, first = low[..., 0], low[..., 1], np.arange(n)[:, None]
    below, right = np.minimum(rows + 1, Y - 1), np.minimum(columns + 1, X - 1)
    upper = pictures[first, rows, columns] * (1 - x) + pictures[first, rows, right] * x
    return upper * (1 - y) + (pictures[first, below, columns] * (1 - x) + pictures[first, below, right] * x) * y
