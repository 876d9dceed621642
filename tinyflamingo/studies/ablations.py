"""Ablations of the paper at toy scale: rows of its tables 3 and 10, trained and scored (chapter §4).

Every row is a short run of stage three. It differs from the baseline in one field of a configuration or of a recipe,
and starts from the frozen parts of one checkpoint. All runs of a seed have the same pictures, the same random numbers
and the same queries, so the difference between a row and the baseline is computed for each seed. A finished run is
saved at once and never run again.

Not here: the other forms of the parts (`variants/`), the document with tables and figures (`report.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_scene
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import cider_d, exact_match, over_seeds
from tinyflamingo.evaluation.run import answer_all, text_perplexity
from tinyflamingo.evaluation.tasks import TASKS
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.language_model import init_language_model
from tinyflamingo.ops.team import keep_memory, one_team
from tinyflamingo.ops.tree import count, flatten
from tinyflamingo.ops.types import Params
from tinyflamingo.studies.ablation_rows import PAPER_BASELINE, Row, preset_of, rows_of, short
from tinyflamingo.studies.growing_report import growing, save_report
from tinyflamingo.training.contrastive_stage import ContrastiveStage, standardiser
from tinyflamingo.training.flamingo_stage import (
    FlamingoStage,
    MediaFeatures,
    draw_media,
    make_media,
)
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.stage import Stage, step_rng
from tinyflamingo.variants.registry import init_part, parts_of

STREAM = 20260202  # of the validation split: ablations serve choices, and the test split must not
STEPS, QUERIES = 200, 300
# The scores of a run: name -> (task of `evaluation/tasks.py`, metric with 1 as the best score).
SCORES = {
    "captions": ("caption_relation", lambda predictions, answers: cider_d(predictions, answers) / 10),
    "questions": ("vqa", exact_match),
    "videos": ("video_action", exact_match),
    "new words": ("few_shot_new_words", exact_match),
}


# ---------------------------------------------------------------- one run


def frozen_parts(row: Row, model: TrainedFlamingo, preset: Preset, seed: int, steps: int) -> Params:
    """The frozen parts of the checkpoint, except those that the row initialises or trains again."""
    frozen, rng = dict(model.frozen), step_rng(seed, 0, -1)
    if "language" in row.fresh:
        frozen["language"] = init_language_model(rng, preset.config.language)
    if "vision" in row.fresh:
        vision = init_part(rng, preset.config.vision)
        pictures = np.stack([draw_scene(rng, sample_scene(rng), preset.config.vision.side) for _ in range(256)])
        frozen |= {"vision": vision, **standardiser(vision, pictures, preset.config)}
    if row.short_encoder:
        recipe = dataclasses.replace(
            preset.contrastive, steps=steps, families=max(16, preset.contrastive.families // 4)
        )
        stage = ContrastiveStage(dataclasses.replace(preset, contrastive=recipe), rng, model.tokenizer, {})
        run_stage(stage, seed, 0)
        frozen |= stage.result()
    return frozen


def run_stage(stage: Stage, seed: int, index: int) -> tuple[float, int | None]:
    """Run all steps of a stage. Returns the last loss, and the step at which a gradient was not finite, or None."""
    with one_team():
        for step in range(stage.steps):
            rng = step_rng(seed, index, step)
            if step == 0:
                stage.prepare(rng)
            gradient, info = stage.gradient(rng, step)
            try:
                stage.optimiser.step(gradient, step, stage.steps)
            except FloatingPointError:
                return info["loss"], step
    return info["loss"], None


def run_row(row: Row, model: TrainedFlamingo, steps: int, seed: int, queries: int, media: tuple | None = None) -> dict:
    """Train and score one row with one seed. media: from `_media`, with the checkpoint's encoder; None: make them."""
    began = time.perf_counter()
    preset = short(preset_of(model), steps, row)
    frozen = frozen_parts(row, model, preset, seed, steps)
    if frozen["vision"] is not model.frozen["vision"] or "vision" in preset.flamingo.trained:
        media = None
    media = media or _media(preset, frozen, seed)
    stage = FlamingoStage(preset, step_rng(seed, 2, -1), model.tokenizer, frozen, media)
    training = time.perf_counter()
    loss, stopped = run_stage(stage, seed, 2)
    step_seconds = (time.perf_counter() - training) / stage.steps
    result = frozen | stage.result()
    params = result.pop("params")
    trained = TrainedFlamingo(preset.config, params, result, model.tokenizer, parts=parts_of(preset.config))
    try:
        scores = score(trained, seed, queries)
        perplexity = text_perplexity(trained, split_rng("validation", STREAM, seed, len(SCORES)))["flamingo"]
    except UserError:
        if stopped is None:
            raise
        scores, perplexity = dict.fromkeys((*SCORES, "overall"), 0.0), None  # it diverged, and has no answers
    return {
        "scores": scores,
        "queries": queries,
        "loss": float(loss),
        "stopped_at": stopped,
        "text_perplexity": perplexity,
        "trained_parameters": count(stage.optimiser.params),
        "step_seconds": round(step_seconds, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def score(model: TrainedFlamingo, seed: int, n: int) -> dict:
    """{name: 0 to 1} for every name in `SCORES`, and "overall", their mean, on validation pictures."""

    def run(name):
        task, metric = SCORES[name]
        rng = split_rng("validation", STREAM, seed, list(SCORES).index(name))
        pool, queries = TASKS[task](rng, n, side=model.config.vision.side)
        features = MediaFeatures(model.frozen, pool, model.config)
        return float(np.mean(metric(answer_all(model, queries, features), [(q.answer,) for q in queries])))

    scores = dict(zip(SCORES, ops.parallel_map(run, SCORES), strict=True))
    return scores | {"overall": float(np.mean(list(scores.values())))}


# ---------------------------------------------------------------- all of them


def ablate(
    model: TrainedFlamingo,
    path: Path,
    only: list | None = None,
    seeds: int = 3,
    steps: int = STEPS,
    queries: int = QUERIES,
    say: Callable = print,
) -> dict:
    """Run all rows, or those in `only` and the rows they are compared with, for seeds 0, 1, ...; write `path`.

    A run that `path` holds already is not run again. Raises `UserError` for a file of another model or of other
    settings, and for a model without a preset. Returns the report: {"format", "settings",
    "rows": {name: {"what", "paper", "against", "seeds": {seed: result of `run_row`}}}}.
    """
    settings = {"preset": preset_of(model).name, "frozen": fingerprint(model), "steps": steps, "queries": queries}
    rows = chosen_rows(model.config, only)
    keep_memory()
    with growing(path, "ablations", settings, rows={}) as report:
        say(f"{'row':18s} {'seed':>4s} " + " ".join(f"{name:>10s}" for name in (*SCORES, "overall")) + "    seconds")
        for seed in range(seeds):
            todo = {n: r for n, r in rows.items() if str(seed) not in report["rows"].get(n, {"seeds": {}})["seeds"]}
            media = _media(short(preset_of(model), steps, rows["baseline"]), model.frozen, seed) if todo else None
            for name, row in todo.items():
                result = run_row(row, model, steps, seed, queries, media)
                entry = {"what": row.what, "paper": row.paper, "against": row.against, "seeds": {}}
                report["rows"].setdefault(name, entry)["seeds"][str(seed)] = result
                save_report(path, report)
                scores = " ".join(f"{score:10.3f}" for score in result["scores"].values())
                say(f"{name:18s} {seed:4d} {scores} {result['seconds']:10.1f}")
    return report


def fingerprint(model: TrainedFlamingo) -> str:
    """A hash of the frozen parts: a report belongs to one checkpoint."""
    return hashlib.sha256(flatten(model.frozen).tobytes()).hexdigest()[:12]


def chosen_rows(config: FlamingoConfig, only: list | None) -> dict[str, Row]:
    """The rows in `only` and the rows they are compared with; all rows if `only` is empty."""
    rows = rows_of(config)
    wanted = set(only or rows) | {rows[name].against for name in only or ()}
    return {name: row for name, row in rows.items() if name in wanted}


def _media(preset, frozen, seed):
    """The media of a seed, the same for all rows, encoded with the row's encoder.

    They have a Generator of their own, so that the stage draws the same initial parameters in all rows.
    """
    pool = draw_media(step_rng(seed, 2, -1), preset.flamingo, preset.config.vision.side)
    return make_media(pool, preset.flamingo, frozen, preset.config)


def differences(report: dict) -> dict:
    """{row: {"score", "ci95", "n", "paper", "verdict"}}: overall score minus that of the row it is compared with.

    Over the seeds that both rows have. paper: the paper's difference, in its points. verdict: "undecided" if 0 is in
    the interval, else "agrees" or "disagrees", by the sign.
    """
    rows = {}
    for name, row in report["rows"].items():
        other = report["rows"].get(row["against"])
        if name == row["against"] or row["paper"] == PAPER_BASELINE or other is None:
            continue
        both = [s for s in row["seeds"] if s in other["seeds"]]
        if both:
            pairs = [[r["seeds"][s]["scores"]["overall"] for r in (row, other)] for s in both]
            difference = over_seeds([own - base for own, base in pairs])
            paper = round(row["paper"] - PAPER_BASELINE, 1)
            rows[name] = difference | {"paper": paper, "verdict": _verdict(difference, paper)}
    return rows


def _verdict(difference, paper):
    low, high = difference["ci95"] or (-np.inf, np.inf)
    if low <= 0 <= high:
        return "undecided"
    return "agrees" if (difference["score"] > 0) == (paper > 0) else "disagrees"


def format_report(report: dict) -> str:
    """The differences and the paper's as a table for people."""
    lines = [f"{'row':18s} difference   95% interval     paper  verdict"]
    for name, row in differences(report).items():
        low_high = "{:+.3f} to {:+.3f}".format(*row["ci95"]) if row["ci95"] else "one seed"
        lines.append(f"{name:18s} {row['score']:+10.3f}   {low_high:16s} {row['paper']:+6.1f}  {row['verdict']}")
    return "\n".join(lines)
