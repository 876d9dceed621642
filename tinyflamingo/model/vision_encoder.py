"""The vision encoder: a normalizer-free ResNet (NF-ResNet), from pixels to a grid of features.

Chapter §2; NFNet paper (Brock et al. 2021), section 3 and appendix C. Here are the four ideas that
replace batch normalisation: scaled weight standardisation, activation gains, the residual rule
`h + alpha * f(h / beta)` with analytically tracked variance, and SkipInit. Any picture size works.

Not here: how it is trained (`model/contrastive.py`, `training/contrastive_stage.py`), adaptive
gradient clipping (`training/optimiser.py`), stochastic depth and dropout (a toy needs neither).
"""

from __future__ import annotations

import math

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import PIXELS, VisionConfig

GELU_GAIN = 1.7015043497085571  # makes Var(gain * gelu(x)) = 1 for x ~ N(0, 1); NFNet code's constant
GAINS = {"gelu_erf": GELU_GAIN, "relu": 1.7139588594436646}
CONVENTIONS = VisionConfig()


def gained_gelu(x, beta=1.0):
    """GELU of x with the gain that keeps unit variance, over beta (NFNet paper, section 3)."""
    return ops.gelu(x, GELU_GAIN / beta)


def gained(x, name, beta=1.0):
    """The same with the activation that a configuration names."""
    return gained_gelu(x, beta) if name == "gelu" else getattr(ops, name)(x) * x.dtype.type(GAINS[name] / beta)


def ws_conv(params, x, stride=1, odd="end"):
    """Convolution with standardised weights. x (B, Y, X, Cin) -> (B, Y', X', Cout), SAME padding."""
    groups = x.shape[-1] // params["w"].shape[2]
    return ops.conv2d(x, ops.standardise_weight(params["w"], params["gain"]), params["b"], stride, groups, odd)


def squeeze_excite(params, x, activation="gelu"):
    """Channel gates (B, C) from the mean over the picture, times 2: they are 1 on average at the start."""
    hidden = gained(ops.linear(ops.mean_pixels(x), params["w_squeeze"], params["b_squeeze"]), activation)
    return x.dtype.type(2.0) * ops.sigmoid(ops.linear(hidden, params["w_excite"], params["b_excite"]))


def nf_block(params, h, beta, alpha, stride, config=CONVENTIONS):
    """One pre-activation bottleneck: `shortcut + alpha * skip_init_gain * gates * f(gelu(h) / beta)`.

    h (B, Y, X, C) -> (B, Y', X', C'). beta is the *predicted* standard deviation of h. A transition
    block (one with its own shortcut convolution) takes its shortcut from the scaled activation,
    which resets the variance to 1; every other block adds to h itself. config: read for its
    activations and its padding, not for sizes.
    """
    act, odd = config.activation, config.odd_pixel
    x = gained(h, act, beta)
    shortcut = h
    if "shortcut" in params:
        shortcut = ws_conv(params["shortcut"], ops.avg_pool2(x) if stride == 2 else x)
    branch = ws_conv(params["reduce"], x)
    branch = ws_conv(params["spatial_0"], gained(branch, act), stride, odd)
    if "spatial_1" in params:
        branch = ws_conv(params["spatial_1"], gained(branch, act))
    branch = ws_conv(params["expand"], gained(branch, act))
    share = params["skip_init_gain"] * h.dtype.type(alpha)
    if "squeeze_excite" not in params:
        return shortcut + branch * share
    gates = squeeze_excite(params["squeeze_excite"], branch, config.se_activation) * share
    return ops.gated_residual(shortcut, branch, gates)


def block_plan(config: VisionConfig):
    """The (name, width, stride, is_transition, beta) of every block, with the variance bookkeeping.

    Var(h) starts at 1, grows by alpha^2 a block, and a transition resets it to 1 before its own
    alpha^2 (NFNet paper, section 3). beta = sqrt(Var(h)) of the block's *input*.
    """
    plan, variance = [], 1.0
    for s, (width, blocks, stride) in enumerate(config.stages):
        for b in range(blocks):
            first = b == 0
            plan.append((f"stage_{s}_block_{b}", width, stride if first else 1, first, math.sqrt(variance)))
            variance = (1.0 if first else variance) + config.alpha**2
    return plan


def vision_encoder(params, pictures, config: VisionConfig, watch=None):
    """Pictures (B, Y, X, 3), floats from `normalise_pixels`, to features (B, S, Dv).

    The last grid is flattened: S = number of its cells. `watch(name, h)`, if given, is called with
    the signal after the stem and after every block (for signal-propagation plots and tests).
    """
    h = ops.expect(pictures, "B Y X 3")
    for i, (_, stride, *_) in enumerate(config.stem):
        h = ws_conv(params[f"stem_{i}"], h if i == 0 else gained(h, config.activation), stride, config.odd_pixel)
    if config.stem_pool:
        h = ops.max_pool3(h, config.odd_pixel)
    if watch:
        watch("stem", h)
    for name, _, stride, _, beta in block_plan(config):
        h = nf_block(params[name], h, beta, config.alpha, stride, config)
        if watch:
            watch(name, h)
    grid = gained(ws_conv(params["final"], h) if config.final else h, config.activation)
    return np.reshape(grid, (grid.shape[0], grid.shape[1] * grid.shape[2], grid.shape[3]))


def normalise_pixels(pictures, pixels=PIXELS):
    """uint8 pictures (..., Y, X, 3) to float32 with mean about 0 and variance about 1.

    pixels: means and spreads of the channels, `config.vision.pixels`.
    """
    mean, spread = np.array(pixels)
    return (np.asarray(pictures, dtype=np.float32) - mean.astype(np.float32)) * (1.0 / spread).astype(np.float32)


def init_vision_encoder(rng, config: VisionConfig, dtype=np.float32):
    """Parameters as nested dicts. SkipInit gains start at 0, convolution gains at 1."""
    params, cin = {}, 3
    for i, (width, _, *size) in enumerate(config.stem):
        params[f"stem_{i}"] = _init_conv(rng, *(size or [3]), cin, width, dtype)
        cin = width
    for name, width, _, transition, _ in block_plan(config):
        params[name] = _init_block(rng, cin, width, transition, config, dtype)
        cin = width
    if config.final:
        params["final"] = _init_conv(rng, 1, cin, config.width, dtype)
    return params


def _init_block(rng, cin, width, transition, config, dtype):
    inner = int(width * config.bottleneck)
    group = min(config.group_size, inner)
    params = {
        "reduce": _init_conv(rng, 1, cin, inner, dtype),
        **{f"spatial_{i}": _init_conv(rng, 3, group, inner, dtype) for i in range(config.spatial)},
        "expand": _init_conv(rng, 1, inner, width, dtype),
    }
    if config.se_ratio:
        hidden = max(1, int(width * config.se_ratio))
        params["squeeze_excite"] = {
            "w_squeeze": (rng.standard_normal((width, hidden)) * width**-0.5).astype(dtype),
            "b_squeeze": np.zeros(hidden, dtype),
            "w_excite": (rng.standard_normal((hidden, width)) * hidden**-0.5).astype(dtype),
            "b_excite": np.zeros(width, dtype),
        }
    params["skip_init_gain"] = np.zeros((), dtype)
    if transition:
        params["shortcut"] = _init_conv(rng, 1, cin, width, dtype)
    return params


def _init_conv(rng, size, cin, cout, dtype):
    w = rng.standard_normal((size, size, cin, cout)) * (size * size * cin) ** -0.5
    return {"w": w.astype(dtype), "gain": np.ones(cout, dtype), "b": np.zeros(cout, dtype)}
