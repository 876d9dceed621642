"""Configuration: an error names both fields that contradict each other; sizes are whole numbers."""

import dataclasses

import pytest
from model_cases import tiny_config

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
    XattnConfig,
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
        (lambda: VisionConfig(stages=((8, 0, 1),)), ["stages_blocks is 0"]),
        (lambda: VisionConfig(stages=((1, 1, 1),)), ["bottleneck 0.5", "width 1"]),
        (lambda: VisionConfig(stages=()), ["stages is ()", "or more"]),
        (lambda: VisionConfig(stages=((8, 1),)), ["stages is ((8, 1),)", "(width, blocks, stride)"]),
        (lambda: VisionConfig(alpha="x"), ["alpha is 'x'", "a number"]),
        (lambda: VisionConfig(bottleneck=True), ["bottleneck is True", "a number"]),
        (lambda: VisionConfig(se_ratio=None), ["se_ratio is None", "a number"]),
        (lambda: VisionConfig(se_ratio=float("nan")), ["se_ratio is nan", "at least 0"]),
        (lambda: VisionConfig(se_ratio=-0.5), ["se_ratio is -0.5", "at least 0"]),
        (lambda: VisionConfig(se_ratio=0), ["se_ratio is 0", "above 0", "every block has squeeze-excite"]),
        (lambda: VisionConfig(se_ratio=0.0), ["se_ratio is 0.0", "above 0", "every block has squeeze-excite"]),
        (lambda: VisionConfig(stem=((0, 2),)), ["stem_width is 0"]),
        (lambda: VisionConfig(stem=((8, 0),)), ["stem_stride is 0"]),
        (lambda: VisionConfig(stem=((8, 2, 7),)), ["stem is ((8, 2, 7),)", "(width, stride)"]),
        (lambda: VisionConfig(stem=()), ["stem is ()", "or more"]),
        (lambda: LanguageConfig(width=13), ["width 13", "even"]),
        (lambda: XattnConfig(every=0), ["every is 0"]),
        (lambda: XattnConfig(heads=None), ["heads is None", "whole number"]),
        (lambda: ResamplerConfig(frames=0), ["frames is 0"]),
        (lambda: ResamplerConfig(latents=0), ["latents is 0"]),
        (lambda: LanguageConfig(layers=-1), ["layers is -1"]),
        (lambda: LanguageConfig(heads=2.0), ["heads is 2.0", "whole number"]),
        (lambda: LanguageConfig(heads="4"), ["heads is '4'"]),
        (lambda: LanguageConfig(heads=True), ["heads is True"]),
    ],
)
def test_the_message_names_the_wrong_fields(make, names):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value).startswith("configuration: ") and "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)


def test_parts_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().language.width = 3


def test_derived_numbers():
    assert tiny_config().vision.blocks == 3
    assert tiny_config(language={"layers": 8}, xattn={"every": 3}).gated_layers == (0, 3, 6)
    assert len(tiny_config(language={"layers": 80}, xattn={"every": 7}).gated_layers) == 12  # Flamingo-80B
