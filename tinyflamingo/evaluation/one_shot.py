"""Omniglot's one-shot classification, in context: 20 drawings with invented names, then one without.

Chapter §5; paper section 3.1 (close-ended tasks by likelihood) and appendix A.2 (ensembles over
permutations of the prompt). No weight changes: a run's 20 characters are told to the model in its
prompt, and of their names the likeliest one is its answer. An answer is the mean over several
prompts, which differ in the order of the characters, in their names and in small shifts of the views.

Not here: the files (`data/omniglot.py`), drawings as pictures (`data/handwriting.py`).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.handwriting import draw_plain, episode_words, sheet
from tinyflamingo.data.items import EOC
from tinyflamingo.data.omniglot import make_runs, pack_runs, read_background, read_runs
from tinyflamingo.data.tinyworld.language import ONSETS
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.run import interval
from tinyflamingo.files import write_atomically
from tinyflamingo.model.flamingo import encode_media, flamingo, see
from tinyflamingo.model.generate import init_caches, log_softmax
from tinyflamingo.model.interleave import encode_document

PROMPTS = 16  # in the ensemble
VIEW_SHIFT, VIEW_ANGLE = 0.04, 0.06  # spread of a prompt's views, in half sides and radians


def evaluate_runs(model, runs, seed=0, prompts=None):
    """All runs -> {"tasks": {"omniglot": {"metric", "score", "ci95", "n", "runs"}}, "seconds"}.

    score: share of wrong answers over all queries; ci95: its Wilson interval.
    """
    large = [run.name for run in runs if len(run.support) > len(ONSETS)]
    if large:
        raise UserError(f"run {large[0]} has more than {len(ONSETS)} characters; there are no more names for them")
    began = time.perf_counter()

    def wrong(pair):
        number, run = pair
        guesses = answer_run(model, run, np.random.default_rng([seed, number]), prompts or PROMPTS)
        return guesses != run.answers

    errors = ops.share_out(wrong, list(enumerate(runs)))
    rows = {run.name: round(float(np.mean(e)), 4) for run, e in zip(runs, errors, strict=True)}
    score, ci95 = interval(np.concatenate(errors))
    task = {"metric": "error rate", "score": score, "ci95": ci95, "n": sum(map(len, errors)), "runs": rows}
    return {"tasks": {"omniglot": task}, "seconds": round(time.perf_counter() - began, 1)}


def validator(recipe, data, folder):
    """The evaluation that ends a training on handwriting: a function (model, queries, seed) -> report.

    It makes runs of the alphabets that were held out and writes them to `validation_runs.zip` in the
    run's folder, in the official format; without such alphabets there is nothing to report.
    """

    def validate(model, n, seed):
        held_out = [c for c in read_background(data) if c.alphabet in recipe.held_out]
        if not held_out:
            return {"tasks": {}}
        path = Path(folder) / "validation_runs.zip"
        write_atomically(path, pack_runs(make_runs(split_rng("validation", seed), held_out, -(-n // len(ONSETS)))))
        return evaluate_runs(model, read_runs(path), seed)

    return validate


def answer_run(model, run, rng, prompts=PROMPTS):
    """Which character of the support each query shows: (Q,) int."""
    return sum(label_scores(model, run, rng) for _ in range(prompts)).argmax(axis=1)


def label_scores(model, run, rng):
    """Log-likelihood (Q, W) of every character's name after one prompt, normalised over the names."""
    W = len(run.support)
    order, words = rng.permutation(W), episode_words(rng, W)
    shift, angle = rng.normal(0, VIEW_SHIFT, 2), rng.normal(0, VIEW_ANGLE)
    page = sheet(np.concatenate([run.support[order], run.queries]))
    pictures = draw_plain(page, np.arange(len(page.ink)), model.config.vision.side, shift=shift, angle=angle)
    visual = see(model.params, encode_media(model.frozen, pictures[:, None], model.config), model.config)
    scores = np.empty((len(run.queries), W))
    scores[:, order] = word_scores(model, visual, words)
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def word_scores(model, visual, words):
    """Log-likelihood (Q, W) of each word after the support, its words, and each query's picture.

    The support is read once; every query goes on from a copy of its cache, and every word from there.
    """
    W, Q = len(words), len(visual) - len(words)
    items = [item for i, word in enumerate(words) for item in (i, word)]
    support = encode_document([*items, EOC], model.tokenizer, complete=False)
    image = encode_document([None], model.tokenizer, complete=False).tokens[1:]
    labels = np.array([model.tokenizer.encode(word) for word in words])
    T = len(support.tokens) + len(image) + labels.shape[1]
    cache = init_caches(model.params, model.config, 1, T, visual)
    tokens = np.array([support.tokens])
    phi = np.cumsum(tokens == image[-1], axis=1)
    _step(model, tokens, phi, visual, cache)
    log_probs = np.empty((Q, W))
    tails = np.concatenate([np.tile(image, (W, 1)), labels], axis=1)
    for q in range(Q):
        mine = _copied(cache, W)
        logits = _step(model, tails[:, :-1], np.full((W, tails.shape[1] - 1), W + q + 1), visual, mine)
        scores = log_softmax(logits[:, len(image) - 1 :])
        log_probs[q] = np.take_along_axis(scores, labels[:, :, None], axis=-1).sum(axis=(1, 2))
    return log_probs


def _step(model, tokens, phi, visual, cache):
    """Logits of tokens that continue a cache."""
    return flamingo(model.params, model.frozen, tokens, phi, visual, model.config, cache=cache, first=np.ones_like(phi))


def _copied(cache, rows):
    """The cache of one row, for several rows that go on from it."""
    copied = dict(cache)
    for name, block in cache.items():
        if name.startswith("block_"):
            copied[name] = {key: np.repeat(block[key], rows, axis=0) for key in ("k", "v")}
    return copied
