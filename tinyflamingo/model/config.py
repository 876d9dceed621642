"""Configuration: one frozen dataclass for each part of Flamingo, one comment for each field.

Serves every section of the chapter. `__post_init__` checks the sizes; its message names both fields that contradict
each other. A part in `variants/` has its own dataclass, which extends one of these. Not here: training
hyper-parameters (`training/presets.py`), and the dictionary that a checkpoint holds (`variants/registry.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from tinyflamingo.data.preparation import PAD_TO_SQUARE
from tinyflamingo.errors import UserError
from tinyflamingo.files import LARGEST_SIZE, MOST_BLOCKS


def require(condition: bool, message: str) -> None:
    """Raise `UserError` with this message unless the condition is true."""
    if not condition:
        raise UserError(f"configuration: {message}")


def require_sizes(**sizes: Any) -> None:
    """Each must be a whole number of at least 1, and not so large that a damaged file takes all memory."""
    for name, value in sizes.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        require(whole and value >= 1, f"{name} is {value!r} but must be a whole number of at least 1")
        most = MOST_BLOCKS if name.endswith(("layers", "blocks")) else LARGEST_SIZE
        require(value <= most, f"{name} is {value} but must be at most {most}")


def require_whole_fields(part: Any, may_be_zero: tuple = ()) -> None:
    """Every field declared `int` must be a whole number of at least 1, or of at least 0 if it is in `may_be_zero`."""
    sizes = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.type == "int"}
    require_sizes(**{n: 1 if n in may_be_zero and v == 0 and v is not False else v for n, v in sizes.items()})


def require_numbers(**numbers: Any) -> None:
    """Each must be a finite number of at least 0."""
    for name, value in numbers.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        require(number and 0 <= value < float("inf"), f"{name} is {value!r} but must be a number of at least 0")


def require_choice(name: str, value: Any, choices: tuple) -> None:
    """The value must be one of the choices."""
    require(value in choices, f"{name} is {value!r} but must be one of {', '.join(map(repr, choices))}")


@dataclass(frozen=True)
class VisionConfig:
    """NF-ResNet (chapter §2; NFNet paper, section 3 and appendix C)."""

    stem: tuple = ((16, 2), (48, 1))  # (width, stride) of each 3x3 stem convolution
    stages: tuple = ((48, 1, 1), (96, 1, 2), (128, 1, 2))  # (width, blocks, stride) of each stage
    bottleneck: float = 0.5  # inner width of a block / its output width
    group_size: int = 64  # channels in a group of the 3x3 convolutions (at most the inner width)
    se_ratio: float = 0.5  # hidden width of squeeze-excite / output width
    alpha: float = 0.2  # weight of a residual branch: h + alpha * f(h / beta)
    width: int = 128  # Dv: channels of the final 1x1 convolution, the width of a feature
    side: int = 32  # side, in pixels, of the pictures that the presets train on; any size works

    ENTRIES = {"stem": "(width, stride)", "stages": "(width, blocks, stride)"}
    preparation = PAD_TO_SQUARE  # of pictures; not a field: only encoders in `variants/` have another one
    SE_OPTIONAL = False  # whether se_ratio may be 0: blocks without squeeze-excite

    def __post_init__(self) -> None:
        require_whole_fields(self)
        require_numbers(bottleneck=self.bottleneck, se_ratio=self.se_ratio, alpha=self.alpha)
        enough = self.se_ratio > 0 or self.SE_OPTIONAL
        require(enough, f"se_ratio is {self.se_ratio} but must be above 0: every block has squeeze-excite")
        for name in self.ENTRIES:
            self._require_entries(name)
        for width, _, stride in self.stages:
            inner = int(width * self.bottleneck)
            group = min(self.group_size, inner)
            require(stride <= 2, f"stages has stride {stride} but must have at most 2: the shortcut pools by 2")
            require(inner >= 1, f"bottleneck {self.bottleneck} leaves no channel of the width {width} of a stage")
            require(inner % group == 0, f"group_size {group} does not divide the inner width {inner} of a stage")

    def _require_entries(self, name):
        """The field must be one tuple or more, each with the sizes that `ENTRIES` names."""
        value, entry = getattr(self, name), self.ENTRIES[name]
        names = entry.strip("()").split(", ")
        fits = isinstance(value, tuple) and all(isinstance(e, tuple) and len(e) == len(names) for e in value)
        require(fits and value, f"{name} is {value!r} but must be one {entry} or more")
        for sizes in value:
            require_sizes(**{f"{name}_{n}": size for n, size in zip(names, sizes, strict=True)})
        require_sizes(**{f"{name}_blocks": sum(sizes[1] for sizes in value) if name == "stages" else len(value)})

    @property
    def blocks(self) -> int:
        """Residual blocks in all stages."""
        return sum(blocks for _, blocks, _ in self.stages)


@dataclass(frozen=True)
class TextTowerConfig:
    """The BERT-like text tower of contrastive pretraining (chapter §2). Flamingo does not use it."""

    vocab_size: int = 662  # V
    width: int = 96  # D
    layers: int = 2
    heads: int = 4
    context: int = 48  # longest caption, in tokens
    joint_width: int = 64  # width of the common space of pictures and captions

    def __post_init__(self) -> None:
        require_whole_fields(self)
        require(self.width % self.heads == 0, f"text width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class ResamplerConfig:
    """Perceiver resampler (chapter §3; paper figure 5)."""

    input_width: int = 128  # Dv: width of a visual feature; if it is not D, features are projected to D
    width: int = 128  # D of the latents
    layers: int = 2
    heads: int = 4  # H
    key_size: int = 32  # K
    latents: int = 8  # R: visual tokens for each picture or video
    frames: int = 8  # frames with a learned temporal embedding; for more, it is interpolated
    ffw_multiplier: int = 4

    def __post_init__(self) -> None:
        require_whole_fields(self)

    @property
    def output_width(self) -> int:
        """Width of a visual token, which the gated blocks read."""
        return self.width


@dataclass(frozen=True)
class LanguageConfig:
    """Chinchilla-style decoder (chapter §4)."""

    vocab_size: int = 662  # V, without <EOC>, which Flamingo adds
    width: int = 128  # D
    layers: int = 4
    heads: int = 4  # H
    key_size: int = 32  # K
    ffw_multiplier: int = 4
    context: int = 1024  # longest sequence accepted; positions are relative, so none is learned

    def __post_init__(self) -> None:
        require_whole_fields(self)
        require(self.width % 2 == 0, f"width {self.width} must be even: half are sines, half are cosines")


@dataclass(frozen=True)
class XattnConfig:
    """GATED XATTN-DENSE (chapter §4; paper figure 4)."""

    every: int = 1  # k: a gated block is before decoder blocks 0, k, 2k, ...
    heads: int = 4  # H
    key_size: int = 32  # K
    ffw_multiplier: int = 4

    def __post_init__(self) -> None:
        require_whole_fields(self)

    def gated_layers(self, layers: int) -> tuple:
        """The numbers of the decoder blocks that have a gated block."""
        return tuple(range(0, layers, self.every))


@dataclass(frozen=True)
class FlamingoConfig:
    """The whole model (chapter §1)."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text_tower: TextTowerConfig = field(default_factory=TextTowerConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    xattn: XattnConfig = field(default_factory=XattnConfig)

    def __post_init__(self) -> None:
        require(
            self.resampler.input_width == self.vision.width,
            f"resampler.input_width {self.resampler.input_width} differs from vision.width {self.vision.width}",
        )
        require(
            self.text_tower.vocab_size == self.language.vocab_size,
            f"text_tower.vocab_size {self.text_tower.vocab_size} differs from "
            f"language.vocab_size {self.language.vocab_size}: both read one tokenizer",
        )
        require(
            len(self.gated_layers) > 0,
            f"{self.xattn} puts no gated block before any of the language.layers {self.language.layers} decoder blocks",
        )

    @property
    def gated_layers(self) -> tuple:
        """The numbers of the decoder blocks that have a gated block before them."""
        return self.xattn.gated_layers(self.language.layers)
