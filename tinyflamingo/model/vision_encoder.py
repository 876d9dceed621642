"""The vision encoder: a normalizer-free ResNet (NF-ResNet), from pixels to a grid of features.

Chapter §2; NFNet paper (Brock et al. 2021), section 3 and appendix C. Four ideas replace batch normalisation:
scaled weight standardisation, activation gains, the residual rule `h + alpha * f(h / beta)` with a variance that is
known beforehand, and SkipInit. The pictures can have any size.

Not here: its training (`model/contrastive.py`, `training/contrastive_stage.py`), adaptive gradient clipping
(`training/optimiser.py`), stochastic depth and dropout (a toy needs neither), other encoders (`variants/`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.ops.types import Array, Params

GELU_GAIN = 1.7015043497085571  # makes Var(gain * gelu(x)) = 1 for x ~ N(0, 1); NFNet code's constant
PIXEL_MEAN, PIXEL_SPREAD = 110.0, 80.0  # of 0..255, in every channel


def encode_pictures(params: Params, pictures: Array, config: VisionConfig) -> tuple[Array, Array]:
    """Pictures, uint8 (B, Y, X, 3), to features (B, S, Dv) and to their mean over each picture (B, Dv).

    The resampler reads the features. Contrastive training reads the mean (paper, appendix B.1.3).
    """
    features = vision_encoder(params, normalise_pixels(pictures), config)
    return features, np.sum(features, axis=1) * features.dtype.type(1.0 / features.shape[1])


def normalise_pixels(pictures: Array, mean: Array | float = PIXEL_MEAN, spread: Array | float = PIXEL_SPREAD) -> Array:
    """uint8 (..., Y, X, 3) to float32, mean about 0, variance about 1. mean, spread: one number, or one per channel."""
    scale = (1.0 / np.array(spread)).astype(np.float32)
    return (np.asanyarray(pictures, dtype=np.float32) - np.array(mean, np.float32)) * scale


def vision_encoder(params: Params, pictures: Array, config: VisionConfig, watch: Callable = lambda *_: None) -> Array:
    """Pictures (B, Y, X, 3), floats from `normalise_pixels`, to features (B, S, Dv): the S cells of the last grid.

    `watch(name, h)` is called with the signal after the stem and after every block (for plots and tests).
    """
    h = ops.expect(pictures, "B Y X 3")
    for i, (_, stride) in enumerate(config.stem):
        h = ws_conv(params[f"stem_{i}"], h if i == 0 else gained_gelu(h), stride)
    watch("stem", h)
    for name, _, stride, _, beta in block_plan(config):
        h = nf_block(params[name], h, beta, config.alpha, stride)
        watch(name, h)
    grid = gained_gelu(ws_conv(params["final"], h))
    B, Y, X, Dv = grid.shape
    return np.reshape(grid, (B, Y * X, Dv))


def nf_block(params: Params, h: Array, beta: float, alpha: float, stride: int) -> Array:
    """One pre-activation bottleneck: `shortcut + alpha * skip_init_gain * gates * f(gelu(h) / beta)`.

    h (B, Y, X, C) -> (B, Y', X', C'). beta is the *predicted* standard deviation of h. A transition block has a
    shortcut convolution; it reads the scaled activation, which resets the variance to 1. Elsewhere the shortcut is h.
    """
    x = gained_gelu(h, beta)
    shortcut = h
    if "shortcut" in params:
        shortcut = ws_conv(params["shortcut"], ops.avg_pool2(x) if stride == 2 else x)
    branch = ws_conv(params["reduce"], x)
    branch = ws_conv(params["spatial_0"], gained_gelu(branch), stride)
    branch = ws_conv(params["spatial_1"], gained_gelu(branch))
    branch = ws_conv(params["expand"], gained_gelu(branch))
    weight = params["skip_init_gain"] * h.dtype.type(alpha)
    return ops.gated_residual(shortcut, branch, squeeze_excite(params["squeeze_excite"], branch) * weight)


def gained_gelu(x: Array, beta: float = 1.0) -> Array:
    """GELU of x with the gain that keeps unit variance, over beta (NFNet paper, section 3)."""
    return ops.gelu(x, GELU_GAIN / beta)


def ws_conv(params: Params, x: Array, stride: int = 1) -> Array:
    """Convolution with standardised weights. x (B, Y, X, Cin) -> (B, Y', X', Cout), SAME padding."""
    groups = x.shape[-1] // params["w"].shape[2]
    return ops.conv2d(x, ops.standardise_weight(params["w"], params["gain"]), params["b"], stride, groups)


def squeeze_excite(params: Params, x: Array) -> Array:
    """Channel gates (B, C) from the mean over the picture, times 2: their average is 1 at the start."""
    hidden = gained_gelu(ops.linear(ops.mean_pixels(x), params["w_squeeze"], params["b_squeeze"]))
    return x.dtype.type(2.0) * ops.sigmoid(ops.linear(hidden, params["w_excite"], params["b_excite"]))


def block_plan(config: VisionConfig) -> list[tuple[str, int, int, bool, float]]:
    """The (name, width, stride, is_transition, beta) of every block. beta follows from the predicted variance.

    Var(h) starts at 1 and grows by alpha^2 with each block. A transition resets it to 1 before it adds its own
    alpha^2 (NFNet paper, section 3). beta = sqrt(Var(h)) of the block's *input*.
    """
    plan, variance = [], 1.0
    for s, (width, blocks, stride) in enumerate(config.stages):
        for b in range(blocks):
            first = b == 0
            plan.append((f"stage_{s}_block_{b}", width, stride if first else 1, first, math.sqrt(variance)))
            variance = (1.0 if first else variance) + config.alpha**2
    return plan


def init_vision_encoder(rng: np.random.Generator, config: VisionConfig, dtype: type = np.float32) -> Params:
    """Parameters as nested dicts. SkipInit gains start at 0, convolution gains at 1."""
    params, cin = {}, 3
    for i, (width, _) in enumerate(config.stem):
        params[f"stem_{i}"] = init_conv(rng, 3, cin, width, dtype)
        cin = width
    for name, width, _, transition, _ in block_plan(config):
        params[name] = _init_block(rng, cin, width, transition, config, dtype)
        cin = width
    return params | {"final": init_conv(rng, 1, cin, config.width, dtype)}


def _init_block(rng, cin, width, transition, config, dtype):
    inner = int(width * config.bottleneck)
    group = min(config.group_size, inner)
    params = {
        "reduce": init_conv(rng, 1, cin, inner, dtype),
        "spatial_0": init_conv(rng, 3, group, inner, dtype),
        "spatial_1": init_conv(rng, 3, group, inner, dtype),
        "expand": init_conv(rng, 1, inner, width, dtype),
        "squeeze_excite": init_squeeze_excite(rng, width, config.se_ratio, dtype),
        "skip_init_gain": np.zeros((), dtype),
    }
    return params | ({"shortcut": init_conv(rng, 1, cin, width, dtype)} if transition else {})


def init_squeeze_excite(rng: np.random.Generator, width: int, ratio: float, dtype: type = np.float32) -> Params:
    """Parameters of the channel gates of a block of this width; ratio: hidden width / width."""
    hidden = max(1, int(width * ratio))
    return {
        "w_squeeze": (rng.standard_normal((width, hidden)) * width**-0.5).astype(dtype),
        "b_squeeze": np.zeros(hidden, dtype),
        "w_excite": (rng.standard_normal((hidden, width)) * hidden**-0.5).astype(dtype),
        "b_excite": np.zeros(width, dtype),
    }


def init_conv(rng: np.random.Generator, size: int, cin: int, cout: int, dtype: type = np.float32) -> Params:
    """Parameters of one convolution of size x size pixels."""
    w = rng.standard_normal((size, size, cin, cout)) * (size * size * cin) ** -0.5
    return {"w": w.astype(dtype), "gain": np.ones(cout, dtype), "b": np.zeros(cout, dtype)}
