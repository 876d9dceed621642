"""What a model of any size holds and costs, from the shapes of its arrays alone.

Counts, flops, bytes and memory come from the model's own code, run on hollow arrays
(`ops/hollow.py`); only the rate that turns flops into seconds is measured. Flops are those of
matrix products (convolutions among them), a multiplication and an addition two; attention is
counted as it is defined, every query with every key and every medium.

Not here: the configurations (`variants/paper.py`, `training/presets.py`) and measured times (`bench/run.py`).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import FlamingoConfig, LanguageConfig
from tinyflamingo.model.flamingo import CHAPTER
from tinyflamingo.model.gated_xattn import gated_xattn_dense
from tinyflamingo.model.language_model import init_language_model, language_model
from tinyflamingo.ops.hollow import HollowGenerator, hollow, tally
from tinyflamingo.ops.tree import count
from tinyflamingo.training.presets import PRESETS, parameter_counts
from tinyflamingo.variants.paper import A9, CLASSES, CLIP_JOINT, PAPER
from tinyflamingo.variants.registry import OTHER, init_flamingo, init_part, parts_of


@dataclass(frozen=True)
class Sample:
    """What stands in one row of a batch."""

    tokens: int
    media: int
    frames: int = 1


PAGE = Sample(256, 5)  # of the web, as the paper cuts them (appendix A.3.1)
# One update of the paper's ablations (appendix B.3.1): pages, pairs of two data sets, videos. Their
# texts have 32 or 64 tokens (first version, section 3.2); 64 are counted.
BATCH = ((256, PAGE), (512, Sample(64, 1)), (512, Sample(64, 1)), (64, Sample(64, 1, 8)))
UPDATES = 250_000
TOKENS_A_PARAMETER = 20  # that a language model trains on, Chinchilla's rule
# A training step over a forward pass: what trains has two more products for each, what is frozen but
# lets the gradient pass has one more, and what comes before anything trained has none.
FROZEN = {"vision encoder": 1, "language model": 2}


def find_model(name):
    """(configuration, {part: figure in the paper}) of a preset, ours or the paper's."""
    if name in PRESETS:
        return PRESETS[name].config, {}
    if name in PAPER:
        return PAPER[name].config, PAPER[name].printed
    rows = list(A9)
    names = [*sorted(PRESETS), *(n for n in PAPER if n not in A9), f"{rows[0]} ... {rows[-1]} (table A9)"]
    raise UserError(f"unknown preset {name!r}: choose one of {', '.join(names)}")


def counts(name) -> dict:
    """{part: {"parameters", "state", "printed"}} of a preset; "printed" where its paper prints a figure."""
    config, printed = find_model(name)
    if isinstance(config, FlamingoConfig):
        parts = parameter_counts(config)
        if name in PAPER:
            del parts["text tower"]  # the paper does not tell its size
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


def forward(config, sample=PAGE) -> dict:
    """{part: Tally} of a forward pass: one picture; the sample's tokens; or all of a sample, by `config`'s kind."""
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
    """One picture through an encoder: (features it becomes, Tally)."""
    params = init_part(HollowGenerator(), config)
    encode = CHAPTER._replace(**OTHER[type(config)](config) if type(config) in OTHER else {}).encode
    with tally() as passed:
        features, _ = encode(params, hollow((1, config.side, config.side, 3)), config)
    return features.shape[1], passed


def _read(config, tokens):
    """Tokens through a language model. Its blocks are alike: the second tells what each further one costs."""
    found = []
    for layers in (1, 2):
        short = dataclasses.replace(config, layers=layers)
        params = init_language_model(HollowGenerator(), short)
        with tally() as passed:
            language_model(params, np.zeros((1, tokens), int), short)
        found.append(passed)
    one, two = found
    return one + (two + one * -1) * (config.layers - 1)


def _join(config, sample, cells):
    """What Flamingo adds: media through the resampler, and every token looking at one through each gated block."""
    params = init_flamingo(HollowGenerator(), config)
    with tally() as resampler:
        features = hollow((sample.media, sample.frames, cells, config.vision.width))
        visual = parts_of(config).resample(params, [features], config)
    h = hollow((1, sample.tokens, config.language.width))
    numbers = 1 + np.arange(sample.tokens)[None] * sample.media // sample.tokens
    with tally() as gated:
        for i in config.gated_layers:
            gated_xattn_dense(params[f"xattn_{i}"], h, visual, numbers, config.xattn)
    return {"resampler": resampler, "gated blocks": gated}


# ---------------------------------------------------------------- costs


def costs(name) -> dict:
    """Flops and bytes of a forward pass, flops of a training step and of a training, bytes that training holds.

    Memory is that of float32: weights alone; in training also a gradient and two moments of what
    trains, with the parts frozen that the preset freezes and with none. Activations are not in it.
    """
    config, _ = find_model(name)
    parts, passes = counts(name), forward(config)
    total = parts["total"]["parameters"]
    frozen = sum(row["parameters"] for row in parts.values() if row["state"] == "frozen")
    found = {
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
        found["training_flops"] = UPDATES * update
        found["training"] = f"{UPDATES:,d} updates of the paper's batch"  # whatever the preset's own training is
    if isinstance(config, LanguageConfig):
        found["training_flops"] = TOKENS_A_PARAMETER * total * found["step_flops"] // PAGE.tokens
        found["training"] = f"{TOKENS_A_PARAMETER} tokens a parameter"
    return found


def step_flops(config, passes) -> int:
    """Flops of a training step from those of its forward pass, part by part."""
    frozen = FROZEN if isinstance(config, FlamingoConfig) else {}
    return sum(passed.flops * frozen.get(part, 3) for part, passed in passes.items())


def sizes(name, rate=None) -> dict:
    """All of a preset: counts, and with a rate in flops a second also costs and seconds."""
    found = {"preset": name, "parts": counts(name)}
    if rate is None:
        return found
    cost = costs(name)
    seconds = {n.replace("flops", "seconds"): flops / rate for n, flops in cost.items() if n.endswith("flops")}
    return found | {"costs": cost | seconds | {"gflops": rate / 1e9}}


def format_sizes(found) -> str:
    """What `sizes` found, as lines."""
    lines = []
    for part, row in found["parts"].items():
        printed = f"paper: {row['printed']}" if "printed" in row else ""
        lines.append(f"{part:16s} {row['parameters']:14,d}  {row['state']:8s} {printed}".rstrip())
    if "costs" in found:
        c = found["costs"]
        for part, row in c["forward"].items():
            lines.append(f"forward, {part:16s} {units(row['flops'], 'flop'):>12s}  {units(row['bytes'], 'B'):>10s}")
        lines.append(f"a forward pass:   {units(c['forward_flops'], 'flop')}, {duration(c['forward_seconds'])}")
        lines.append(f"a training step:  {units(c['step_flops'], 'flop')}, {duration(c['step_seconds'])}")
        if "training_flops" in c:
            told = f"{units(c['training_flops'], 'flop')}, {duration(c['training_seconds'])}"
            lines.append(f"a whole training: {told} ({c['training']})")
        lines.append(f"weights:          {units(c['weight_bytes'], 'B')}")
        memory = units(c["training_bytes"], "B"), units(c["training_bytes_unfrozen"], "B")
        lines.append(f"training holds:   {memory[0]}; were nothing frozen, {memory[1]}")
        lines.append(f"at {c['gflops']:.0f} GFLOP/s, measured here; activations are not counted")
    return "\n".join(lines)


def units(value, unit) -> str:
    """1.23e12 of "flop" as "1.23 Tflop"."""
    power = min(max(len(f"{value:.0f}") - 1, 0) // 3, 7)
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z'][power]}{unit}"


def duration(seconds) -> str:
    """Seconds in the unit that fits."""
    for size, name in ((86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "min"), (1, "s")):
        if seconds >= 2 * size or name == "s":
            return f"{seconds / size:,.{'0f' if seconds >= 100 * size else '3g'}} {name}"
