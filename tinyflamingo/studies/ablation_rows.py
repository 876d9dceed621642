"""The rows of the ablation table: what each changes, and what the paper found (its tables 3 and 10).

Beside chapter §4. A row is the baseline with one part in another form (`variants/`), or with other fields of the
recipe of stage three (`training/presets.py`).

Not here: running them (`ablations.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from tinyflamingo.data.tinyworld.scenes import WILD_THINGS
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, ResamplerConfig, VisionConfig
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.training.presets import Preset, get_preset
from tinyflamingo.variants.ablations import (
    AllPreviousXattnConfig,
    PlacedXattnConfig,
    UngatedXattnConfig,
    VanillaXattnConfig,
)
from tinyflamingo.variants.plain_resamplers import MLPConfig, TransformerConfig
from tinyflamingo.variants.registry import in_form
from tinyflamingo.variants.vit import ViTConfig

PAPER_BASELINE = 70.7  # overall score of the paper's table 3
FEWEST = len(WILD_THINGS)  # pictures of a kind in the smaller pool: each wild thing needs one


@dataclass(frozen=True)
class Row:
    """One run: how it differs from the baseline."""

    what: str
    paper: float  # the paper's overall score for the same change
    config: dict = field(default_factory=dict)  # {part: the configuration that replaces it}
    recipe: dict = field(default_factory=dict)  # {field of the recipe of stage three: its value}
    fresh: tuple = ()  # frozen parts with random parameters: "language", "vision"
    short_encoder: bool = False  # stage one is run again, with as few steps as stage three
    against: str = "baseline"  # the row with which it is compared


def rows_of(config: FlamingoConfig) -> dict[str, Row]:
    """{name: Row}, for a model of this configuration."""
    layers, xattn, resampler = config.language.layers, config.xattn, config.resampler
    middle = in_form(xattn, PlacedXattnConfig, start=layers // 2, every=layers)
    rows = {
        "baseline": Row("the preset without changes", PAPER_BASELINE),
        "no_gates": Row("no tanh gates", 66.5, {"xattn": in_form(xattn, UngatedXattnConfig)}),
        "vanilla": Row("vanilla cross-attention, no feed-forward", 66.9, {"xattn": in_form(xattn, VanillaXattnConfig)}),
        "every_2nd": Row(
            "a gated block at every 2nd decoder block", 68.2, {"xattn": dataclasses.replace(xattn, every=2)}
        ),
        "middle": Row("one gated block, in the middle", 59.8, {"xattn": middle}),
        "mlp": Row("an MLP instead of the resampler", 66.6, {"resampler": in_form(resampler, MLPConfig)}),
        "transformer": Row(
            "a plain Transformer instead of the resampler", 66.7, {"resampler": in_form(resampler, TransformerConfig)}
        ),
        "resampler_small": Row(
            "half the layers and heads in the resampler", 67.9, {"resampler": resized(resampler, 0.5)}
        ),
        "resampler_large": Row(
            "twice the layers and heads in the resampler", 69.0, {"resampler": resized(resampler, 2)}
        ),
        "all_previous": Row("attend to all previous images", 63.5, {"xattn": in_form(xattn, AllPreviousXattnConfig)}),
        "p_next_0": Row("p_next 0 instead of 0.5", 69.6, recipe={"p_next": 0.0}),
        "p_next_1": Row("p_next 1 instead of 0.5", 70.4, recipe={"p_next": 1.0}),
        "no_pages": Row("no interleaved pages", 53.4, recipe={"without": "pages"}),
        "no_pairs": Row("no picture-text pairs", 60.9, recipe={"without": "pairs"}),
        "no_videos": Row("no video-text pairs", 67.3, recipe={"without": "videos"}),
        "round_robin": Row("one data set in each step, three times the steps", 62.9, recipe={"accumulate": False}),
        "language_trained": Row("language model trained too", 62.7, recipe={"trained": ("language",)}),
        "language_scratch": Row(
            "language model trained from scratch", 57.8, recipe={"trained": ("language",)}, fresh=("language",)
        ),
        "encoder_trained": Row("encoder trained too", 68.1, recipe={"trained": ("vision",)}),
        "encoder_scratch": Row(
            "encoder trained from scratch", 61.4, recipe={"trained": ("vision",)}, fresh=("vision",)
        ),
    }
    if type(config.vision) is VisionConfig:
        what, vit = "a ViT of equal cost, with a short stage one", {"vision": vit_of_equal_cost(config.vision)}
        rows |= {
            "short_encoder": Row("a short stage one", PAPER_BASELINE, short_encoder=True),
            "vit": Row(what, 64.9, vit, short_encoder=True, against="short_encoder"),
        }
    return rows


def resized(config: ResamplerConfig, factor: float) -> ResamplerConfig:
    """A resampler with this many times the layers and heads, at least one of each."""
    return dataclasses.replace(
        config, layers=max(1, int(config.layers * factor)), heads=max(1, int(config.heads * factor))
    )


def vit_of_equal_cost(config: VisionConfig) -> ViTConfig:
    """A ViT with equally many features of the same width, from four by four patches; in the toy about equal flops."""
    return ViTConfig(patch=config.side // 4, width=config.width, side=config.side)


def short(preset: Preset, steps: int, row: Row) -> Preset:
    """The preset with the row's changes and a short stage three: half the documents per step, a quarter of the pool."""
    recipe, changes = preset.flamingo, dict(row.recipe)
    without = changes.pop("without", None)
    datasets = tuple(
        dataclasses.replace(dataset, rows=0 if dataset.name == without else max(1, dataset.rows // 2))
        for dataset in recipe.datasets
    )
    pool = ("singles", "uncoloured", "pairs", "counts", "clips", "wild", "digits", "sums")
    sizes = {name: min(getattr(recipe, name), max(FEWEST, getattr(recipe, name) // 4)) for name in pool}
    steps = steps if changes.get("accumulate", True) else 3 * steps
    recipe = dataclasses.replace(recipe, steps=steps, datasets=datasets, **sizes, **changes)
    return dataclasses.replace(preset, config=dataclasses.replace(preset.config, **row.config), flamingo=recipe)


def preset_of(model: TrainedFlamingo) -> Preset:
    """The preset that made a checkpoint, with the checkpoint's own configuration."""
    if "preset" not in model.info:
        raise UserError("the checkpoint does not name its preset: train one with `python -m tinyflamingo train`")
    return dataclasses.replace(get_preset(model.info["preset"]), config=model.config)
