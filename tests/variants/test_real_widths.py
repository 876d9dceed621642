"""One layer of each real model at its real width gives the same numbers on both floors, in float32.

The models: timm's encoders as `convert` reads them, the paper's 3B, and OpenFlamingo-3B. The shapes of all layers are
real; only layers, tokens and pixels are fewer.
"""

import dataclasses

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.interop.decoder_names import hugging_face_config
from tinyflamingo.interop.timm import timm_model
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.variants.nf_resnets import encode_as_timm
from tinyflamingo.variants.paper import CLIP_VIT_L14, PAPER
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.registry import init_flamingo, init_part, parts_of
from tinyflamingo.variants.vit import encode_with_vit

MPT_1B = {
    "model_type": "mosaic_gpt", "d_model": 2048, "n_heads": 16, "n_layers": 24, "mlp_ratio": 4, "max_seq_len": 2048,
    "vocab_size": 50368, "alibi": True, "alibi_bias_max": 8, "attn_qk_ln": True, "no_bias": True,
}  # fmt: skip
OPEN_FLAMINGO_3B = FlamingoConfig(
    vision=CLIP_VIT_L14,
    text_tower=TextTowerConfig(vocab_size=50368, joint_width=768),
    resampler=PortResamplerConfig(1024, 1024, layers=6, heads=8, key_size=64, latents=64, frames=0),
    language=hugging_face_config(MPT_1B),
    xattn=PortXattnConfig(heads=8, key_size=64),
)
MODELS = {"paper 3B": PAPER["flamingo-3b"].config, "OpenFlamingo-3B": OPEN_FLAMINGO_3B}
each_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)

POOL = np.random.default_rng(0).standard_normal(1_000_003, np.float32)  # a prime: no two rows begin alike
PHI = np.repeat([[0, 1, 2]], [1, 3, 12], axis=1)  # a run for loops and a run for BLAS


def normal(*shape):
    return np.resize(POOL, shape)


def noise(Y, X):
    """A picture, uint8 (1, Y, X, 3)."""
    return np.clip(128 + 40 * normal(1, Y, X, 3), 0, 255).astype(np.uint8)


def filled(hollow):
    """Parameters of these shapes. A matrix keeps the size of the signal; gates are open."""

    def draw(a):
        return normal(*a.shape) * a[..., 0].size ** -0.5 if a.ndim > 1 else 0.5 + a / 2

    return from_named_leaves({name: np.asarray(draw(a), np.float32) for name, a in named_leaves(hollow).items()})


def one_layer(config):
    return dataclasses.replace(config, layers=1)


def assert_floors_agree(function):
    with ops.use("reference"):
        expected = function()
    with ops.use("fast"):
        got = function()
    assert got.dtype == expected.dtype == np.float32 and np.std(expected) > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["nf_resnet50", "dm_nfnet_f0", "nfnet_f0"])
def test_encoders_of_timm(name):
    """One block of each stage."""
    config = timm_model(name)
    config = dataclasses.replace(config, stages=tuple((width, 1, stride) for width, _, stride in config.stages))
    params, pictures = filled(init_part(HollowGenerator(), config)), noise(40, 64)
    assert_floors_agree(lambda: encode_as_timm(params, pictures, config)[0])


def test_encoder_of_clip():
    config = one_layer(CLIP_VIT_L14)
    params, pictures = filled(init_part(HollowGenerator(), config)), noise(28, 42)
    assert_floors_agree(lambda: encode_with_vit(params, pictures, config)[0])


@each_model
def test_resampler(config):
    config = dataclasses.replace(config, resampler=one_layer(config.resampler), language=one_layer(config.language))
    hollow = init_flamingo(HollowGenerator(), config)
    params = filled({name: part for name, part in hollow.items() if not name.startswith("xattn")})
    features = [normal(2, 2, 5, config.resampler.input_width)]
    assert_floors_agree(lambda: parts_of(config).resample(params, features, config))


@each_model
def test_gated_block(config):
    config = dataclasses.replace(config, language=one_layer(config.language))
    params = filled(init_flamingo(HollowGenerator(), config)["xattn_0"])
    h, visual = normal(1, PHI.size, config.language.width), normal(2, 64, config.resampler.output_width)
    assert_floors_agree(lambda: parts_of(config).gated_block(params, h, visual, PHI, config.xattn))


@each_model
def test_decoder_block(config):
    params = filled(init_part(HollowGenerator(), one_layer(config.language))["block_0"])
    h, visible_from = normal(1, 9, config.language.width), np.array([[0, 0, 0, 0, 4, 4, 4, 4, 4]])
    assert_floors_agree(lambda: parts_of(config).decoder_block(params, h, visible_from, config.language))
