"""NF-ResNets of the library `timm`: NFNets and the NF-ResNet-50, with its conventions.

Beside chapter §2. The idea is the same as in `model/vision_encoder.py`. The configuration also allows: exact GELU or
ReLU, a stem with other kernel sizes and a pooling layer, blocks with one 3x3 convolution, no squeeze-excite, no final
convolution, and the padding of PyTorch.

Not here: names and numbers in timm's files (`interop/timm.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation, require_preparation
from tinyflamingo.model.config import VisionConfig, require, require_choice, require_sizes
from tinyflamingo.model.vision_encoder import block_plan, init_conv, init_squeeze_excite, normalise_pixels
from tinyflamingo.ops.types import Array, Params


class Activation(NamedTuple):
    """A function, and the gain that keeps unit variance after it."""

    function: Callable
    gain: float


ACTIVATIONS = {
    "gelu_erf": Activation(ops.gelu_erf, 1.7015043497085571),
    "relu": Activation(ops.relu, 1.7139588594436646),
}
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of 0..255: timm standardises pixels with these
IMAGENET_SPREAD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class TimmConfig(VisionConfig):
    """An encoder of timm. stem: (width, stride, kernel size) of each convolution. se_ratio 0: no squeeze-excite."""

    stem: tuple = ((16, 2, 3), (48, 1, 3))
    activation: str = "gelu_erf"
    stem_pool: bool = False  # a 3x3 maximum of stride 2 after the stem, as in ResNet-50
    spatial: int = 2  # 3x3 convolutions in a block
    final: bool = True  # the last 1x1 convolution; without it, the width of the last stage is Dv
    odd_pixel: str = "end"  # the side where padding has one pixel more: "end" in JAX, "start" in PyTorch
    preparation: Preparation = PAD_TO_SQUARE

    ENTRIES = VisionConfig.ENTRIES | {"stem": "(width, stride, size)"}
    SE_OPTIONAL = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("activation", self.activation, tuple(ACTIVATIONS))
        require_choice("odd_pixel", self.odd_pixel, ("end", "start"))
        last = self.stages[-1][0]
        message = f"width {self.width} must be the last stage's {last}, because final is False"
        require(self.final or self.width == last, message)
        require_sizes(spatial=self.spatial)
        require_preparation(self.preparation)
        require(self.spatial <= 2, f"spatial is {self.spatial} but a block has 1 or 2 convolutions of 3x3")


def encode_as_timm(params: Params, pictures: Array, config: TimmConfig) -> tuple[Array, Array]:
    """Pictures, uint8 (B, Y, X, 3), to features (B, S, Dv) and to their mean over each picture (B, Dv)."""
    features = timm_encoder(params, normalise_pixels(pictures, IMAGENET_MEAN, IMAGENET_SPREAD), config)
    return features, np.sum(features, axis=1) * features.dtype.type(1.0 / features.shape[1])


def timm_encoder(params: Params, pictures: Array, config: TimmConfig) -> Array:
    """Pictures (B, Y, X, 3), standardised floats, to features (B, S, Dv): the S cells of the last grid."""
    h = ops.expect(pictures, "B Y X 3")
    for i, (_, stride, _) in enumerate(config.stem):
        h = _convolve(params[f"stem_{i}"], h if i == 0 else gained(h, config), config, stride)
    if config.stem_pool:
        h = ops.max_pool3(h, config.odd_pixel)
    for name, _, stride, _, beta in block_plan(config):
        h = timm_block(params[name], h, beta, stride, config)
    grid = gained(_convolve(params["final"], h, config) if config.final else h, config)
    return np.reshape(grid, (grid.shape[0], -1, grid.shape[3]))


def timm_block(params: Params, h: Array, beta: float, stride: int, config: TimmConfig) -> Array:
    """One pre-activation bottleneck, like `vision_encoder.nf_block`: h (B, Y, X, C) -> (B, Y', X', C')."""
    x = gained(h, config, beta)
    shortcut = h
    if "shortcut" in params:
        shortcut = _convolve(params["shortcut"], ops.avg_pool2(x) if stride == 2 else x, config)
    branch = _convolve(params["reduce"], x, config)
    branch = _convolve(params["spatial_0"], gained(branch, config), config, stride)
    if config.spatial == 2:
        branch = _convolve(params["spatial_1"], gained(branch, config), config)
    branch = _convolve(params["expand"], gained(branch, config), config)
    weight = params["skip_init_gain"] * h.dtype.type(config.alpha)
    if not config.se_ratio:
        return shortcut + branch * weight
    return ops.gated_residual(shortcut, branch, relu_squeeze_excite(params["squeeze_excite"], branch) * weight)


def gained(x: Array, config: TimmConfig, beta: float = 1.0) -> Array:
    """The activation of x with its gain, over beta."""
    function, gain = ACTIVATIONS[config.activation]
    return function(x) * x.dtype.type(gain / beta)


def _convolve(params, x, config, stride=1):
    """Convolution with standardised weights and the padding of the configuration."""
    groups = x.shape[-1] // params["w"].shape[2]
    w = ops.standardise_weight(params["w"], params["gain"])
    return ops.conv2d(x, w, params["b"], stride, groups, config.odd_pixel)


def relu_squeeze_excite(params: Params, x: Array) -> Array:
    """Channel gates (B, C) as in the code of the NFNet paper, with ReLU inside; times 2."""
    hidden = ops.relu(ops.linear(ops.mean_pixels(x), params["w_squeeze"], params["b_squeeze"]))
    hidden = hidden * x.dtype.type(ACTIVATIONS["relu"].gain)
    return x.dtype.type(2.0) * ops.sigmoid(ops.linear(hidden, params["w_excite"], params["b_excite"]))


def init_timm_encoder(rng: np.random.Generator, config: TimmConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts. SkipInit gains start at 0, convolution gains at 1."""
    params, cin = {}, 3
    for i, (width, _, size) in enumerate(config.stem):
        params[f"stem_{i}"] = init_conv(rng, size, cin, width, dtype)
        cin = width
    for name, width, _, transition, _ in block_plan(config):
        params[name] = _init_block(rng, cin, width, transition, config, dtype)
        cin = width
    return params | ({"final": init_conv(rng, 1, cin, config.width, dtype)} if config.final else {})


def _init_block(rng, cin, width, transition, config, dtype):
    inner = int(width * config.bottleneck)
    group = min(config.group_size, inner)
    params = {"reduce": init_conv(rng, 1, cin, inner, dtype)}
    for i in range(config.spatial):
        params[f"spatial_{i}"] = init_conv(rng, 3, group, inner, dtype)
    params["expand"] = init_conv(rng, 1, inner, width, dtype)
    if config.se_ratio:
        params["squeeze_excite"] = init_squeeze_excite(rng, width, config.se_ratio, dtype)
    params["skip_init_gain"] = np.zeros((), dtype)
    return params | ({"shortcut": init_conv(rng, 1, cin, width, dtype)} if transition else {})
