"""The parameters at the start: the spread of every matrix, gains of 1, biases and gates of 0."""

import numpy as np
import pytest
from model_cases import tiny_config

from tinyflamingo.model.contrastive import init_contrastive
from tinyflamingo.model.gated_xattn import init_gated_xattn
from tinyflamingo.model.language_model import init_language_model
from tinyflamingo.model.perceiver_resampler import init_resampler
from tinyflamingo.model.vision_encoder import init_vision_encoder
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.vit import ViTConfig, init_vit

# All widths differ, so a spread that belongs to another width is an error. Two layers: back into the stream 1/2.
CONFIG = tiny_config(
    vocab=500,
    vision={"stem": ((64, 2),), "stages": ((128, 1, 1), (192, 1, 2)), "group_size": 32, "width": 160, "se_ratio": 0.75},
    text_tower={"width": 96, "layers": 2, "heads": 2, "context": 60, "joint_width": 64},
    resampler={"input_width": 160, "width": 128, "heads": 4, "key_size": 24, "latents": 40, "frames": 30},
    language={"width": 144, "layers": 2, "heads": 4, "key_size": 40},
    xattn={"heads": 4, "key_size": 28, "ffw_multiplier": 3},
)
RESAMPLER = {"latents": 0.3, "temporal": 0.5, "w_in": 160**-0.5, "w_q": 128**-0.5, "w_k": 128**-0.5}
RESAMPLER |= {"w_v": 128**-0.5, "w_o": 3 * 128**-0.5, "w_1": 128**-0.5, "w_2": 0.1 * 256**-0.5}
LANGUAGE = {name: 144**-0.5 for name in ("embedding", "w_q", "w_k", "w_v", "w_r", "w_1")}
LANGUAGE |= {"w_o": 160**-0.5 / 2, "w_2": 288**-0.5 / 2, "u": 0.0, "v": 0.0}
XATTN = {"w_q": 144**-0.5, "w_k": 128**-0.5, "w_v": 128**-0.5, "w_o": 112**-0.5, "w_1": 144**-0.5}
XATTN |= {"w_2": 0.5 * 432**-0.5, "alpha_xattn": 0.0, "alpha_dense": 0.0}
TEXT = {name: 96**-0.5 for name in ("w_q", "w_k", "w_v", "w_1", "text_projection")}
TEXT |= {"embedding": 0.5, "positions": 0.2, "w_o": 96**-0.5 / 2, "w_2": 384**-0.5 / 2, "picture_projection": 160**-0.5}
VIT = {name: 96**-0.5 for name in ("class_token", "positions", "w_q", "w_k", "w_v", "w_1")}
VIT |= {"w_patch": 48**-0.5, "w_o": 96**-0.5 / 2, "w_2": 288**-0.5 / 2}
VIT_CONFIG = ViTConfig(patch=4, width=96, layers=2, heads=2, ffw_multiplier=3, side=32)


def assert_starts(params, spreads):
    """Every leaf by the last part of its name: gains 1, biases 0, others with mean 0 and a standard deviation."""
    for path, leaf in named_leaves(params).items():
        name = path.rpartition("/")[2]
        if name.endswith("gain"):
            np.testing.assert_array_equal(leaf, 1, path)
        elif name.startswith("b_") or name.endswith("bias") or spreads[name] == 0:
            np.testing.assert_array_equal(leaf, 0, path)
        else:
            assert np.std(leaf) == pytest.approx(spreads[name], rel=0.25 if leaf.size < 200 else 0.08), path
            assert abs(np.mean(leaf)) < 5 * spreads[name] / leaf.size**0.5, path


def test_the_resampler(rng):
    params = init_resampler(rng, CONFIG.resampler)
    assert_starts(params, RESAMPLER)
    for i in range(CONFIG.resampler.layers):
        w_v, w_o = (params[f"layer_{i}"][name].astype(np.float64) for name in ("w_v", "w_o"))
        np.testing.assert_allclose(w_v.T @ w_v, np.eye(96), atol=1e-5)  # columns are orthonormal
        np.testing.assert_allclose(w_o, 3 * w_v.T, rtol=1e-6)


def test_the_language_model(rng):
    assert_starts(init_language_model(rng, CONFIG.language), LANGUAGE)


def test_a_gated_block(rng):
    assert_starts(init_gated_xattn(rng, CONFIG), XATTN)


def test_the_text_tower_and_the_projections(rng):
    params = init_contrastive(rng, CONFIG, {})
    assert np.exp(-params.pop("log_scale")) == pytest.approx(0.07)
    assert_starts(params, TEXT)


def test_the_vision_transformer(rng):
    assert_starts(init_vit(rng, VIT_CONFIG), VIT)


def test_the_vision_encoder(rng):
    params = init_vision_encoder(rng, CONFIG.vision)
    for path, leaf in named_leaves(params).items():
        name = path.rpartition("/")[2]
        if name in ("w", "w_squeeze", "w_excite"):
            assert np.std(leaf) == pytest.approx(np.prod(leaf.shape[:-1]) ** -0.5, rel=0.1), path
        else:
            np.testing.assert_array_equal(leaf, float(name == "gain"), path)
