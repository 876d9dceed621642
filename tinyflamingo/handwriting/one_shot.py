"""Omniglot's one-shot classification, in context: 20 drawings with invented names, then one without a name.

Chapter §5; paper section 3.1 (close-ended tasks by likelihood) and appendix A.2 (ensembles over
permutations of the prompt). No weight changes: the prompt shows the 20 characters of a run with their
names, and the answer is the name with the largest likelihood. Scores are averaged over several prompts,
which differ in the order of the characters, in their names and in small shifts of the views.

Not here: the files (`omniglot.py`), drawings as pictures (`drawings.py`).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.language import ONSETS
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.few_shot import MEDIUM, normalised, rank, read_shots
from tinyflamingo.evaluation.metrics import interval
from tinyflamingo.files import write_atomically
from tinyflamingo.handwriting.drawings import draw_plain, episode_words, sheet
from tinyflamingo.handwriting.omniglot import Run, make_runs, pack_runs, read_background, read_runs
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media
from tinyflamingo.ops.team import keep_memory
from tinyflamingo.ops.types import Array
from tinyflamingo.training.presets import HandwritingRecipe
from tinyflamingo.training.run import Evaluate

STREAM = 20261202  # of the views and words of prompts; no other code uses the number
PROMPTS = 16  # prompts in the ensemble
VIEW_SHIFT, VIEW_ANGLE = 0.04, 0.06  # standard deviations of a prompt's view, in half sides and radians


def evaluate_runs(model: TrainedFlamingo, runs: list[Run], seed: int = 0) -> dict:
    """All runs -> {"tasks": {"omniglot": {"metric", "score", "ci95", "n", "runs"}}, "seconds"}.

    score: share of wrong answers over all queries; ci95: its Wilson interval.
    """
    for run in runs:
        if len(run.support) > len(ONSETS):
            raise UserError(f"run {run.name} has {len(run.support)} characters, but there are only {len(ONSETS)} names")
    keep_memory()
    began = time.perf_counter()

    def wrong(pair):
        number, run = pair
        guesses = answer_run(model, run, split_rng("test", STREAM, seed, number))
        return guesses != run.answers

    errors = ops.parallel_map(wrong, list(enumerate(runs)))
    rows = {run.name: round(float(np.mean(e)), 4) for run, e in zip(runs, errors, strict=True)}
    score, ci95 = interval(np.concatenate(errors))
    task = {"metric": "error rate", "score": score, "ci95": ci95, "n": sum(map(len, errors)), "runs": rows}
    return {"tasks": {"omniglot": task}, "seconds": round(time.perf_counter() - began, 1)}


def validator(recipe: HandwritingRecipe, data: str | Path, folder: str | Path) -> Evaluate:
    """The evaluation at the end of a training on handwriting.

    It makes one-shot runs of the held-out alphabets and writes them to `validation_runs.zip` in the
    folder of the training, in the official format. Without held-out alphabets, the report is empty.
    """

    def validate(model, n, seed):
        held_out = [c for c in read_background(data) if c.alphabet in recipe.held_out]
        if not held_out:
            return {"tasks": {}}
        path = Path(folder) / "validation_runs.zip"
        write_atomically(path, pack_runs(make_runs(split_rng("validation", seed), held_out, -(-n // len(ONSETS)))))
        return evaluate_runs(model, read_runs(path), seed)

    return validate


def answer_run(model: TrainedFlamingo, run: Run, rng: np.random.Generator, prompts: int = PROMPTS) -> np.ndarray:
    """The answers of the model: for each query the number of a character of the support, (Q,) int."""
    scores: Array = sum(label_scores(model, run, rng) for _ in range(prompts))
    return scores.argmax(axis=1)


def label_scores(model: TrainedFlamingo, run: Run, rng: np.random.Generator) -> np.ndarray:
    """Log-likelihood (Q, W) of every character's name after one prompt, normalised over the names."""
    W = len(run.support)
    order, words = rng.permutation(W), episode_words(rng, W)
    shift, angle = rng.normal(0, VIEW_SHIFT, 2), rng.normal(0, VIEW_ANGLE)
    page = sheet(np.concatenate([run.support[order], run.queries]))
    pictures = draw_plain(page, np.arange(len(page.ink)), model.config.vision.side, shift=shift, angle=angle)
    features = encode_media(model.frozen, pictures[:, None], model.config, model.parts)
    visual = model.parts.resample(model.params, [features], model.config)
    scores = np.empty((len(run.queries), W))
    scores[:, order] = word_scores(model, visual, words)
    return normalised(scores)


def word_scores(model: TrainedFlamingo, visual: np.ndarray, words: list[str]) -> np.ndarray:
    """Log-likelihood (Q, W) of each word and `<EOC>` after the support, its words, and each query's picture.

    visual (W + Q, R, D): the support's tokens, then those of the queries.
    """
    W, Q = len(words), len(visual) - len(words)
    cache, next_token = read_shots(model, [item for word in words for item in (MEDIUM, word)], visual)
    seen = [W + 1 + q for q in range(Q)]
    return np.array(rank(model, [[MEDIUM]] * Q, [words] * Q, seen, cache, visual, next_token))
