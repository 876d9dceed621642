"""Configuration: one frozen dataclass per part of Flamingo, one comment per knob.

Serves every section of the chapter. Sizes are validated in one place, `__post_init__`, with messages
that name both fields at odds. Not here: training hyper-parameters (`training/presets.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from numbers import Integral, Real

from tinyflamingo.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(f"configuration: {message}")


def _require_sizes(**sizes) -> None:
    for name, value in sizes.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        _require(whole and value >= 1, f"{name} is {value!r} but must be a whole number of at least 1")


def _require_whole_fields(part, may_be_zero=()) -> None:
    """Every field declared `int` holds a size: a whole number of at least 1, or of at least 0 where that means none."""
    sizes = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.type == "int"}
    _require_sizes(**{n: 1 if n in may_be_zero and v == 0 and v is not False else v for n, v in sizes.items()})


def _require_numbers(**numbers) -> None:
    for name, value in numbers.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        _require(number and 0 <= value < float("inf"), f"{name} is {value!r} but must be a number of at least 0")


def _require_choice(name, value, choices) -> None:
    _require(value in choices, f"{name} is {value!r} but must be one of {', '.join(map(repr, choices))}")


DECODERS = ("chinchilla", "gpt2", "opt", "mpt", "mosaic_gpt")  # the public ones: `interop/decoders.py`
ACTIVATIONS = ("squared_relu", "gelu", "gelu_erf", "relu")
NF_ACTIVATIONS = ("gelu", "gelu_erf", "relu")
ENDS = ("end", "start")
PIXELS = ((110.0, 110.0, 110.0), (80.0, 80.0, 80.0))  # of 0..255: what is subtracted from each channel, then divides it


def _require_pixels(pixels) -> None:
    fits = all(isinstance(part, tuple) and len(part) == 3 for part in pixels) and len(pixels) == 2
    _require(fits and min(pixels[1]) > 0, f"pixels is {pixels!r} but must be three means and three spreads above 0")


@dataclass(frozen=True)
class VisionConfig:
    """NF-ResNet (chapter §2; NFNet paper, section 3 and appendix C)."""

    stem: tuple = ((16, 2), (48, 1))  # (width, stride) of each 3x3 stem convolution, or (width, stride, size)
    stages: tuple = ((48, 1, 1), (96, 1, 2), (128, 1, 2))  # (width, blocks, stride) of each stage
    bottleneck: float = 0.5  # inner width of a block / its output width
    group_size: int = 64  # channels per group of the 3x3 convolutions (at most the inner width)
    se_ratio: float = 0.5  # hidden width of squeeze-excite / output width; 0: no squeeze-excite
    alpha: float = 0.2  # share of a residual branch: h + alpha * f(h / beta)
    width: int = 128  # Dv: channels of the final 1x1 convolution, the width of a feature
    side: int = 32  # pixels a side of the pictures that the presets train on; any size works
    # What public implementations do otherwise:
    activation: str = "gelu"  # an op with a gain in `GAINS`
    se_activation: str = "gelu"  # of squeeze-excite; NFNet's own code: "relu"
    stem_pool: bool = False  # a 3x3 maximum of stride 2 after the stem, as in ResNet-50
    spatial: int = 2  # 3x3 convolutions in a block; NF-ResNets have 1
    final: bool = True  # the last 1x1 convolution; without it the last stage's width is Dv
    odd_pixel: str = "end"  # where padding has one pixel more: as JAX has it; PyTorch: "start"
    pixels: tuple = PIXELS

    def __post_init__(self):
        _require_whole_fields(self)
        for name, choices in {"activation": NF_ACTIVATIONS, "se_activation": NF_ACTIVATIONS, "odd_pixel": ENDS}.items():
            _require_choice(name, getattr(self, name), choices)
        _require_pixels(self.pixels)
        _require_numbers(bottleneck=self.bottleneck, se_ratio=self.se_ratio, alpha=self.alpha)
        threes = isinstance(self.stages, tuple) and all(isinstance(s, tuple) and len(s) == 3 for s in self.stages)
        _require(threes and self.stages, f"stages is {self.stages!r} but must be one (width, blocks, stride) or more")
        last = self.stages[-1][0]
        _require(self.final or self.width == last, f"width {self.width} is not the last stage's {last}: final is False")
        _require(self.spatial <= 2, f"spatial is {self.spatial} but a block has 1 or 2 convolutions of 3x3")
        for width, stride, *size in self.stem:
            _require_sizes(stem_width=width, stem_stride=stride, **{f"stem_size_{i}": n for i, n in enumerate(size)})
            _require(len(size) <= 1, f"stem has {(width, stride, *size)} but takes (width, stride, size) at most")
        for width, blocks, stride in self.stages:
            _require_sizes(stage_width=width, stage_blocks=blocks, stage_stride=stride)
            inner = int(width * self.bottleneck)
            group = min(self.group_size, inner)
            _require(stride <= 2, f"stages has stride {stride}: the shortcut can pool by 2 at most")
            _require(inner >= 1, f"bottleneck {self.bottleneck} leaves no channel of a stage's width {width}")
            _require(inner % group == 0, f"group_size {group} does not divide the inner width {inner} of a stage")

    @property
    def blocks(self) -> int:
        """Residual blocks in all stages."""
        return sum(blocks for _, blocks, _ in self.stages)


@dataclass(frozen=True)
class ViTConfig:
    """CLIP's vision transformer, in place of the NF-ResNet (chapter §2; CLIP paper, section 2.4)."""

    patch: int = 4  # pixels a side of a patch
    width: int = 128  # Dv: width of a token, and so of a feature
    layers: int = 4
    heads: int = 4
    ffw_multiplier: int = 4
    side: int = 32  # pixels a side of the pictures whose patches have learned places; others interpolate them
    activation: str = "quick_gelu"  # of the feed-forward, an op's name: CLIP's; open_clip's own towers: "gelu_erf"
    pool: str = "class"  # what the captions meet: the class token; "mean": the mean of the features
    norm_features: bool = True  # the final norm is on the features too, not on the class token alone
    pixels: tuple = PIXELS

    def __post_init__(self):
        _require_whole_fields(self)
        _require(self.width % self.heads == 0, f"vision width {self.width} is not a multiple of heads {self.heads}")
        _require(self.side % self.patch == 0, f"side {self.side} is not a multiple of patch {self.patch}")
        _require_choice("activation", self.activation, ("quick_gelu", "gelu", "gelu_erf"))
        _require_pixels(self.pixels)
        _require_choice("pool", self.pool, ("class", "mean"))

    @property
    def grid(self) -> int:
        """Patches along a side of the pictures it learns from."""
        return self.side // self.patch


@dataclass(frozen=True)
class TextTowerConfig:
    """The BERT-like text tower of contrastive pretraining (chapter §2), thrown away afterwards."""

    vocab_size: int = 662  # V
    width: int = 96  # D of the tower
    layers: int = 2
    heads: int = 4
    context: int = 48  # longest caption, in tokens
    joint_width: int = 64  # width of the space where pictures and captions meet

    def __post_init__(self):
        _require_whole_fields(self)
        _require(self.width % self.heads == 0, f"text width {self.width} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class ResamplerConfig:
    """Perceiver resampler (chapter §3; paper figure 5), or what table 3 sets in its place."""

    input_width: int = 128  # Dv: width of a visual feature; one that is not the latents' is projected to theirs
    width: int = 128  # D of the latents
    layers: int = 2
    heads: int = 4  # H
    key_size: int = 32  # K
    latents: int = 8  # R: visual tokens per picture or video
    frames: int = 8  # frames with a learned temporal embedding; more are interpolated; 0: no such embedding
    ffw_multiplier: int = 4
    activation: str = "squared_relu"  # of the feed-forward, an op's name; public ports: "gelu_erf"
    media_norm: bool = False  # a layer norm on the features in every layer, as public ports have
    output_norm: bool = False  # a layer norm after the last layer, as public ports have
    places: int = 0  # media of a document with a learned embedding of their place in it (public ports); 0: none
    kind: str = "perceiver"  # "mlp", "transformer": every feature becomes a visual token (`plain_resamplers.py`)

    def __post_init__(self):
        _require_whole_fields(self, may_be_zero=("frames", "places"))
        _require_choice("activation", self.activation, ACTIVATIONS)
        _require_choice("kind", self.kind, ("perceiver", "mlp", "transformer"))
        _require(
            self.kind == "perceiver" or self.input_width == self.width,
            f"kind {self.kind!r} projects nothing, but input_width {self.input_width} differs from width {self.width}",
        )
        odd = [name for name in ("places", "media_norm", "output_norm") if getattr(self, name)]
        odd += [] if self.frames else ["frames"]
        _require(
            self.kind == "perceiver" or not odd,
            f"kind {self.kind!r} does nothing with {', '.join(odd)} as given: leave the default",
        )


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
    decoder: str = "chinchilla"  # or a public one that a peer's weights need: "gpt2", "opt", "mpt", "mosaic_gpt"

    def __post_init__(self):
        _require_whole_fields(self)
        _require_choice("decoder", self.decoder, DECODERS)
        _require(self.width % 2 == 0, f"width {self.width} must be even: sines and cosines share it")


@dataclass(frozen=True)
class XattnConfig:
    """GATED XATTN-DENSE (chapter §4; paper figure 4)."""

    every: int = 1  # k: gated blocks stand at decoder blocks start, start + k, start + 2k, ...
    kind: str = "dense"  # "vanilla": cross-attention alone, inside a decoder block, before its feed-forward (table 3)
    gated: bool = True  # tanh gates that start at 0; False: new layers count in full from the start (table 3)
    heads: int = 4  # H
    key_size: int = 32  # K
    ffw_multiplier: int = 4
    attend: str = "last"  # a token sees its own medium only; "all_previous": also those before it in its document
    project_media: bool = False  # visual tokens are projected to the language model's width, once for all blocks
    activation: str = "squared_relu"  # of the feed-forward, an op's name; public ports: "gelu_erf"
    media_norm: bool = True  # a layer norm on keys and values; public ports: none
    start: int = 0  # the first decoder block with a gated block; OpenFlamingo: k - 1
    side: str = "before"  # where a gated block stands beside its decoder block; flamingo-pytorch: "after"

    def __post_init__(self):
        _require_whole_fields(self, may_be_zero=("start",))
        _require_choice("kind", self.kind, ("dense", "vanilla"))
        _require(isinstance(self.gated, bool), f"gated is {self.gated!r} but must be true or false")
        _require_choice("attend", self.attend, ("last", "all_previous"))
        _require_choice("activation", self.activation, ACTIVATIONS)
        _require_choice("side", self.side, ("before", "after"))


@dataclass(frozen=True)
class FlamingoConfig:
    """The whole (chapter §1)."""

    vision: VisionConfig | ViTConfig = field(default_factory=VisionConfig)  # either encoder
    text_tower: TextTowerConfig = field(default_factory=TextTowerConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    xattn: XattnConfig = field(default_factory=XattnConfig)

    def __post_init__(self):
        _require(
            self.resampler.input_width == self.vision.width,
            f"resampler.input_width {self.resampler.input_width} differs from vision.width {self.vision.width}",
        )
        _require(
            self.xattn.start < self.language.layers,
            f"xattn.start {self.xattn.start} is beyond language.layers {self.language.layers}: no block would look",
        )
        _require(
            self.text_tower.vocab_size == self.language.vocab_size,
            f"text_tower.vocab_size {self.text_tower.vocab_size} differs from "
            f"language.vocab_size {self.language.vocab_size}: both read one tokenizer",
        )
        _require(
            self.xattn.start < self.language.layers,
            f"xattn.start {self.xattn.start} is beyond the last of language.layers {self.language.layers}",
        )
        _require(
            self.xattn.kind == "dense" or self.language.decoder == "chinchilla",
            f"xattn.kind {self.xattn.kind!r} stands inside our own decoder block, not in language.decoder "
            f"{self.language.decoder!r}",
        )

    @property
    def visual_width(self) -> int:
        """Width of the visual tokens that the gated blocks read."""
        return self.language.width if self.xattn.project_media else self.resampler.width

    @property
    def gated_layers(self) -> tuple:
        """Decoder blocks that have a gated block beside them: 0, k, 2k, ..., or from `xattn.start`."""
        return tuple(range(self.xattn.start, self.language.layers, self.xattn.every))


PARTS = {
    "vision": VisionConfig,
    "text_tower": TextTowerConfig,
    "resampler": ResamplerConfig,
    "language": LanguageConfig,
    "xattn": XattnConfig,
}


def config_to_dict(config: FlamingoConfig) -> dict:
    """A plain dictionary for JSON."""
    return dataclasses.asdict(config)


def config_from_dict(raw: dict) -> FlamingoConfig:
    """The inverse of `config_to_dict`. Unknown or missing keys raise `UserError`."""
    if not isinstance(raw, dict) or set(raw) != set(PARTS):
        found = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
        raise UserError(f"configuration: expected the parts {sorted(PARTS)}, found {found}")
    return FlamingoConfig(**{name: _part(name, raw[name]) for name in PARTS})


def vision_from_dict(raw: dict) -> VisionConfig | ViTConfig:
    """The encoder's part alone, whichever it is."""
    return _part("vision", raw)


def _part(name: str, raw: dict):
    part = ViTConfig if name == "vision" and "patch" in raw else PARTS[name]
    known = {f.name for f in dataclasses.fields(part)}
    odd = sorted(set(raw) ^ known)
    if odd:
        raise UserError(f"configuration: part {name!r} has unknown or missing fields {odd}")
    return part(**{key: _tuples(value) for key, value in raw.items()})


def _tuples(value):
    """JSON has lists where the dataclasses have tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
