"""CLIP's vision transformer: the other way from pixels to features, in contrast to the NF-ResNet.

Chapter §2; CLIP paper (Radford et al. 2021), section 2.4, and Dosovitskiy et al. 2020. The picture is
cut into patches, each becomes one token by a single matrix, and from there on a picture is read as
a text is: every patch looks at every other from the first block on. What a convolution knows of its
own, that neighbours belong together and that a thing looks the same anywhere, is learned here: the
place of a patch is a learned vector. CLIP's own marks: a class token that gathers the picture, one
more layer norm before the blocks, and quick-GELU.

Not here: the projection into the space of the captions, which either encoder needs
(`model/contrastive.py`), and which encoder a configuration means (`model/encoders.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import ViTConfig
from tinyflamingo.model.encoder_block import encoder_block, init_encoder_block


def vit(params, pictures, config: ViTConfig):
    """Pictures (B, Y, X, 3) to features (B, S, Dv), one a patch, and one pooled vector each (B, Dv).

    Any size: the rest that fills no patch is filled up with zeros, and learned places are stretched
    over the grid of patches. The pooled vector is the class token after the final norm (CLIP), or
    the mean of the features (`config.pool`).
    """
    x = cut_patches(ops.expect(pictures, "B Y X 3"), config.patch)
    B, rows, columns, _ = x.shape
    places = stretch_places(params["positions"], rows, columns)
    patches = np.reshape(ops.linear(x, params["w_patch"]), (B, rows * columns, config.width)) + places[1:]
    h = np.concatenate([np.zeros((B, 1, 1), x.dtype) + (params["class_token"] + places[0]), patches], axis=1)
    h = ops.layer_norm(h, params["first_gain"], params["first_bias"])
    for i in range(config.layers):
        h = encoder_block(params[f"block_{i}"], h, config.heads, None, getattr(ops, config.activation))
    normed = ops.layer_norm(h, params["final_gain"], params["final_bias"])
    features = normed[:, 1:] if config.norm_features else h[:, 1:]
    if config.pool == "class":
        return features, normed[:, 0]
    return features, np.sum(features, axis=1) * h.dtype.type(1.0 / (rows * columns))


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
