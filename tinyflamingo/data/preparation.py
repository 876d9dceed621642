"""How a picture of any size becomes the square that an image encoder was trained on (chapter §2).

The chapter's encoder does as the paper (appendix B.1.2): the picture keeps its aspect ratio and is padded to a square
with the mean value. It shrinks by exact area average: each new pixel is the mean of the area that it covers. The paper
does not say which mean. Here it is the mean colour of the picture itself, so padding needs no other picture and no data
set. Encoders of CLIP and timm: the picture is resized with a filter of Pillow, and its centre is cut out.

An encoder's configuration has its `Preparation`; a checkpoint keeps it. Not here: files to RGB (`images.py`,
`video.py`), and the scaling of colours to mean 0 and variance 1 (the encoder does it).
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tinyflamingo.errors import UserError

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
LONGEST = 100  # long side / short side; of a longer picture only the middle is resized, which saves memory


class Preparation(NamedTuple):
    """How a picture gets the encoder's size.

    fit "pad": the whole picture with margins; the filter is "area" and the share 1. fit "crop": the short side becomes
    side / share long, then the centre is cut out. fit "squash": both sides become side / share long, so the
    aspect ratio changes.
    """

    fit: str = "pad"
    filter: str = "area"
    share: float = 1.0  # side / length of the resized side, as timm's crop_pct


LARGEST_SIDE = 1024  # pixels; the encoders of the paper take up to 480
PAD_TO_SQUARE = Preparation()  # the chapter's
CLIP = Preparation("crop", "bicubic")


def require_preparation(preparation: Any) -> None:
    """`UserError` unless it has the three entries of `Preparation`, with values that work together."""
    try:
        fit, kernel, share = preparation
        fits = (fit, kernel, share) == PAD_TO_SQUARE or (
            fit in ("crop", "squash") and kernel in FILTERS and isinstance(share, float | int) and 0.5 <= share <= 1
        )
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"configuration: preparation is {preparation!r} but must be {tuple(PAD_TO_SQUARE)}, or ('crop' or "
            f"'squash', {' or '.join(map(repr, FILTERS))}, a share from 0.5 to 1)"
        )


def require_square(side: Any, preparation: Any) -> None:
    """`UserError` unless a picture can have this side and preparation. All loaders of pictures and videos ask it."""
    whole = isinstance(side, Integral) and not isinstance(side, bool)
    if not (whole and 1 <= side <= LARGEST_SIDE):
        raise UserError(f"the side of a picture is {side!r} but must be a whole number from 1 to {LARGEST_SIDE}")
    require_preparation(preparation)


def fit_square(image: Image.Image, side: int, preparation: Preparation = PAD_TO_SQUARE) -> np.ndarray:
    """RGB picture of any size to uint8 (side, side, 3)."""
    fit, kernel, share = preparation
    return _pad(image, side) if fit == "pad" else _crop(image, side, fit == "squash", FILTERS[kernel], share)


def _crop(image, side, squash, kernel, share) -> np.ndarray:
    """The centre of the resized picture. Sizes are rounded as in torchvision."""
    short, resized = min(image.size), int(side / share)
    if max(image.size) > LONGEST * short:
        image = _centre(image, *(min(length, LONGEST * short) for length in image.size))
    width, height = (resized if squash else int(resized * length / short) for length in image.size)
    return np.asarray(_centre(image.resize((width, height), kernel), side, side))


def _centre(image, width, height):
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _pad(image, side) -> np.ndarray:
    """The whole picture, aspect ratio kept, with margins in its mean colour."""
    longest = max(image.size)
    width, height = (max(1, round(side * length / longest)) for length in image.size)
    pixels = _shrink(image, width, height)
    square = np.empty((side, side, 3), np.float32)
    square[:] = pixels.mean((0, 1))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return (square + np.float32(0.5)).astype(np.uint8)


def _shrink(image: Image.Image, width: int, height: int) -> np.ndarray:
    """Exact area average, or enlargement of a tiny picture: float32 (height, width, 3)."""
    # Pillow first shrinks a large picture by whole factors: a float copy of it would fill 300 MB
    by_x, by_y = (max(1, a // (8 * b)) for a, b in zip(image.size, (width, height), strict=True))
    small = np.asarray(image.reduce((by_x, by_y)), np.float32)
    across = _area_weights(small.shape[1], image.width / by_x, width)
    down = _area_weights(small.shape[0], image.height / by_y, height)
    return np.einsum("ih,hwc,jw->ijc", down, small, across, optimize=True)


def _area_weights(cells: int, length: float, parts: int) -> np.ndarray:
    """Float32 (parts, cells): the share of each cell in each of `parts` equal parts of `length`.

    Cell i covers i to i + 1, and the last cell ends at `length`.
    """
    edges = np.minimum(np.arange(cells + 1), length)
    cuts = np.linspace(0, length, parts + 1)
    upper = np.minimum(cuts[1:, None], edges[None, 1:])
    lower = np.maximum(cuts[:-1, None], edges[None, :-1])
    return (np.maximum(upper - lower, 0) * (parts / length)).astype(np.float32)
