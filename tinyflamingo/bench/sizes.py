"""Parameters and costs of a model of any size, computed from the shapes of its arrays.

Counts, flops, bytes and memory come from the code of the model, run on hollow arrays (`ops/hollow.py`). Only the rate
that converts flops to seconds is measured. Flops are those of matrix products, with convolutions; a multiplication and
an addition are two flops. Attention is counted as defined: every query with every key and every medium.

Not here: the configurations (`variants/paper.py`, `training/presets.py`) and measured times (`bench/run.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, LanguageConfig
from tinyflamingo.model.flamingo import CHAPTER
from tinyflamingo.model.gated_xattn import gated_xattn_dense
from tinyflamingo.model.language_model import init_language_model, language_model
from tinyflamingo.ops.hollow import HollowGenerator, Tally, hollow, tally
from tinyflamingo.ops.tree import count
from tinyflamingo.training.presets import PRESETS, parameter_counts
from tinyflamingo.variants.paper import A9, CLASSES, CLIP_JOINT, PAPER
from tinyflamingo.variants.registry import OTHER, init_flamingo, init_part, parts_of


@dataclass(frozen=True)
class Sample:
    """The content of one row of a batch."""

    tokens: int
    media: int
    frames: int = 1


PAGE = Sample(256, 5)  # a web page, as the paper cuts it (section 2.4)
# One update of the paper's ablations (appendix B.3.1): pages, pairs of two data sets, videos. Their texts have 32 or 64
# tokens (first version, section 3.2); here 64.
BATCH = ((256, PAGE), (512, Sample(64, 1)), (512, Sample(64, 1)), (64, Sample(64, 1, 8)))
UPDATES = 250_000
TOKENS_PER_PARAMETER = 20  # training tokens of a language model (Chinchilla's rule)
# Flops of a training step over those of a forward pass: 3 for trained parts (two more products for each one), 2 for
# frozen parts that a gradient passes through (one more), 1 for frozen parts before all trained ones.
FROZEN = {"vision encoder": 1, "language model": 2}


def find_model(name: str) -> tuple[Any, dict[str, str]]:
    """(configuration, {part: figure in the paper}) of one of our presets or of the paper's models."""
    if name in PRESETS:
        return PRESETS[name].config, {}
    if name in PAPER:
        return PAPER[name].config, PAPER[name].printed
    rows = list(A9)
    names = [*sorted(PRESETS), *(n for n in PAPER if n not in A9), f"{rows[0]} ... {rows[-1]} (table A9)"]
    raise UserError(f"unknown preset {name!r}: choose one of {', '.join(names)}")


def counts(name: str) -> dict[str, dict]:
    """{part: {"parameters", "state", "printed"}} of a preset; "printed" only if its paper prints a figure."""
    config, printed = find_model(name)
    if isinstance(config, FlamingoConfig):
        parts = parameter_counts(config)
        if name in PAPER:
            del parts["text tower"]  # the paper does not give its size
    elif isinstance(config, LanguageConfig):
        parts = {"language model": {"parameters": count(init_language_model(HollowGenerator(), config))}}
    else:
        head, size = ("classifier", (config.width + 1) * CLASSES)
        if name.startswith("clip"):
            head, size = "projection", config.width * CLIP_JOINT
        encoder = count(init_part(HollowGenerator(), config))
        parts = {"vision encoder": {"parameters": encoder}, head: {"parameters": size}}
    parts.setdefault("total", {"parameters": sum(row["parameters"] for row in parts.values())})
    return {n: {"state": "", **row} | ({"printed": printed[n]} if n in printed else {}) for n, row in parts.items()}


# ---------------------------------------------------------------- a forward pass


def forward(config: Any, sample: Sample = PAGE) -> dict[str, Tally]:
    """{part: Tally} of a forward pass of a sample; of its tokens (language model); of one picture (vision encoder)."""
    with ops.use("reference"):
        if isinstance(config, LanguageConfig):
            return {"language model": _read(config, sample.tokens)}
        if not isinstance(config, FlamingoConfig):
            return {"vision encoder": _encode(config)[1]}
        cells, encoder = _encode(config.vision)
        return {
            "vision encoder": encoder * (sample.media * sample.frames),
            **_join(config, sample, cells),
            "language model": _read(config.language, sample.tokens),
        }


@functools.cache
def _encode(config):
    """One picture through an encoder: (number of features, Tally)."""
    params = init_part(HollowGenerator(), config)
    encode = CHAPTER._replace(**OTHER[type(config)](config) if type(config) in OTHER else {}).encode
    with tally() as passed:
        features, _ = encode(params, hollow((1, config.side, config.side, 3)), config)
    return features.shape[1], passed


def _read(config, tokens):
    """Tokens through a language model. All blocks cost the same: two blocks minus one block is one block."""
    passes = []
    for layers in (1, 2):
        short = dataclasses.replace(config, layers=layers)
        params = init_language_model(HollowGenerator(), short)
        with tally() as passed:
            language_model(params, np.zeros((1, tokens), int), short)
        passes.append(passed)
    one, two = passes
    return one + (two + one * -1) * (config.layers - 1)


def _join(config, sample, cells):
    """The parts that Flamingo adds: media through the resampler, and all tokens through each gated block."""
    params = init_flamingo(HollowGenerator(), config)
    with tally() as resampler:
        features = hollow((sample.media, sample.frames, cells, config.vision.width))
        visual = parts_of(config).resample(params, [features], config)
    h = hollow((1, sample.tokens, config.language.width))
    phi = 1 + np.arange(sample.tokens)[None] * sample.media // sample.tokens
    with tally() as gated:
        for i in config.gated_layers:
            gated_xattn_dense(params[f"xattn_{i}"], h, visual, phi, config.xattn)
    return {"resampler": resampler, "gated blocks": gated}


# ---------------------------------------------------------------- costs


def costs(name: str) -> dict:
    """Flops and bytes of a forward pass, flops of a training step and of a whole training, bytes in training.

    Bytes are those of float32 weights. In training a gradient and two moments of each trained part are added, once with
    the frozen parts of the preset and once with none. Activations are not counted.
    """
    config, _ = find_model(name)
    parts, passes = counts(name), forward(config)
    total = parts["total"]["parameters"]
    frozen = sum(row["parameters"] for row in parts.values() if row["state"] == "frozen")
    result = {
        "forward": {part: dataclasses.asdict(passed) for part, passed in passes.items()},
        "forward_flops": sum(passed.flops for passed in passes.values()),
        "forward_bytes": sum(passed.bytes for passed in passes.values()),
        "step_flops": step_flops(config, passes),
        "weight_bytes": 4 * total,
        "training_bytes": 4 * frozen + 16 * (total - frozen),
        "training_bytes_unfrozen": 16 * total,
    }
    if isinstance(config, FlamingoConfig):
        update = sum(n * step_flops(config, forward(config, sample)) for n, sample in BATCH)
        result["training_flops"] = UPDATES * update
        result["training"] = f"{UPDATES:,d} updates of the paper's batch"  # for our own presets too
    if isinstance(config, LanguageConfig):
        result["training_flops"] = TOKENS_PER_PARAMETER * total * result["step_flops"] // PAGE.tokens
        result["training"] = f"{TOKENS_PER_PARAMETER} tokens per parameter"
    return result


def step_flops(config: Any, passes: dict[str, Tally]) -> int:
    """Flops of a training step from those of the forward pass of each part."""
    frozen = FROZEN if isinstance(config, FlamingoConfig) else {}
    return sum(passed.flops * frozen.get(part, 3) for part, passed in passes.items())


def sizes(name: str, rate: float | None = None) -> dict:
    """The counts of a preset. With a rate, in flops per second, also its costs and the seconds that they take."""
    report = {"preset": name, "parts": counts(name)}
    if rate is None:
        return report
    cost = costs(name)
    seconds = {n.replace("flops", "seconds"): flops / rate for n, flops in cost.items() if n.endswith("flops")}
    return report | {"costs": cost | seconds | {"gflops": rate / 1e9}}


def format_sizes(report: dict) -> str:
    """The result of `sizes` as lines of text."""
    lines = []
    for part, row in report["parts"].items():
        printed = f"paper: {row['printed']}" if "printed" in row else ""
        lines.append(f"{part:16s} {row['parameters']:14,d}  {row['state']:8s} {printed}".rstrip())
    if "costs" in report:
        c = report["costs"]
        for part, row in c["forward"].items():
            lines.append(f"forward, {part:16s} {units(row['flops'], 'flop'):>12s}  {units(row['bytes'], 'B'):>10s}")
        lines.append(f"a forward pass:   {units(c['forward_flops'], 'flop')}, {duration(c['forward_seconds'])}")
        lines.append(f"a training step:  {units(c['step_flops'], 'flop')}, {duration(c['step_seconds'])}")
        if "training_flops" in c:
            training = f"{units(c['training_flops'], 'flop')}, {duration(c['training_seconds'])}"
            lines.append(f"a whole training: {training} ({c['training']})")
        lines.append(f"weights:          {units(c['weight_bytes'], 'B')}")
        memory = units(c["training_bytes"], "B"), units(c["training_bytes_unfrozen"], "B")
        lines.append(f"training holds:   {memory[0]}; with nothing frozen, {memory[1]}")
        lines.append(f"at {c['gflops']:.0f} GFLOP/s, measured on this machine; activations are not counted")
    return "\n".join(lines)


def units(value: float, unit: str) -> str:
    """A value with its unit: 1.23e12 with "flop" is "1.23 Tflop"."""
    power = min(max(len(f"{value:.0f}") - 1, 0) // 3, 7)
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z'][power]}{unit}"


def duration(seconds: float) -> str:
    """Seconds in a suitable unit."""
    table = ((86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "min"))
    size, name = next((row for row in table if seconds >= 2 * row[0]), (1, "s"))
    return f"{seconds / size:,.{'0f' if seconds >= 100 * size else '3g'}} {name}"
