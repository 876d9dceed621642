"""Configurations of the other forms of a part: one line names the wrong fields."""

import dataclasses

import numpy as np
import pytest
from model_cases import tiny_config

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, VisionConfig
from tinyflamingo.variants.ablations import (
    AllPreviousXattnConfig,
    PlacedXattnConfig,
    UngatedXattnConfig,
    VanillaXattnConfig,
)
from tinyflamingo.variants.decoders import PublicDecoderConfig
from tinyflamingo.variants.nf_resnets import TimmConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig, TransformerConfig
from tinyflamingo.variants.ports import PortResamplerConfig, PortXattnConfig
from tinyflamingo.variants.projected import ProjectedResamplerConfig
from tinyflamingo.variants.registry import init_part, parts_of
from tinyflamingo.variants.vit import ViTConfig


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: TimmConfig(stem=((8, 2, 0),)), ["stem_size is 0"]),
        (lambda: TimmConfig(stem=((8, 2),)), ["stem is ((8, 2),)", "(width, stride, size)"]),
        (lambda: TimmConfig(stem=((8, 2, 7, 7),)), ["(8, 2, 7, 7)", "(width, stride, size)"]),
        (lambda: TimmConfig(activation="tanh"), ["activation is 'tanh'", "'gelu_erf', 'relu'"]),
        (lambda: TimmConfig(odd_pixel="middle"), ["odd_pixel is 'middle'", "'end', 'start'"]),
        (lambda: TimmConfig(final=False, width=96), ["width 96", "last stage's 128"]),
        (lambda: TimmConfig(spatial=3), ["spatial is 3"]),
        (lambda: TimmConfig(spatial=0), ["spatial is 0"]),
        (lambda: TimmConfig(stages=((40, 1, 1),), group_size=16), ["group_size 16", "inner width 20"]),
        (lambda: ViTConfig(pixels=((0.0,) * 4, (1.0,) * 4)), ["pixels is", "three means"]),
        (lambda: ViTConfig(pixels=((0.0,) * 3, (1.0, 0.0, 1.0))), ["pixels is", "spreads above 0"]),
        (lambda: ViTConfig(pixels=3), ["pixels is 3", "three means"]),
        (lambda: ViTConfig(pixels=None), ["pixels is None", "three means"]),
        (lambda: ViTConfig(pixels=((0.0,) * 3,)), ["pixels is ((0.0, 0.0, 0.0),)", "three spreads"]),
        (lambda: ViTConfig(pixels=(("a",) * 3, (1.0,) * 3)), ["pixels is (('a'", "three means"]),
        (lambda: ViTConfig(pixels=((0.0,) * 3, (1.0, 1.0, float("nan")))), ["pixels is", "spreads above 0"]),
        (lambda: TimmConfig(se_ratio=-0.1), ["se_ratio is -0.1", "at least 0"]),
        (lambda: ViTConfig(side=30, patch=4), ["side 30", "patch 4"]),
        (lambda: ViTConfig(width=10, heads=4), ["width 10", "heads 4"]),
        (lambda: ViTConfig(activation="relu"), ["activation is 'relu'", "'quick_gelu', 'gelu'"]),
        (lambda: ViTConfig(layers=0), ["layers is 0"]),
        (lambda: MLPConfig(input_width=64), ["plain resampler", "input_width 64", "width 128"]),
        (lambda: TransformerConfig(input_width=64), ["plain resampler", "input_width 64", "width 128"]),
        (lambda: MLPConfig(frames=0), ["frames is 0"]),
        (lambda: PortResamplerConfig(places=-1), ["places is -1"]),
        (lambda: PortResamplerConfig(frames=-1), ["frames is -1"]),
        (lambda: PortResamplerConfig(latents=0), ["latents is 0"]),
        (lambda: PortResamplerConfig(activation="silu"), ["activation is 'silu'", "'squared_relu'"]),
        (lambda: PortResamplerConfig(input_width=64), ["input_width 64", "width 128"]),
        (lambda: ProjectedResamplerConfig(projected_width=0), ["projected_width is 0"]),
        (lambda: PublicDecoderConfig(family="bert"), ["family is 'bert'", "'gpt2', 'opt', 'mpt', 'mosaic_gpt'"]),
        (lambda: PublicDecoderConfig(layers=0), ["layers is 0"]),
        (lambda: PlacedXattnConfig(start=-1), ["start is -1"]),
        (lambda: PlacedXattnConfig(start=True), ["start is True"]),
        (lambda: FlamingoConfig(xattn=PlacedXattnConfig(start=4)), ["start=4", "language.layers 4"]),
        (lambda: FlamingoConfig(xattn=PortXattnConfig(start=4)), ["start=4", "language.layers 4"]),
        (lambda: PortXattnConfig(start=-1), ["start is -1"]),
        (lambda: PortXattnConfig(side="beside"), ["side is 'beside'", "'before', 'after'"]),
        (lambda: PortXattnConfig(activation="silu"), ["activation is 'silu'", "'squared_relu'"]),
        (lambda: UngatedXattnConfig(every=0), ["every is 0"]),
        (lambda: VanillaXattnConfig(heads=0), ["heads is 0"]),
        (lambda: AllPreviousXattnConfig(key_size="5"), ["key_size is '5'"]),
    ],
)
def test_the_message_names_the_wrong_fields(make, names):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value).startswith("configuration: ") and "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)


def test_a_timm_encoder_may_have_no_squeeze_excite():
    """The chapter's encoder always has it."""
    config = TimmConfig(se_ratio=0)
    assert "squeeze_excite" not in init_part(np.random.default_rng(0), config)["stage_0_block_0"]
    with pytest.raises(UserError, match="se_ratio is 0 but must be above 0"):
        VisionConfig(se_ratio=0)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mpt", "mosaic_gpt"])
def test_vanilla_cross_attention_does_not_work_in_a_public_decoder(family):
    config = tiny_config(xattn={"form": VanillaXattnConfig}, language={"form": PublicDecoderConfig, "family": family})
    with pytest.raises(UserError, match="vanilla cross-attention works in our own decoder block, not in a public"):
        parts_of(config)


def test_where_the_gated_blocks_are():
    def blocks(layers, form, **fields):
        return tiny_config(language={"layers": layers}, xattn={"form": form} | fields).gated_layers

    assert blocks(3, PlacedXattnConfig, start=1, every=9) == (1,)
    assert blocks(8, PlacedXattnConfig, start=3, every=4) == (3, 7)  # OpenFlamingo: start = every - 1
    assert blocks(4, PortXattnConfig, start=1, every=2, side="after") == (1, 3)
    for form in (UngatedXattnConfig, VanillaXattnConfig, AllPreviousXattnConfig):
        assert blocks(5, form, every=2) == (0, 2, 4)


@pytest.mark.parametrize("form", [ViTConfig, TimmConfig, PortXattnConfig, PublicDecoderConfig])
def test_other_forms_are_frozen(form):
    with pytest.raises(dataclasses.FrozenInstanceError):
        form().width = 3
