"""CLIP's vision transformer: the other way from pixels to features, in contrast to the NF-ResNet.

Chapter §2; CLIP paper (Radford et al. 2021), section 2.4, and Dosovitskiy et al. 2020. The picture is
cut into patches, each becomes one token by a single matrix, and from there on a picture is read as
a text is: every patch looks at every other from the first block on. What a convolution knows of its
own, that neighbours belong together and that a thing looks the same anywhere, is learned here: the
place of a patch is a learned vector. CLIP's own marks: a class token that gathers the picture, one
more layer norm before the blocks, and quick-GELU.

Not here: the projection into the space of the captions, which either encoder needs
(`model/contrastive.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import require, require_choice, require_whole_fields
from tinyflamingo.model.encoder_block import encoder_block, init_encoder_block
from tinyflamingo.model.vision_encoder import PIXEL_MEAN, PIXEL_SPREAD, normalise_pixels

ACTIVATIONS = {"quick_gelu": ops.quick_gelu, "gelu": ops.gelu, "gelu_erf": ops.gelu_erf}


@dataclass(frozen=True)
class ViTConfig:
    """CLIP's vision transformer, in place of the NF-ResNet (chapter §2; CLIP paper, section 2.4)."""

    patch: int = 4  # pixels a side of a patch
    width: int = 128  # Dv: width of a token, and so of a feature
    layers: int = 4
    heads: int = 4
    ffw_multiplier: int = 4
    side: int = 32  # pixels a side of the pictures whose patches have learned places; others interpolate them
    activation: str = "quick_gelu"  # of the feed-forward layer: CLIP's; open_clip's own towers: "gelu_erf"
    norm_features: bool = True  # the final norm is on the features too, not on the class token alone
    pixels: tuple = ((PIXEL_MEAN,) * 3, (PIXEL_SPREAD,) * 3)  # of 0..255: subtracted from each channel; divides it

    def __post_init__(self):
        require_whole_fields(self)
        require(self.width % self.heads == 0, f"vision width {self.width} is not a multiple of heads {self.heads}")
        require(self.side % self.patch == 0, f"side {self.side} is not a multiple of patch {self.patch}")
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        fits = all(isinstance(part, tuple) and len(part) == 3 for part in self.pixels) and len(self.pixels) == 2
        wrong = f"pixels is {self.pixels!r} but must be three means and three spreads above 0"
        require(fits and min(self.pixels[1]) > 0, wrong)

    @property
    def grid(self) -> int:
        """Patches along a side of the pictures it learns from."""
        return self.side // self.patch


def encode_with_vit(params, pictures, config: ViTConfig):
    """Pictures, uint8 (B, Y, X, 3): features (B, S, Dv), and one vector for each picture (B, Dv)."""
    return vit(params, normalise_pixels(pictures, *config.pixels), config)


def vit(params, pictures, config: ViTConfig):
    """Pictures (B, Y, X, 3), floats, to features (B, S, Dv), one for each patch, and the class token (B, Dv).

    Any size: patches at the edge are filled up with zeros, and learned places are stretched over the
    grid of patches. The class token is taken after the final norm, as in CLIP.
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


def cut_patches(pictures, size):
    """(B, Y, X, 3) -> (B, rows, columns, size * size * 3), each patch's pixels row by row."""
    B, Y, X, C = pictures.shape
    rows, columns = -(-Y // size), -(-X // size)
    x = np.pad(pictures, ((0, 0), (0, rows * size - Y), (0, columns * size - X), (0, 0)), mode="constant")
    x = np.transpose(np.reshape(x, (B, rows, size, columns, size, C)), (0, 1, 3, 2, 4, 5))
    return np.reshape(x, (B, rows, columns, size * size * C))


def stretch_places(table, rows, columns):
    """Places (1 + G G, D), the class token's first, to (1 + rows columns, D), by linear interpolation."""
    side, D = int((table.shape[0] - 1) ** 0.5), table.shape[1]
    if (rows, columns) == (side, side):
        return table
    y, x = (_shares(n, side).astype(table.dtype) for n in (rows, columns))
    grid = np.einsum("yg,xh,ghd->yxd", y, x, np.reshape(table[1:], (side, side, D)))
    return np.concatenate([table[:1], np.reshape(grid, (rows * columns, D))], axis=0)


def _shares(n, side):
    """(n, side): how much each of `side` learned places counts for each of n, centres over centres."""
    place = np.clip((np.arange(n) + 0.5) * side / n - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))


def init_vit(rng, config: ViTConfig, dtype=np.float32):
    """Parameters as nested dicts; tokens and places start at variance 1/Dv, as in CLIP's code."""
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
