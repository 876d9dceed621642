"""Chinchilla's question at toy scale: the best size and number of tokens for a given compute (chapter §4).

IsoFLOP curves as in Hoffmann et al. 2022 (approach 2). For each budget C, models of several sizes N are trained. Each
reads D = C / 6N tokens and has a schedule of its own length. A parabola in log N through the lowest losses has its
minimum at the best size. N counts all weights, with the tied embedding table.

Not here: the language model (`model/language_model.py`) and its training (`training/language_stage.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.evaluation.metrics import checked
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.language_model import language_model
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.ops.tree import count
from tinyflamingo.studies.growing_report import growing, save_report
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.losses import shares_of, token_losses
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.stage import step_rng

BUDGETS = (1e11, 2e11, 4e11, 8e11)  # flops
SIZES = ((12, 1), (16, 1), (24, 2), (32, 2), (48, 3), (64, 3), (96, 4), (128, 4))  # (width, layers)
ROWS = 8  # of 96 tokens, in each step
AROUND = 5  # sizes through which the parabola goes: the best one and its neighbours
MIXTURE = ((math.inf, 0.08, 0.25, 0.0),)  # one phase, as the last one of the curriculum
NEVER = 2**62  # a step that no training reaches
TEST_BATCHES = 24


def isoflop(
    tokenizer: Tokenizer,
    path: Path,
    seed: int = 0,
    budgets: tuple = BUDGETS,
    sizes: tuple = SIZES,
    say: Callable = print,
) -> dict:
    """Train all sizes at all budgets; `path` holds the report after each round of points.

    Returns {"format", "settings", "points": [{"budget", "width", "layers", "parameters", "tokens",
    "loss"}], "fits": see `fit`, "exponents": see `exponents`}.
    """
    with growing(path, "isoflop", {"seed": seed, "budgets": budgets, "sizes": sizes}, points=[]) as report:
        done = {(p["budget"], p["width"], p["layers"]) for p in report["points"]}
        todo = [(c, *size) for c in budgets for size in sizes if (c, *size) not in done]
        for i in range(0, len(todo), ops.workers()):
            jobs = todo[i : i + ops.workers()]
            points = ops.parallel_map(lambda job: train_point(tokenizer, seed, *job), jobs)
            report["points"] += points
            save_report(path, report)
            for p in points:
                size = f"{p['parameters']:9,d} parameters, {p['tokens']:9,d} tokens"
                say(f"{p['budget']:.1e} flops, {size}: {p['loss']:.4f}")
        report["fits"] = [fit(budget, [p for p in report["points"] if p["budget"] == budget]) for budget in budgets]
        report["exponents"] = exponents(report["fits"])
        save_report(path, report)
    return report


def train_point(tokenizer: Tokenizer, seed: int, budget: float, width: int, layers: int) -> dict:
    """Train one model on as many tokens as the budget allows; its size, tokens and validation loss."""
    stage = stage_of(tokenizer, width, layers, seed)
    N = count(stage.optimiser.params)
    steps = max(1, round(budget / (6 * N * ROWS * stage.recipe.length)))
    warmup = max(1, min(50, steps // 5))
    stage.optimiser.config = dataclasses.replace(stage.optimiser.config, warmup=warmup)
    for step in range(steps):
        gradient, _ = stage.gradient(step_rng(seed, 1, step), step)
        stage.optimiser.step(gradient, step, steps)
    loss = validation_loss(stage)
    tokens = steps * ROWS * stage.recipe.length
    return {"budget": budget, "width": width, "layers": layers, "parameters": N, "tokens": tokens, "loss": loss}


def stage_of(tokenizer: Tokenizer, width: int, layers: int, seed: int) -> LanguageStage:
    """Stage two for a model of another size. The learning rate is proportional to 1 / sqrt(width)."""
    preset = get_preset("toy")
    language = LanguageConfig(preset.config.language.vocab_size, width, layers, max(1, width // 16), 16)
    optimiser = dataclasses.replace(preset.language.optimiser, learning_rate=0.02 * width**-0.5)
    recipe = dataclasses.replace(preset.language, rows=ROWS, long_from=NEVER, phases=MIXTURE, optimiser=optimiser)
    config = dataclasses.replace(preset.config, language=language)
    return LanguageStage(
        dataclasses.replace(preset, config=config, language=recipe), step_rng(seed, 1, -1), tokenizer, {}
    )


def validation_loss(stage: LanguageStage) -> float:
    """Mean loss on text of the validation split."""
    rng, losses = split_rng("validation", 0), []
    for _ in range(TEST_BATCHES):
        tokens, weights, visible_from = stage.batch(rng, 0)
        logits = language_model(stage.optimiser.params, tokens[:, :-1], stage.config, visible_from[:, :-1])
        losses.append(np.sum(token_losses(logits, tokens[:, 1:]) * shares_of(weights[:, 1:])))
    return float(checked(np.mean(losses)))


def fit(budget: float, points: list) -> dict:
    """The parabola in log N through the lowest losses of one budget, and its minimum.

    It goes through the best size and its neighbours: far from the minimum the losses are no parabola. Returns
    {"budget", "parameters", "tokens", "loss", "coefficients", "between", "inside"}. between: the smallest and the
    largest of these sizes; inside: True if the parabola opens upwards with its minimum between them. Else the result is
    one of these sizes.
    """
    points = sorted(points, key=lambda p: p["parameters"])
    best = min(range(len(points)), key=lambda i: points[i]["loss"])
    first = max(0, min(best - AROUND // 2, len(points) - AROUND))
    points = points[first : first + AROUND]
    x, y = np.log([p["parameters"] for p in points]), np.array([p["loss"] for p in points])
    a, b, c = np.polyfit(x, y, 2)
    lowest = -b / (2 * a) if a > 0 else x[y.argmin()]
    inside = bool(a > 0 and x.min() <= lowest <= x.max())
    lowest = float(np.clip(lowest, x.min(), x.max()))
    N = math.exp(lowest)
    return {
        "budget": budget,
        "parameters": N,
        "tokens": budget / (6 * N),
        "loss": float(np.polyval((a, b, c), lowest)),
        "coefficients": [float(a), float(b), float(c)],
        "between": [points[0]["parameters"], points[-1]["parameters"]],
        "inside": inside,
    }


def exponents(fits: list) -> dict | None:
    """{"parameters": a, "tokens": b}: the best size grows as C^a, the best number of tokens as C^b.

    From the budgets whose best size lies between tried sizes; None if there are fewer than two.
    """
    fits = [f for f in fits if f["inside"]]
    if len(fits) < 2:
        return None
    x = np.log([f["budget"] for f in fits])
    slopes = {name: np.polyfit(x, np.log([f[name] for f in fits]), 1)[0] for name in ("parameters", "tokens")}
    return {name: float(slope) for name, slope in slopes.items()}
