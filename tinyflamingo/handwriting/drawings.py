"""Handwriting as training data: drawings become varied pictures, and episodes give them invented names.

Serves chapter §2 to §5. A drawing becomes a picture of bright ink on a dark ground; every picture is shifted,
slanted and bent in a new random way. A character after a quarter turn or a reflection counts as another
character, so one character gives eight classes. In an episode, pictures have invented names, which mean nothing
in other episodes.

Not here: the files (`omniglot.py`), number and size of the episodes (`training/presets.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld.language import CODAS, ONSETS
from tinyflamingo.data.tinyworld.pool import Medium
from tinyflamingo.handwriting.omniglot import DRAWERS, SIDE
from tinyflamingo.ops.types import Array

TURNS = 8  # four quarter turns, plain and mirrored
GROUND, INK = 86, 160  # grey of the ground, and grey that full ink adds; the encoder gets about -0.3 and 1.7
MARGIN = 1.15  # size of the frame, relative to the box around the ink
SMALL_STAYS = 0.5  # share of the logarithm of a drawing's size that is kept; 0: every drawing fills its frame
ANGLE, STRETCH, SLANT, SHIFT, BEND = 0.14, 0.12, 0.12, 0.07, 0.04  # standard deviations; lengths in half sides
BEND_CELLS = 4  # points on a side of the grid of random shifts that bends a drawing


@dataclass(frozen=True)
class Sheet:
    """Drawings prepared for sampling. ink: uint8 (n, 105, 105), smoothed; centre (n, 2) and half (n,): the
    centre of each drawing's frame and half of the frame's side, in pixels."""

    ink: np.ndarray
    centre: np.ndarray
    half: np.ndarray


def sheet(drawings: np.ndarray) -> Sheet:
    """Drawings, bool (n, 105, 105), smoothed by a box of 3 x 3, each with a frame around its ink."""
    padded = np.pad(drawings, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    columns = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    ink = (columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]) * np.uint8(28)
    (top, bottom), (left, right) = _span(drawings.any(axis=2)), _span(drawings.any(axis=1))
    box = np.maximum(bottom - top, right - left) / 2 * MARGIN
    half = (SIDE / 2) ** SMALL_STAYS * np.maximum(box, 1) ** (1 - SMALL_STAYS)
    return Sheet(ink, np.stack([top + bottom, left + right], axis=1) / 2 - 0.5, half)


def _span(used):
    """The begin and the end of the ink in each row of (n, 105)."""
    return used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)


def turned(turns: Array) -> np.ndarray:
    """The matrices (n, 2, 2) of turns (n,): 0 to 3 are quarter turns, 4 to 7 the same with a reflection."""
    angle, mirror = np.asarray(turns) % 4 * (np.pi / 2), np.where(np.asarray(turns) < 4, 1.0, -1.0)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s * mirror], axis=-1), np.stack([s, c * mirror], axis=-1)], axis=-2)


def draw_plain(
    page: Sheet, index: Array, side: int, turns: Array = 0, shift: Array = (0.0, 0.0), angle: float = 0.0
) -> np.ndarray:
    """Drawings by index, without variation: uint8 (n, side, side, 3). shift: of the view, in half sides."""
    turns = np.broadcast_to(turns, np.shape(index))
    c, s = np.cos(angle), np.sin(angle)
    maps = turned(turns) @ np.array([[c, -s], [s, c]])
    return _sample(page, index, maps, np.broadcast_to(shift, (len(index), 2)), 0.0, side)


def draw_varied(rng: np.random.Generator, page: Sheet, index: Array, side: int, turns: Array = 0) -> np.ndarray:
    """Drawings by index, each slanted, stretched, shifted and bent at random: uint8 (n, side, side, 3)."""
    n = len(index)
    angle, slant = rng.normal(0, ANGLE, n), rng.normal(0, SLANT, n)
    stretch, shift = np.exp(rng.normal(0, STRETCH, (n, 2))), rng.normal(0, SHIFT, (n, 2))
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
    shear = np.zeros((n, 2, 2))
    shear[:, 0, 0], shear[:, 1, 1], shear[:, 0, 1] = stretch[:, 0], stretch[:, 1], slant
    maps = turned(np.broadcast_to(turns, (n,))) @ rotation @ shear
    return _sample(page, index, maps, shift, _bend(rng, n, side), side)


def _bend(rng, n, side):
    """Smooth random shifts of all pixels (n, side * side, 2), interpolated from a coarse grid of random shifts."""
    coarse = rng.standard_normal((n, BEND_CELLS, BEND_CELLS, 2)).astype(np.float32) * np.float32(BEND)
    place = np.linspace(0, BEND_CELLS - 1, side)
    low = np.minimum(place.astype(int), BEND_CELLS - 2)
    share = (place - low) ** 2 * (3 - 2 * (place - low))
    weights = np.zeros((side, BEND_CELLS), np.float32)
    weights[np.arange(side), low], weights[np.arange(side), low + 1] = 1 - share, share
    return np.einsum("ya,nabc,xb->nyxc", weights, coarse, weights, optimize=True).reshape(n, side * side, 2)


def _sample(page, index, maps, shift, bend, side):
    """A picture's pixel p, from -1 to 1, gets the ink at centre + half (map (p + bend) + shift) of the drawing."""
    index, n = np.asarray(index), len(index)
    line = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    pixels = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(1, -1, 2) + bend
    half = page.half[index, None]
    places = np.matmul(pixels, (maps * half[:, None]).transpose(0, 2, 1).astype(np.float32))
    places = places + (page.centre[index] + shift * half).astype(np.float32)[:, None]
    places = np.clip(places, 0, np.float32(SIDE - 1.001))
    corner = places.astype(np.int32)
    y, x = np.moveaxis(places - corner, -1, 0)
    first = (index[:, None].astype(np.int64) * SIDE + corner[..., 0]) * SIDE + corner[..., 1]
    flat = page.ink.reshape(-1)
    ink = (flat[first] * (1 - x) + flat[first + 1] * x) * (1 - y)
    ink = ink + (flat[first + SIDE] * (1 - x) + flat[first + SIDE + 1] * x) * y
    grey = (GROUND + ink * np.float32(INK / 255) + 0.5).astype(np.uint8).reshape(n, side, side, 1)
    return np.repeat(grey, 3, axis=3)


# ---- episodes --------------------------------------------------------------------------------


def episode_words(rng: np.random.Generator, ways: int) -> list[str]:
    """Invented words for the classes of an episode, at most 20. No two of them have a syllable in common."""
    onsets, codas = rng.permutation(len(ONSETS))[:ways], rng.permutation(len(CODAS))[:ways]
    return [ONSETS[i] + CODAS[j] for i, j in zip(onsets, codas, strict=True)]


def picture_episode(rng: np.random.Generator, classes: np.ndarray, ways: int, queries: int) -> list:
    """A few-shot episode of drawings: `ways` characters drawn by one person, then queries drawn by others.

    classes: the classes to choose from. Every picture is directly followed by its word. The first
    occurrence of a word has no loss, because it cannot be predicted.
    """
    words = episode_words(rng, ways)
    teacher, *others = rng.permutation(DRAWERS)
    chosen = rng.permutation(classes)[:ways]
    items = []
    for c, word in zip(chosen, words, strict=True):
        items += [Medium("picture", int(c * DRAWERS + teacher)), Quiet(word)]
    for i in rng.integers(ways, size=queries):
        items += [Medium("picture", int(chosen[i] * DRAWERS + rng.choice(others))), words[i]]
    return items
