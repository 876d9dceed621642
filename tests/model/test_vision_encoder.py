"""The NF-ResNet: standardised weights, predicted variance, no batch statistics, any picture size."""

import math

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.config import VisionConfig
from tinyflamingo.model.vision_encoder import (
    block_plan,
    encode_pictures,
    gained_gelu,
    init_vision_encoder,
    nf_block,
    normalise_pixels,
    squeeze_excite,
    vision_encoder,
    ws_conv,
)

CONFIG = tiny_config().vision


def _params(config=CONFIG, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return shake(init_vision_encoder(rng, config, dtype), rng)


# ---------------------------------------------------------------- weights and activations


def test_convolutions_have_standardised_weights_their_bias_and_their_groups(floor, rng):
    params = {"w": rng.standard_normal((3, 3, 2, 6)), "gain": rng.uniform(0.5, 2, 6), "b": rng.standard_normal(6)}
    x = rng.standard_normal((2, 5, 4, 4))  # two groups of two channels
    expected = ops.conv2d(x, ops.standardise_weight(params["w"], params["gain"]), params["b"], 2, 2)
    np.testing.assert_array_equal(ws_conv(params, x, 2), expected)
    moved = params | {"w": 7 * params["w"] + 3}
    np.testing.assert_allclose(ws_conv(moved, x, 2), expected, rtol=1e-9, atol=1e-11)


def test_gelu_gain_keeps_unit_variance(floor):
    """Gauss-Hermite quadrature of Var(gain * gelu(x)), x ~ N(0, 1)."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    y, p = gained_gelu(points), weights / weights.sum()
    assert p @ y**2 - (p @ y) ** 2 == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(gained_gelu(points, 1.3), y / 1.3, rtol=1e-12)


# ---------------------------------------------------------------- signal propagation


def test_beta_schedule_known_values():
    """Variance 1, 1 + a^2, 1 + 2 a^2, ...; a transition block reads the end of the stage before it."""
    plan = block_plan(VisionConfig(stages=((8, 3, 1), (16, 2, 2), (8, 1, 1)), alpha=0.2))
    names, widths, strides, transitions, betas = zip(*plan, strict=True)
    assert names == tuple(f"stage_{s}_block_{b}" for s, n in enumerate((3, 2, 1)) for b in range(n))
    assert widths == (8, 8, 8, 16, 16, 8)
    assert strides == (1, 1, 1, 2, 1, 1)
    assert transitions == (True, False, False, True, False, True)
    np.testing.assert_allclose(np.square(betas), [1, 1.04, 1.08, 1.12, 1.04, 1.08], rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_variance_follows_the_prediction_through_twenty_blocks(alpha):
    """With SkipInit at 1 the mean channel variance is (1 + b alpha^2), b counted from each transition.

    Eight seeds gave 0.84 to 0.99 of it at alpha 0.2 and 0.73 to 1.04 at alpha 1 (zero padding reduces the variance,
    narrow random layers vary). The mean of four seeds must be within 15 % (30 %). Without beta, alpha 1 would end a
    stage at 2^7 instead of 8; without the reset, at 21 instead of 7. The growth *within* a stage varies much less, 2 %
    at alpha 0.2: it must be within 4 %. Strides are 1: average pooling reduces the variance of noise, and beta does
    not predict that.
    """
    config = VisionConfig(
        stem=((32, 1),), stages=((64, 7, 1), (96, 7, 1), (64, 6, 1)), group_size=16, alpha=alpha, width=32
    )
    plan = block_plan(config)
    measured = np.mean([_channel_variances(config, seed) for seed in range(4)], axis=0)
    expected = np.array([1 + b * alpha**2 for n in (7, 7, 6) for b in range(1, n + 1)])
    inputs = np.array([beta**2 for *_, beta in plan[1:]])
    np.testing.assert_allclose(inputs, expected[:-1], rtol=1e-12)  # beta has the same numbers
    np.testing.assert_allclose(measured / expected, 1.0, atol=0.15 if alpha == 0.2 else 0.30)
    for first, stop in ((0, 7), (7, 14), (14, 20)):
        grown = measured[first:stop] / measured[first]
        predicted = expected[first:stop] / expected[first]
        np.testing.assert_allclose(grown / predicted, 1.0, atol=0.04 if alpha == 0.2 else 0.12)


def _channel_variances(config, seed):
    rng = np.random.default_rng(seed)
    params = init_vision_encoder(rng, config)
    for name, *_ in block_plan(config):
        params[name]["skip_init_gain"] = np.ones((), np.float32)
    variances = {}
    pictures = rng.standard_normal((4, 24, 24, 3)).astype(np.float32)
    vision_encoder(params, pictures, config, watch=lambda n, h: variances.update({n: h.var(axis=(0, 1, 2)).mean()}))
    assert list(variances) == ["stem", *(name for name, *_ in block_plan(config))]
    return [variances[name] for name, *_ in block_plan(config)]


@pytest.mark.parametrize("name", ["stage_0_block_0", "stage_1_block_0", "stage_1_block_1"])
def test_skip_init_zero_leaves_exactly_the_shortcut(floor, rng, name):
    params = _params()[name] | {"skip_init_gain": np.zeros(())}
    stride = 2 if name == "stage_1_block_0" else 1
    h = rng.standard_normal((2, 5, 7, params["reduce"]["w"].shape[2]))
    expected = h
    if "shortcut" in params:
        x = gained_gelu(h) / 1.3
        expected = ws_conv(params["shortcut"], ops.avg_pool2(x) if stride == 2 else x)
    np.testing.assert_allclose(nf_block(params, h, 1.3, 0.2, stride), expected, rtol=1e-12, atol=1e-14)


def test_identity_block_at_initialisation_is_the_identity_bit_for_bit(floor, rng):
    params = init_vision_encoder(rng, CONFIG)["stage_1_block_1"]
    h = rng.standard_normal((2, 5, 4, 8)).astype(np.float32)
    np.testing.assert_array_equal(nf_block(params, h, 1.2, 0.2, 1), h)


# ---------------------------------------------------------------- squeeze-excite


def test_squeeze_excite_at_zero_logits_is_open_by_one(floor, rng):
    params = _params()["stage_0_block_0"]["squeeze_excite"]
    params = params | {"w_excite": 0 * params["w_excite"], "b_excite": 0 * params["b_excite"]}
    np.testing.assert_array_equal(squeeze_excite(params, rng.standard_normal((2, 3, 4, 8))), np.ones((2, 8)))


def test_squeeze_excite_gates_are_between_zero_and_two(floor, rng):
    params = _params()["stage_0_block_0"]["squeeze_excite"]
    x = rng.standard_normal((2, 3, 4, 8))
    for bias, gate in ((60.0, 2.0), (-60.0, 0.0)):
        gates = squeeze_excite(params | {"b_excite": np.full(8, bias)}, x)
        np.testing.assert_allclose(gates, np.full((2, 8), gate), atol=1e-12)


def test_squeeze_excite_in_numbers(floor, rng):
    params = _params()["stage_0_block_0"]["squeeze_excite"]
    x = rng.standard_normal((2, 3, 4, 8))
    hidden = gained_gelu(x.mean(axis=(1, 2)) @ params["w_squeeze"] + params["b_squeeze"])
    gates = 2 / (1 + np.exp(-(hidden @ params["w_excite"] + params["b_excite"])))
    np.testing.assert_allclose(squeeze_excite(params, x), gates, rtol=1e-12)


def test_a_block_is_its_shortcut_and_its_gated_branch(floor, rng):
    """shortcut + alpha * skip_init_gain * gates * f(gelu(h) / beta)."""
    params = _params()["stage_1_block_1"] | {"skip_init_gain": np.array(0.7)}
    h = rng.standard_normal((2, 3, 4, 8))
    branch = ws_conv(params["reduce"], gained_gelu(h) / 1.2)
    for name in ("spatial_0", "spatial_1", "expand"):
        branch = ws_conv(params[name], gained_gelu(branch))
    gates = squeeze_excite(params["squeeze_excite"], branch)[:, None, None]
    np.testing.assert_allclose(nf_block(params, h, 1.2, 0.3, 1), h + 0.3 * 0.7 * gates * branch, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- the whole encoder


def test_stem_blocks_and_head_in_order(floor, rng):
    """Activations between the convolutions of the stem, none after the last one; one after the final 1x1."""
    config = VisionConfig(stem=((4, 2), (8, 1)), stages=((8, 2, 1), (8, 1, 2)), group_size=2, width=6)
    params, signals = _params(config), {}
    pictures = rng.standard_normal((2, 9, 8, 3))
    features = vision_encoder(params, pictures, config, watch=lambda name, h: signals.update({name: h}))
    h = ws_conv(params["stem_1"], gained_gelu(ws_conv(params["stem_0"], pictures, 2)))
    np.testing.assert_allclose(signals["stem"], h, rtol=1e-12, atol=1e-12)
    for name, beta, stride in (
        ("stage_0_block_0", 1.0, 1),
        ("stage_0_block_1", 1.04**0.5, 1),
        ("stage_1_block_0", 1.08**0.5, 2),
    ):
        h = nf_block(params[name], h, beta, 0.2, stride)
        np.testing.assert_allclose(signals[name], h, rtol=1e-12, atol=1e-12)
    head = gained_gelu(ws_conv(params["final"], h))
    np.testing.assert_allclose(features, head.reshape(2, 3 * 2, 6), rtol=1e-12, atol=1e-12)


def test_a_picture_does_not_depend_on_its_batch_mates(floor, rng):
    params, pictures = _params(), rng.standard_normal((3, 9, 11, 3))
    together = vision_encoder(params, pictures, CONFIG)
    pictures[1:] = 5.0 + 40.0 * rng.standard_normal(pictures[1:].shape)
    np.testing.assert_allclose(vision_encoder(params, pictures, CONFIG)[0], together[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(vision_encoder(params, pictures[:1], CONFIG)[0], together[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(17, 23), (48, 48), (1, 1), (3, 64)])
def test_any_picture_size(floor, rng, size):
    """Strides 2 (stem), 1 and 2, each with SAME padding: ceil, twice."""
    features = vision_encoder(_params(), rng.standard_normal((2, *size, 3)), CONFIG)
    cells = [math.ceil(math.ceil(n / 2) / 2) for n in size]
    assert features.shape == (2, cells[0] * cells[1], 8)
    assert np.all(np.isfinite(features))


def test_features_are_the_grid_row_by_row(floor, rng):
    """A change in the lower right corner of the picture changes the last cell, not the first."""
    params, pictures = _params(), rng.standard_normal((1, 64, 64, 3))
    blocks = [name for name, *_ in block_plan(CONFIG)]
    params |= {name: params[name] | {"squeeze_excite": _constant(params[name]["squeeze_excite"])} for name in blocks}
    before = vision_encoder(params, pictures, CONFIG)
    pictures[0, -1, -1] += 3.0
    changed = np.any(vision_encoder(params, pictures, CONFIG) != before, axis=-1)[0].reshape(16, 16)
    assert changed[-1, -1] and not changed[0].any() and not changed[:, 0].any()


def _constant(squeeze):
    """Squeeze-excite with constant gates. It reads the whole picture; without it the encoder is local."""
    return squeeze | {"w_excite": 0 * squeeze["w_excite"]}


def test_transition_blocks_alone_have_a_shortcut_convolution():
    params = _params()
    assert ["shortcut" in params[name] for name, *_ in block_plan(CONFIG)] == [True, True, False]


@pytest.mark.parametrize("name, stride", [("stage_0_block_0", 1), ("stage_1_block_0", 2), ("stage_1_block_1", 1)])
def test_block_gradient(floor, rng, name, stride):
    params = _params()[name]
    params["skip_init_gain"] = np.array(0.7)
    h = rng.standard_normal((2, 3, 5, params["reduce"]["w"].shape[2]))
    check_tree(lambda p, h: nf_block(p, h, 1.1, 0.2, stride), params, h, tol=1e-5)


def test_float32_inside_backward(floor, rng):
    params = shake(init_vision_encoder(rng, CONFIG), rng)
    pictures = rng.standard_normal((2, 9, 9, 3)).astype(np.float32)
    assert_float32_inside(lambda p: anp.sum(vision_encoder(p, pictures, CONFIG)), params)


def test_floors_agree(rng):
    params, pictures = _params(), rng.standard_normal((2, 17, 11, 3))
    features = []
    for name in ("reference", "fast"):
        with ops.use(name):
            features.append(vision_encoder(params, pictures, CONFIG))
    np.testing.assert_allclose(*features, rtol=1e-9, atol=1e-11)


def test_normalise_pixels():
    pixels = normalise_pixels(np.array([[[0, 110, 190]]], np.uint8))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [[[-1.375, 0.0, 1.0]]], rtol=1e-6)
    pixels = normalise_pixels(np.array([[[0, 110, 190]]], np.uint8), (1.0, 10.0, 90.0), (2.0, 50.0, 10.0))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [[[-0.5, 2.0, 10.0]]], rtol=1e-6)


def test_pictures_are_encoded_to_features_and_their_mean(floor, rng):
    pictures, params = rng.integers(0, 256, (2, 9, 8, 3)).astype(np.uint8), _params(dtype=np.float32)
    features, pooled = encode_pictures(params, pictures, CONFIG)
    np.testing.assert_array_equal(features, vision_encoder(params, normalise_pixels(pictures), CONFIG))
    assert pooled.dtype == np.float32 and pooled.shape == (2, 8)
    np.testing.assert_allclose(pooled, features.mean(axis=1), rtol=1e-5, atol=1e-6)
