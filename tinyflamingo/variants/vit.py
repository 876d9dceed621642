"""CLIP's vision transformer: the other way from pixels to features, in contrast to the NF-ResNet.

Chapter §2; CLIP paper (Radford et al. 2021), section 2.4, and Dosovitskiy et al. 2020. The picture is cut into
patches, one matrix makes one token of each patch, and then the picture is read like a text: every patch attends to
every other patch from the first block on. A convolution has two assumptions built in: near pixels belong together, and
a thing looks the same in every place. A transformer must learn both: the place of a patch is a learned vector.
Specific to CLIP: a class token that collects the whole picture, one more layer norm before the blocks, and quick-GELU.

Not here: the projection into the space of the captions, which both encoders need (`model/contrastive.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation, require_preparation
from tinyflamingo.model.config import require, require_choice, require_whole_fields
from tinyflamingo.model.encoder_block import encoder_block, init_encoder_block
from tinyflamingo.model.vision_encoder import PIXEL_MEAN, PIXEL_SPREAD, normalise_pixels
from tinyflamingo.ops.types import Array, Params

ACTIVATIONS = {"quick_gelu": ops.quick_gelu, "gelu": ops.gelu, "gelu_erf": ops.gelu_erf}


@dataclass(frozen=True)
class ViTConfig:
    """CLIP's vision transformer, instead of the NF-ResNet (chapter §2; CLIP paper, section 2.4)."""

    patch: int = 4  # side of a patch in pixels
    width: int = 128  # Dv: width of a token and of a feature
    layers: int = 4
    heads: int = 4
    ffw_multiplier: int = 4
    side: int = 32  # side, in pixels, of pictures whose patches have learned places; other sizes interpolate them
    activation: str = "quick_gelu"  # of the feed-forward layer: "quick_gelu" in CLIP, "gelu_erf" in open_clip's towers
    norm_features: bool = True  # apply the final norm to the features too, not to the class token alone
    pixels: tuple = ((PIXEL_MEAN,) * 3, (PIXEL_SPREAD,) * 3)  # mean and spread of each channel, of 0..255
    preparation: Preparation = PAD_TO_SQUARE

    def __post_init__(self) -> None:
        require_whole_fields(self)
        require(self.width % self.heads == 0, f"vision width {self.width} is not a multiple of heads {self.heads}")
        require(self.side % self.patch == 0, f"side {self.side} is not a multiple of patch {self.patch}")
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        self._require_pixels(self.pixels)
        require_preparation(self.preparation)

    @staticmethod
    def _require_pixels(pixels):
        """The field must be three means and three spreads above 0, all finite."""
        fits = isinstance(pixels, tuple) and len(pixels) == 2
        fits = fits and all(isinstance(part, tuple) and len(part) == 3 for part in pixels)
        fits = fits and all(isinstance(x, Real) and math.isfinite(x) for part in pixels for x in part)
        message = f"pixels is {pixels!r} but must be (three means, three spreads above 0)"
        require(fits and min(pixels[1]) > 0, message)

    @property
    def grid(self) -> int:
        """Patches along a side of the training pictures."""
        return self.side // self.patch


def encode_with_vit(params: Params, pictures: Array, config: ViTConfig) -> tuple[Array, Array]:
    """Pictures, uint8 (B, Y, X, 3), to features (B, S, Dv) and to one vector for each picture (B, Dv)."""
    return vit(params, normalise_pixels(pictures, *config.pixels), config)


def vit(params: Params, pictures: Array, config: ViTConfig) -> tuple[Array, Array]:
    """Pictures (B, Y, X, 3), floats, to features (B, S, Dv), one for each patch, and the class token (B, Dv).

    Any size: patches at the edge are filled with zeros, and learned places are stretched over the grid of patches.
    The class token is taken after the final norm, as in CLIP.
    """
    x = cut_patches(ops.expect(pictures, "B Y X 3"), config.patch)
    B, rows, columns, _ = x.shape
    places = stretch_places(params["positions"], rows, columns)
    patches = np.reshape(ops.linear(x, params["w_patch"]), (B, rows * columns, config.width)) + places[1:]
    h = np.concatenate([np.zeros((B, 1, 1), x.dtype) + (params["class_token"] + places[0]), patches], axis=1)
    h = ops.layer_norm(h, params["first_gain"], params["first_bias"])
    for i in range(config.layers):
        h = encoder_block(params[f"block_{i}"], h, config.heads, None, ACTIVATIONS[config.activation])
    normed = ops.layer_norm(h, params["final_gain"], params["final_bias"])
    return (normed if config.norm_features else h)[:, 1:], normed[:, 0]


def cut_patches(pictures: Array, size: int) -> Array:
    """(B, Y, X, 3) -> (B, rows, columns, size * size * 3), the pixels of each patch row by row."""
    B, Y, X, C = pictures.shape
    rows, columns = -(-Y // size), -(-X // size)
    x = np.pad(pictures, ((0, 0), (0, rows * size - Y), (0, columns * size - X), (0, 0)), mode="constant")
    x = np.transpose(np.reshape(x, (B, rows, size, columns, size, C)), (0, 1, 3, 2, 4, 5))
    return np.reshape(x, (B, rows, columns, size * size * C))


def stretch_places(table: Array, rows: int, columns: int) -> Array:
    """Places (1 + G G, D), the class token's first, to (1 + rows columns, D), by linear interpolation."""
    side, D = int((table.shape[0] - 1) ** 0.5), table.shape[1]
    if (rows, columns) == (side, side):
        return table
    y, x = (_interpolation(n, side).astype(table.dtype) for n in (rows, columns))
    grid = np.einsum("yg,xh,ghd->yxd", y, x, np.reshape(table[1:], (side, side, D)))
    return np.concatenate([table[:1], np.reshape(grid, (rows * columns, D))], axis=0)


def _interpolation(n, side):
    """(n, side): the weight of each of `side` learned places in each of n places, centre over centre."""
    place = np.clip((np.arange(n) + 0.5) * side / n - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))


def init_vit(rng: np.random.Generator, config: ViTConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts. Class token and places start at variance 1/Dv, as in CLIP's code."""
    D, pixels = config.width, 3 * config.patch**2

    def matrix(rows, columns, scale):
        return (rng.standard_normal((rows, columns)) * scale).astype(dtype)

    params = {
        "w_patch": matrix(pixels, D, pixels**-0.5),
        "class_token": (rng.standard_normal(D) * D**-0.5).astype(dtype),
        "positions": matrix(1 + config.grid**2, D, D**-0.5),
        "first_gain": np.ones(D, dtype),
        "first_bias": np.zeros(D, dtype),
    }
    for i in range(config.layers):
        biases = {name: np.zeros(D, dtype) for name in ("b_q", "b_k", "b_v")}
        params[f"block_{i}"] = init_encoder_block(rng, D, config.ffw_multiplier * D, config.layers, dtype) | biases
    return params | {"final_gain": np.ones(D, dtype), "final_bias": np.zeros(D, dtype)}
