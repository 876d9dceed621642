"""Configuration: fields at odds are named, both of them; a dictionary and back; nothing unknown."""

import dataclasses
import json

import pytest
from model_cases import tiny_config

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
    ViTConfig,
    XattnConfig,
    config_from_dict,
    config_to_dict,
)


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: FlamingoConfig(vision=VisionConfig(width=64)), ["resampler.input_width 128", "vision.width 64"]),
        (
            lambda: FlamingoConfig(language=LanguageConfig(vocab_size=700)),
            ["text_tower.vocab_size 662", "language.vocab_size 700"],
        ),
        (lambda: TextTowerConfig(width=10, heads=4), ["width 10", "heads 4"]),
        (lambda: VisionConfig(stages=((40, 1, 1),), group_size=16), ["group_size 16", "inner width 20"]),
        (lambda: VisionConfig(stages=((8, 1, 3),)), ["stride 3"]),
        (lambda: VisionConfig(stages=((8, 0, 1),)), ["stage_blocks is 0"]),
        (lambda: VisionConfig(stages=((1, 1, 1),)), ["bottleneck 0.5", "width 1"]),
        (lambda: VisionConfig(stages=()), ["stages is ()", "or more"]),
        (lambda: VisionConfig(stages=((8, 1),)), ["stages is ((8, 1),)", "(width, blocks, stride)"]),
        (lambda: VisionConfig(alpha="x"), ["alpha is 'x'", "a number"]),
        (lambda: VisionConfig(bottleneck=True), ["bottleneck is True", "a number"]),
        (lambda: VisionConfig(se_ratio=None), ["se_ratio is None", "a number"]),
        (lambda: VisionConfig(se_ratio=float("nan")), ["se_ratio is nan", "at least 0"]),
        (lambda: VisionConfig(stem=((0, 2),)), ["stem_width is 0"]),
        (lambda: VisionConfig(stem=((8, 2, 0),)), ["stem_size_0 is 0"]),
        (lambda: VisionConfig(stem=((8, 2, 7, 7),)), ["(8, 2, 7, 7)", "(width, stride, size)"]),
        (lambda: VisionConfig(activation="tanh"), ["activation is 'tanh'", "'gelu', 'gelu_erf', 'relu'"]),
        (lambda: VisionConfig(se_activation="silu"), ["se_activation is 'silu'"]),
        (lambda: VisionConfig(odd_pixel="middle"), ["odd_pixel is 'middle'", "'end', 'start'"]),
        (lambda: VisionConfig(final=False, width=96), ["width 96", "last stage's 128"]),
        (lambda: VisionConfig(spatial=3), ["spatial is 3"]),
        (lambda: VisionConfig(pixels=((0.0,) * 3, (1.0, 0.0, 1.0))), ["pixels is", "spreads above 0"]),
        (lambda: ViTConfig(pixels=((0.0,) * 4, (1.0,) * 4)), ["pixels is", "three means"]),
        (lambda: LanguageConfig(width=13), ["width 13", "even"]),
        (lambda: XattnConfig(every=0), ["every is 0"]),
        (lambda: XattnConfig(attend="next"), ["attend is 'next'", "'last', 'all_previous'"]),
        (lambda: XattnConfig(side="beside"), ["side is 'beside'", "'before', 'after'"]),
        (lambda: XattnConfig(activation="silu"), ["activation is 'silu'", "'squared_relu'"]),
        (lambda: FlamingoConfig(xattn=XattnConfig(start=4)), ["xattn.start 4", "language.layers 4"]),
        (lambda: XattnConfig(start=-1), ["start is -1"]),
        (lambda: ResamplerConfig(places=-1), ["places is -1"]),
        (lambda: XattnConfig(kind="graft"), ["kind is 'graft'", "'dense', 'vanilla'"]),
        (lambda: XattnConfig(gated=1), ["gated is 1", "true or false"]),
        (lambda: ResamplerConfig(kind="qformer"), ["kind is 'qformer'", "'perceiver', 'mlp', 'transformer'"]),
        (lambda: ResamplerConfig(kind="mlp", input_width=64), ["kind 'mlp'", "input_width 64", "width 128"]),
        (lambda: ResamplerConfig(kind="mlp", frames=0), ["kind 'mlp'", "frames"]),
        (lambda: ResamplerConfig(kind="transformer", places=3, media_norm=True), ["places, media_norm"]),
        (lambda: ResamplerConfig(latents=0), ["latents is 0"]),
        (lambda: LanguageConfig(layers=-1), ["layers is -1"]),
        (lambda: LanguageConfig(heads=2.0), ["heads is 2.0", "whole number"]),
        (lambda: LanguageConfig(heads="4"), ["heads is '4'"]),
        (lambda: LanguageConfig(heads=True), ["heads is True"]),
    ],
)
def test_what_is_wrong_is_named(make, names):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value).startswith("configuration: ") and "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "config", [FlamingoConfig(), tiny_config(), tiny_config(xattn={"every": 2, "attend": "all_previous"})]
)
def test_dictionary_round_trip(config):
    raw = json.loads(json.dumps(config_to_dict(config)))  # JSON has lists where we have tuples
    assert config_from_dict(raw) == config
    assert set(raw) == {"vision", "text_tower", "resampler", "language", "xattn"}


def _changed(change):
    raw = config_to_dict(tiny_config())
    change(raw)
    return raw


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda raw: raw["language"].update(colour=3), r"'language' has unknown or missing fields \['colour'\]"),
        (lambda raw: raw["xattn"].update(attend="all"), "attend is 'all' but must be"),
        (lambda raw: raw["xattn"].pop("every"), r"'xattn' has unknown or missing fields \['every'\]"),
        (lambda raw: raw.update(audio={}), "expected the parts .*found .*audio"),
        (lambda raw: raw.pop("vision"), "expected the parts"),
        (lambda raw: raw["vision"].update(width=16), "resampler.input_width 8 differs from vision.width 16"),
    ],
)
def test_unknown_and_missing_keys(change, match):
    with pytest.raises(UserError, match=match):
        config_from_dict(_changed(change))


@pytest.mark.parametrize("raw", [[], {}, ["vision"], 3, None, "vision"])
def test_no_dictionary_of_parts(raw):
    with pytest.raises(UserError, match="expected the parts"):
        config_from_dict(raw)


def test_parts_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().language.width = 3


def test_derived_numbers():
    assert tiny_config().vision.blocks == 3
    assert tiny_config(language={"layers": 8}, xattn={"every": 3}).gated_layers == (0, 3, 6)
    assert len(tiny_config(language={"layers": 80}, xattn={"every": 7}).gated_layers) == 12  # Flamingo-80B
