"""CLIP's vision transformer: patches, places, the class token, and its use instead of the ResNet."""

import dataclasses
import json

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.model.contrastive import embed_pictures, init_contrastive
from tinyflamingo.model.encoder_block import encoder_block
from tinyflamingo.model.flamingo import encode_media, flamingo
from tinyflamingo.variants.registry import config_from_dict, config_to_dict, init_part, parts_of, untrained
from tinyflamingo.variants.vit import ViTConfig, cut_patches, encode_with_vit, init_vit, stretch_places, vit

CONFIG = ViTConfig(patch=3, width=8, layers=2, heads=2, ffw_multiplier=3, side=9)


def _params(config=CONFIG, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return shake(init_vit(rng, config, dtype), rng)


# ---------------------------------------------------------------- patches and places


def test_a_patch_has_its_pixels_row_by_row():
    picture = np.arange(4 * 6 * 3.0).reshape(1, 4, 6, 3)
    patches = cut_patches(picture, 2)
    assert patches.shape == (1, 2, 3, 12)
    np.testing.assert_array_equal(patches[0, 1, 2], picture[0, 2:4, 4:6].ravel())


def test_incomplete_patches_are_filled_with_zeros():
    patches = cut_patches(np.ones((1, 4, 5, 3)), 3)
    assert patches.shape == (1, 2, 2, 27)
    np.testing.assert_array_equal(patches.sum(axis=-1)[0], [[27, 18], [9, 6]])


def test_the_patch_matrix_is_a_convolution_with_the_patch_as_stride(floor, rng):
    pictures, w = rng.standard_normal((2, 6, 9, 3)), rng.standard_normal((3, 3, 3, 5))
    expected = ops.conv2d(pictures, w, None, 3)
    np.testing.assert_allclose(cut_patches(pictures, 3) @ w.reshape(27, 5), expected, rtol=1e-10, atol=1e-12)


def test_learned_places_do_not_change_on_their_own_grid(rng):
    table = rng.standard_normal((10, 4))
    assert stretch_places(table, 3, 3) is table


@pytest.mark.parametrize("rows, columns", [(6, 3), (2, 5), (1, 1)])
def test_places_are_interpolated_linearly(rng, rows, columns):
    """Linear places stay linear between the outermost centres; constant places stay constant."""
    y, x = np.mgrid[:3, :3]
    table = np.stack([np.r_[7.0, y.ravel()], np.r_[7.0, x.ravel()], np.full(10, 2.0)], axis=1)
    stretched = stretch_places(table, rows, columns)
    np.testing.assert_array_equal(stretched[0], table[0])
    grid = stretched[1:].reshape(rows, columns, 3)

    def centres(n):
        return np.clip((np.arange(n) + 0.5) * 3 / n - 0.5, 0, 2)

    np.testing.assert_allclose(grid[..., 0], np.broadcast_to(centres(rows)[:, None], (rows, columns)), atol=1e-12)
    np.testing.assert_allclose(grid[..., 1], np.broadcast_to(centres(columns), (rows, columns)), atol=1e-12)
    np.testing.assert_allclose(grid[..., 2], 2.0, rtol=1e-12)


# ---------------------------------------------------------------- the encoder


def _naive(p, picture, config):
    """One picture, token by token and head by head, in NumPy alone."""

    def norm(x, gain, bias):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias

    n, size = config.grid, config.patch
    cut = [picture[size * i : size * (i + 1), size * j : size * (j + 1)] for i in range(n) for j in range(n)]
    h = np.stack([p["class_token"], *(patch.ravel() @ p["w_patch"] for patch in cut)]) + p["positions"]
    h = norm(h, p["first_gain"], p["first_bias"])
    for i in range(config.layers):
        b = p[f"block_{i}"]
        x, heads = norm(h, b["attn_gain"], b["attn_bias"]), []
        q, k, v = (np.split(x @ b[f"w_{c}"] + b[f"b_{c}"], config.heads, axis=-1) for c in "qkv")
        for j in range(config.heads):
            weights = np.exp(q[j] @ k[j].T / np.sqrt(q[j].shape[1]))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[j])
        h = h + np.concatenate(heads, axis=-1) @ b["w_o"] + b["b_o"]
        x = norm(h, b["ffw_gain"], b["ffw_bias"]) @ b["w_1"] + b["b_1"]
        h = h + (x / (1 + np.exp(-1.702 * x))) @ b["w_2"] + b["b_2"]
    return h, norm(h, p["final_gain"], p["final_bias"])


def test_the_encoder_is_the_naive_one(floor, rng):
    params, pictures = _params(), rng.standard_normal((2, 9, 9, 3))
    features, pooled = vit(params, pictures, CONFIG)
    assert features.shape == (2, 9, 8) and pooled.shape == (2, 8)
    for b in range(2):
        raw, normed = _naive(params, pictures[b], CONFIG)
        np.testing.assert_allclose(features[b], normed[1:], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(pooled[b], normed[0], rtol=1e-9, atol=1e-11)
        bare, same = vit(params, pictures, dataclasses.replace(CONFIG, norm_features=False))
        np.testing.assert_allclose(bare[b], raw[1:], rtol=1e-9, atol=1e-11)
        np.testing.assert_array_equal(same, pooled)


def test_without_places_the_order_of_patches_is_lost(floor, rng):
    """Unlike in a convolution, only the places say which patches are neighbours."""
    params, pictures = _params(), rng.standard_normal((1, 9, 9, 3))
    turned = pictures.reshape(1, 3, 3, 9, 3)[:, ::-1].reshape(1, 9, 9, 3)  # rows of patches in reverse
    rows = np.arange(9).reshape(3, 3)[::-1].ravel()
    lost = params | {"positions": 0 * params["positions"]}
    (features, pooled), (again, same) = (vit(lost, p, CONFIG) for p in (pictures, turned))
    np.testing.assert_allclose(again, features[:, rows], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(same, pooled, rtol=1e-9, atol=1e-11)
    assert np.abs(vit(params, turned, CONFIG)[1] - vit(params, pictures, CONFIG)[1]).max() > 1e-3


@pytest.mark.parametrize("size", [(9, 9), (12, 7), (1, 1), (30, 3)])
def test_any_picture_size(floor, rng, size):
    features, pooled = vit(_params(), rng.standard_normal((2, *size, 3)), CONFIG)
    assert features.shape == (2, -(-size[0] // 3) * -(-size[1] // 3), 8)
    assert np.all(np.isfinite(features)) and np.all(np.isfinite(pooled))


def test_a_picture_does_not_depend_on_its_batch_mates(floor, rng):
    params, pictures = _params(), rng.standard_normal((3, 9, 12, 3))
    together = vit(params, pictures, CONFIG)[1]
    np.testing.assert_allclose(vit(params, pictures[1:2], CONFIG)[1][0], together[1], rtol=1e-10, atol=1e-12)


def test_gradients_of_all_parameters(floor, rng):
    config = dataclasses.replace(CONFIG, layers=1)
    pictures = rng.standard_normal((2, 6, 9, 3))  # another grid than learned: through the interpolation too

    def both(params):
        features, pooled = vit(params, pictures, config)
        return anp.concatenate([anp.reshape(features, (-1,)), anp.reshape(pooled, (-1,))])

    params = _params(config)
    names = ("b_k",)  # a bias of the keys adds one number to all scores of a query: its gradient is 0
    frozen = {n: params["block_0"].pop(n) for n in names}
    check_tree(lambda p: both(p | {"block_0": p["block_0"] | frozen}), params, tol=1e-5)


def test_a_block_reads_the_positions_that_the_mask_allows(floor, rng):
    params, h = _params()["block_0"], rng.standard_normal((1, 4, 8))
    mask = np.array([[True, True, False, True]])
    before = encoder_block(params, h, 2, mask)
    h[0, 2] += 5.0
    after = encoder_block(params, h, 2, mask)
    np.testing.assert_allclose(after[0, [0, 1, 3]], before[0, [0, 1, 3]], rtol=1e-12)
    assert np.abs(encoder_block(params, h, 2)[0, 0] - after[0, 0]).max() > 1e-3


def test_float32_inside_backward(floor, rng):
    pictures = rng.standard_normal((2, 12, 9, 3)).astype(np.float32)
    assert_float32_inside(lambda p: anp.sum(vit(p, pictures, CONFIG)[1] ** 2), _params(dtype=np.float32))


def test_floors_agree(rng):
    params, pictures, results = _params(), rng.standard_normal((2, 11, 6, 3)), []
    for name in ("reference", "fast"):
        with ops.use(name):
            results.append(vit(params, pictures, CONFIG))
    for slow, fast in zip(*results, strict=True):
        np.testing.assert_allclose(slow, fast, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- instead of the ResNet


def _with_vit(vocab=12, **fields):
    sizes = {"form": ViTConfig, "patch": 4, "layers": 1, "heads": 2, "ffw_multiplier": 2}
    return tiny_config(vocab, vision=sizes | fields)


def test_pixels_are_standardised_by_the_configurations_numbers(floor, rng):
    """CLIP's mean and spread for each channel; by default the ResNet's."""
    pictures, params = rng.integers(0, 256, (2, 9, 9, 3)).astype(np.uint8), _params(dtype=np.float32)
    ours = (pictures.astype(np.float64) - 110) / 80
    mean, spread = (122.77, 116.75, 104.09), (68.5, 66.63, 70.32)
    clips = (pictures - np.array(mean)) / np.array(spread)
    for config, pixels in ((CONFIG, ours), (dataclasses.replace(CONFIG, pixels=(mean, spread)), clips)):
        features, pooled = encode_with_vit(params, pictures, config)
        expected = vit(_params(), pixels, config)
        assert features.dtype == pooled.dtype == np.float32
        np.testing.assert_allclose(features, expected[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(pooled, expected[1], rtol=1e-3, atol=1e-4)


def test_pixels_to_logits_and_to_the_contrastive_space(floor, rng):
    config = _with_vit()
    m, parts = tiny(dtype=np.float32, config=config), parts_of(config)
    vision = shake(init_part(rng, config.vision), rng)
    constants = {"feature_mean": np.zeros(8, np.float32), "feature_scale": np.ones(8, np.float32)}
    frozen = m.frozen | {"vision": vision} | constants
    media = rng.integers(0, 256, (3, 1, 8, 8, 3)).astype(np.uint8)
    features = encode_media(frozen, media, config, parts)
    assert features.shape == (3, 1, 4, 8) and features.dtype == np.float32
    visual = parts.resample(m.params, [features], config)
    logits = flamingo(m.params, frozen, m.tokens, m.phi, visual, config, parts=parts)
    assert logits.shape[:2] == m.tokens.shape and np.all(np.isfinite(logits))
    towers = init_contrastive(rng, config, vision)
    embedded = embed_pictures(towers, media[:, 0], config, parts.encode)
    pooled = parts.encode(vision, media[:, 0], config.vision)[1] @ towers["picture_projection"]
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=1e-6)


def test_configuration_and_checkpoint_round_trip(tmp_path, rng, tokenizer):
    config = _with_vit(len(tokenizer), activation="gelu")
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    save_checkpoint(untrained(rng, config, tokenizer), tmp_path / "vit")
    loaded = load_checkpoint(tmp_path / "vit")
    assert loaded.config == config and loaded.frozen["vision"]["w_patch"].shape == (48, 8)
    assert loaded.parts == parts_of(config)
