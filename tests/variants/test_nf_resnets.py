"""NF-ResNets of timm: activations, stem, blocks and padding. The idea is the same as in the chapter."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake

from tinyflamingo import ops
from tinyflamingo.model.vision_encoder import block_plan, normalise_pixels
from tinyflamingo.variants.nf_resnets import (
    ACTIVATIONS,
    IMAGENET_MEAN,
    IMAGENET_SPREAD,
    TimmConfig,
    encode_as_timm,
    gained,
    init_timm_encoder,
    relu_squeeze_excite,
    timm_block,
    timm_encoder,
)

NFNET = TimmConfig(stem=((4, 2, 3), (6, 1, 3)), stages=((8, 2, 1), (12, 1, 2)), group_size=2, width=10, side=8)
RELU = TimmConfig(
    stem=((4, 2, 7),), stages=((8, 2, 1), (12, 1, 2)), bottleneck=0.25, group_size=64, width=12, side=8,
    activation="relu", se_ratio=0, stem_pool=True, spatial=1, final=False, odd_pixel="start",
)  # fmt: skip
BOTH = pytest.mark.parametrize("config", [NFNET, RELU], ids=["NFNet", "NF-ResNet"])
RELU_GAIN, GELU_GAIN = 1.7139588594436646, 1.7015043497085571  # of NFNet's code


def _params(config, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return shake(init_timm_encoder(rng, config, dtype), rng)


def _conv(params, x, stride=1, odd_pixel="end"):
    w = ops.standardise_weight(params["w"], params["gain"])
    return ops.conv2d(x, w, params["b"], stride, x.shape[-1] // params["w"].shape[2], odd_pixel)


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ["gelu_erf", "relu"])
def test_every_gain_keeps_unit_variance(floor, name):
    """The gain of ReLU is an estimate in the NFNet code, 0.06 % from the exact one. The quadrature adds more."""
    assert list(ACTIVATIONS) == ["gelu_erf", "relu"]
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    y, p = gained(points, TimmConfig(activation=name)), weights / weights.sum()
    assert p @ y**2 - (p @ y) ** 2 == pytest.approx(1.0, abs=2e-2 if name == "relu" else 2e-3)
    np.testing.assert_allclose(gained(points, TimmConfig(activation=name), 1.3), y / 1.3, rtol=1e-12)


def test_activation_of_squeeze_excite(floor, rng):
    params, x = _params(NFNET)["stage_0_block_0"]["squeeze_excite"], rng.standard_normal((2, 3, 4, 8))
    hidden = np.maximum(x.mean(axis=(1, 2)) @ params["w_squeeze"] + params["b_squeeze"], 0) * RELU_GAIN
    gates = 2 / (1 + np.exp(-(hidden @ params["w_excite"] + params["b_excite"])))
    np.testing.assert_allclose(relu_squeeze_excite(params, x), gates, rtol=1e-12)


# ---------------------------------------------------------------- the whole encoder


def test_the_conventions_of_an_nfnet(floor, rng):
    """Exact GELU, two 3x3 convolutions in each block, squeeze-excite with ReLU, a final convolution."""
    params, pictures = _params(NFNET), rng.standard_normal((2, 9, 8, 3))

    def act(x, beta=1.0):
        return ops.gelu_erf(x) * GELU_GAIN / beta

    h = _conv(params["stem_1"], act(_conv(params["stem_0"], pictures, 2)))
    for name, _, stride, first, beta in block_plan(NFNET):
        p, x = params[name], act(h, beta)
        shortcut = _conv(p["shortcut"], ops.avg_pool2(x) if stride == 2 else x) if first else h
        branch = _conv(p["spatial_0"], act(_conv(p["reduce"], x)), stride)
        branch = _conv(p["expand"], act(_conv(p["spatial_1"], act(branch))))
        gates = relu_squeeze_excite(p["squeeze_excite"], branch)[:, None, None]
        h = shortcut + 0.2 * p["skip_init_gain"] * gates * branch
    features = timm_encoder(params, pictures, NFNET)
    np.testing.assert_allclose(features, act(_conv(params["final"], h)).reshape(2, -1, 10), rtol=1e-9, atol=1e-11)


def test_the_conventions_of_an_nf_resnet_50(floor, rng):
    """7x7 stem and a maximum, one 3x3 in each block, ReLU with its gain, no squeeze-excite, no final convolution."""
    params, pictures = _params(RELU), rng.standard_normal((2, 16, 14, 3))
    assert set(params["stage_0_block_1"]) == {"reduce", "spatial_0", "expand", "skip_init_gain"}
    assert "final" not in params and params["stem_0"]["w"].shape == (7, 7, 3, 4)

    def act(x, beta=1.0):
        return np.maximum(x, 0) * RELU_GAIN / beta

    h = ops.max_pool3(_conv(params["stem_0"], pictures, 2, "start"), "start")
    for name, _, stride, first, beta in block_plan(RELU):
        p, x = params[name], act(h, beta)
        shortcut = _conv(p["shortcut"], ops.avg_pool2(x) if stride == 2 else x) if first else h
        branch = _conv(p["spatial_0"], act(_conv(p["reduce"], x)), stride, "start")
        h = shortcut + 0.2 * p["skip_init_gain"] * _conv(p["expand"], act(branch))
    features = timm_encoder(params, pictures, RELU)
    np.testing.assert_allclose(features, act(h).reshape(2, -1, 12), rtol=1e-9, atol=1e-11)


@BOTH
def test_pictures_are_standardised_as_in_imagenet_and_encoded_to_features_and_their_mean(floor, rng, config):
    pictures, params = rng.integers(0, 256, (2, 16, 14, 3)).astype(np.uint8), _params(config, dtype=np.float32)
    features, pooled = encode_as_timm(params, pictures, config)
    pixels = (pictures.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalise_pixels(pictures, IMAGENET_MEAN, IMAGENET_SPREAD), pixels, atol=1e-5)
    expected = timm_encoder(_params(config), pixels, config)
    assert features.dtype == pooled.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(pooled, features.mean(axis=1), rtol=1e-5, atol=1e-6)


@BOTH
def test_a_picture_does_not_depend_on_its_batch_mates(floor, rng, config):
    params, pictures = _params(config), rng.standard_normal((3, 9, 11, 3))
    together = timm_encoder(params, pictures, config)
    pictures[1:] = 5.0 + 40.0 * rng.standard_normal(pictures[1:].shape)
    np.testing.assert_allclose(timm_encoder(params, pictures, config)[0], together[0], rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- gradients


@BOTH
@pytest.mark.parametrize("name, stride", [("stage_0_block_0", 1), ("stage_1_block_0", 2), ("stage_0_block_1", 1)])
def test_block_gradient(floor, rng, config, name, stride):
    config = dataclasses.replace(config, bottleneck=0.5)  # two weights, standardised, are always 1 and -1
    params = _params(config)[name]
    params["skip_init_gain"] = np.array(0.7)
    h = rng.standard_normal((2, 3, 5, params["reduce"]["w"].shape[2]))
    check_tree(lambda p, h: timm_block(p, h, 1.1, stride, config), params, h, tol=1e-5)


@BOTH
def test_float32_inside_backward(floor, rng, config):
    params = shake(init_timm_encoder(rng, config), rng)
    pictures = rng.standard_normal((2, 16, 14, 3)).astype(np.float32)
    assert_float32_inside(lambda p: anp.sum(timm_encoder(p, pictures, config)), params)


@BOTH
def test_floors_agree(rng, config):
    params, pictures, features = _params(config), rng.standard_normal((2, 17, 11, 3)), []
    for name in ("reference", "fast"):
        with ops.use(name):
            features.append(timm_encoder(params, pictures, config))
    np.testing.assert_allclose(*features, rtol=1e-9, atol=1e-11)
