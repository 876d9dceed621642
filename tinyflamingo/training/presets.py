"""Presets: the sizes of a model, and the recipes of its three stages.

Serves chapter §1, §2 and §4. `toy` is the main job; `no-tasks` leaves out a part of its documents, for comparison;
`quick` learns less, in about two minutes; `smoke` runs all stages in seconds, for tests. `omniglot...` and
`emoji...` learn from archives that the user gives.

Not here: the configuration of the model's parts (`model/config.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tinyflamingo.errors import UserError
from tinyflamingo.model.config import (
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    TextTowerConfig,
    VisionConfig,
)
from tinyflamingo.ops.hollow import HollowGenerator
from tinyflamingo.ops.tree import count
from tinyflamingo.training.optimiser import OptimiserConfig
from tinyflamingo.variants.registry import untrained


@dataclass(frozen=True)
class ContrastiveRecipe:
    """Stage one (chapter §2)."""

    steps: int = 750
    batch: int = 128
    families: int = 8000  # groups of four pictures: one, and three in which one property is drawn again
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=5e-3, weight_decay=0.02, agc=0.08, warmup=80)


@dataclass(frozen=True)
class LanguageRecipe:
    """Stage two (chapter §4)."""

    steps: int = 2200
    rows: int = 16
    length: int = 96  # tokens in a row
    long_from: int = 750  # from this step on, some steps have fewer and longer rows: binding over long distances
    long_every: int = 2  # every step with this period is long
    longer: int = 4  # factor on the length of long rows
    repeat_lengths: tuple = (16, 64)  # random repeats have at least the first and fewer than the second, in tokens
    # The curriculum, in phases: (first step after the phase, share of random repeats, of few-shot episodes, of tasks
    # explained only by examples). First copying, then binding, then facts; all other documents are ordinary ones.
    phases: tuple = ((350, 0.80, 0.12, 0.0), (750, 0.10, 0.36, 0.22), (math.inf, 0.04, 0.24, 0.32))
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=4e-3, warmup=100)


@dataclass(frozen=True)
class Dataset:
    """One data set of stage three."""

    name: str
    rows: int  # documents in a batch
    length: int  # most tokens of a document
    weight: float  # lambda of its mean loss (paper, equation 2)


@dataclass(frozen=True)
class FlamingoRecipe:
    """Stage three (chapter §1 and §4)."""

    steps: int = 1300
    datasets: tuple = (Dataset("pages", 18, 96, 1.0), Dataset("pairs", 16, 20, 0.4), Dataset("videos", 8, 40, 0.4))
    long_every: int = 4  # every step with this period has fewer and longer pages: prompts of 32 shots are long
    longer: int = 6  # factor on the length of long pages
    tasks: float = 0.32  # share of the pages that have tasks explained only by examples
    mixture: tuple = ()  # (kind of page, its share), ...; (): the shares of `data/tinyworld/pages.py`
    accumulate: bool = True  # False: round-robin, one data set in each step (the paper's ablation)
    p_next: float = 0.5  # share of web pages read in "next" mode
    trained: tuple = ()  # parts to train too, "vision" or "language" (the paper freezes both, except in an ablation)
    feature_noise: float = 0.2  # standard deviation of the noise; that of the features is 1
    gate_batches: int = 16  # batches over which the gates' first gradient is averaged
    gate_push: float = 0.5  # size of the first move of every gate, against the sign of that gradient
    singles: int = 6000  # pictures and clips of each kind in the pool
    uncoloured: int = 4000
    pairs: int = 16000
    counts: int = 3000
    clips: int = 2000
    wild: int = 4608
    digits: int = 1600
    sums: int = 3000
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=3e-3, weight_decay=0.1, warmup=30)


@dataclass(frozen=True)
class HandwritingRecipe:
    """For presets that learn from Omniglot's drawings instead of TinyWorld's pictures (docs/omniglot.md)."""

    held_out: tuple = ()  # alphabets for validation, which no stage sees
    ways: tuple = (5, 20)  # fewest and most classes in an episode
    queries: int = 12  # queries in an episode
    mixed: float = 0.3  # share of episodes with classes of all alphabets and turns, instead of one alphabet in one turn


@dataclass(frozen=True)
class EmojiRecipe:
    """For presets that learn from emoji beside TinyWorld, and go on from the shipped checkpoint (docs/emoji.md)."""

    language: str = "en"  # of the names: "en" or "zh"
    concepts: int = 64  # concepts in a batch of stage one, each drawn by two artists
    captions: float = 0.5  # weight of the loss between pictures and captions, beside that between drawings
    keep: float = 18.0  # weight of the loss that keeps the features of TinyWorld's pictures
    texts: float = 0.3  # share of the documents of stage two that are names of emoji
    views: int = 6  # changed copies of every drawing in the pool of stage three
    ways: tuple = (2, 10)  # fewest and most concepts in an episode
    shots: tuple = (1, 3)  # fewest and most examples of each concept
    queries: int = 6  # queries in an episode
    moved: float = 0.85  # share of the way from the parameters of the start to the trained ones


@dataclass(frozen=True)
class Preset:
    """The configuration of a model, and the recipes of its stages."""

    name: str
    config: FlamingoConfig = field(default_factory=FlamingoConfig)
    contrastive: ContrastiveRecipe = ContrastiveRecipe()
    language: LanguageRecipe = LanguageRecipe()
    flamingo: FlamingoRecipe = FlamingoRecipe()
    test_queries: int = 500  # queries for each task in the evaluation at the end of `train`
    save_every: int = 200  # steps between checkpoints
    pace: tuple = ()  # length of a mean step of each stage, that of stage one is 1; for the forecast of `train`
    handwriting: HandwritingRecipe | None = None  # None: no drawings of Omniglot
    emoji: EmojiRecipe | None = None  # None: no emoji

    @property
    def reads_archives(self) -> bool:
        """Whether --data has to name a folder of files that this preset knows."""
        return bool(self.handwriting or self.emoji)


def _smoke() -> Preset:
    config = FlamingoConfig(
        vision=VisionConfig(stem=((8, 2), (16, 1)), stages=((16, 1, 1), (24, 1, 2), (32, 1, 2)), width=32),
        text_tower=TextTowerConfig(width=32, layers=1, joint_width=16),
        resampler=ResamplerConfig(input_width=32, width=32, layers=1, heads=2, key_size=16, latents=4),
        language=LanguageConfig(width=32, layers=2, heads=2, key_size=16),
    )
    return Preset(
        "smoke",
        config,
        ContrastiveRecipe(steps=6, batch=16, families=16),
        LanguageRecipe(  # two long rows in a step: one for each of two ranks
            steps=8, rows=4, length=48, long_from=4, longer=2, phases=((3, 0.8, 0.12, 0.0), (math.inf, 0.1, 0.4, 0.2))
        ),
        FlamingoRecipe(
            steps=6,
            datasets=(Dataset("pages", 2, 96, 1.0), Dataset("pairs", 4, 20, 0.4), Dataset("videos", 2, 40, 0.4)),
            gate_batches=2,
            singles=96,
            uncoloured=12,
            pairs=12,
            counts=12,
            clips=6,
            wild=384,
            digits=80,
            sums=12,
        ),
        test_queries=8,
        save_every=2,
    )


def _quick() -> Preset:
    return Preset(
        "quick",
        contrastive=ContrastiveRecipe(
            steps=320,
            families=2500,
            optimiser=OptimiserConfig(learning_rate=6e-3, weight_decay=0.02, agc=0.08, warmup=30),
        ),
        language=LanguageRecipe(
            steps=760,
            rows=8,  # copying is learned after 300 to 400 steps, with few rows too
            longer=1,
            phases=((400, 0.8, 0.2, 0.0), (math.inf, 0.05, 0.5, 0.0)),
            optimiser=OptimiserConfig(learning_rate=4e-3, warmup=40),
        ),
        flamingo=FlamingoRecipe(
            steps=300,
            datasets=(Dataset("pages", 12, 96, 1.0), Dataset("pairs", 16, 20, 0.4), Dataset("videos", 1, 40, 0.1)),
            longer=1,
            tasks=0.0,
            mixture=(("album", 0.4), ("episodes", 0.55), ("web_page", 0.05)),
            gate_batches=4,
            singles=2500,
            uncoloured=600,
            pairs=300,
            counts=300,
            clips=150,
            wild=1152,
            digits=80,
            sums=100,
        ),
        test_queries=100,
    )


def _omniglot(name, held_out=()) -> Preset:
    return Preset(
        name,
        FlamingoConfig(text_tower=TextTowerConfig(width=16, layers=1), resampler=ResamplerConfig(layers=1)),
        ContrastiveRecipe(steps=2800, optimiser=OptimiserConfig(agc=0.08, warmup=40)),
        flamingo=FlamingoRecipe(steps=1000, datasets=(Dataset("pages", 16, 264, 1.0),), longer=1, gate_batches=8),
        handwriting=HandwritingRecipe(held_out),
        test_queries=400,
    )


def _emoji(name, language="en") -> Preset:
    return Preset(
        name,
        contrastive=ContrastiveRecipe(
            steps=1000,
            batch=56,  # pictures of TinyWorld, beside the emoji
            families=2500,
            optimiser=OptimiserConfig(learning_rate=4e-3, weight_decay=0.02, agc=0.08, warmup=30),
        ),
        language=LanguageRecipe(
            steps=150,
            long_from=0,
            phases=((math.inf, 0.04, 0.24, 0.32),),
            optimiser=OptimiserConfig(learning_rate=1e-4, warmup=20),
        ),
        flamingo=FlamingoRecipe(
            steps=1700,
            datasets=(
                Dataset("emoji episodes", 18, 192, 1.0),
                Dataset("emoji names", 8, 64, 0.2),
                Dataset("pages", 12, 96, 1.0),
                Dataset("pairs", 10, 20, 0.4),
                Dataset("videos", 4, 40, 0.4),
            ),
            longer=3,
            feature_noise=0.3,
            singles=2000,
            uncoloured=1300,
            pairs=5000,
            counts=1000,
            clips=600,
            wild=2304,
            digits=700,
            sums=1000,
            optimiser=OptimiserConfig(learning_rate=3e-3, weight_decay=0.1, warmup=30),
        ),
        emoji=EmojiRecipe(language),
        save_every=50,
    )


def _no_tasks() -> Preset:
    """The toy without tasks explained only by examples: other documents take their place."""
    phases = tuple((until, repeats, episodes, 0.0) for until, repeats, episodes, _ in LanguageRecipe().phases)
    return Preset("no-tasks", language=LanguageRecipe(phases=phases), flamingo=FlamingoRecipe(tasks=0.0))


PRESETS = {
    "toy": Preset("toy", pace=(1, 0.75, 1.9)),  # measured with two workers
    "no-tasks": _no_tasks(),
    "quick": _quick(),
    "smoke": _smoke(),
    "omniglot": _omniglot("omniglot"),
    "emoji": _emoji("emoji"),
    "emoji-zh": _emoji("emoji-zh", "zh"),
    "omniglot-validation": _omniglot("omniglot-validation", ("Early_Aramaic", "Sanskrit")),
}


def get_preset(name: str) -> Preset:
    """A preset by name. An unknown name raises a `UserError` that lists all names."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]


def parameter_counts(config: FlamingoConfig) -> dict:
    """{part: {"parameters": number, "state": text}} of a configuration. `total` does not count the text tower."""
    model = untrained(HollowGenerator(), config, None)
    gated = [name for name in model.params if name.startswith(("xattn_", "w_visual"))]
    counts = {
        "vision encoder": (count(model.frozen["vision"]), "frozen"),
        "language model": (count(model.frozen["language"]), "frozen"),
        "resampler": (count(model.params["resampler"]), "trained"),
        "gated blocks": (count({name: model.params[name] for name in gated}), "trained"),
        "<EOC>": (model.params["eoc"].size, "trained"),
    }
    counts["total"] = (sum(n for n, _ in counts.values()), "")
    counts["text tower"] = (count(model.frozen["contrastive"]), "kept for zero-shot classification")
    return {name: {"parameters": int(n), "state": state} for name, (n, state) in counts.items()}
