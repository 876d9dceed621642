"""Specialists: models trained for one task alone, on the examples that a prompt shows (chapter §5).

The paper compares few-shot Flamingo with models fine-tuned for each task (table 1). Here are three models that get the
same examples through the same encoder: nearest class means; logistic regression; encoder and head trained together on
the shots (`finetuned`). A fourth one, `whole`, is the third one on a whole training set.

Answers are texts. Class means know whole answers; the others learn the word in each slot of an answer (`slots.py`).

Not here: the tasks (`suite.py`), and their metrics (`metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.evaluation.retrieval import pooled
from tinyflamingo.evaluation.slots import Answers, Slots, best, log_softmax, question_words
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.shards import cut_rows, summed_gradient

MEANS = 6.0  # scale of a feature's mean over cells beside its values: the mean varies less


@dataclass(frozen=True)
class Recipe:
    """How encoder and head are trained: first the head on frozen features, then both."""

    head_steps: int = 200
    batch: int = 32
    frames: int = 1600  # pictures, or frames of videos, that the encoder reads in the second part
    hidden: int = 256
    cell: int = 24  # width to which the features of each cell are projected
    noise: float = 1.0  # standard deviation, on features whose own is 1
    head: OptimiserConfig = OptimiserConfig(weight_decay=0.1, warmup=10)
    encoder: OptimiserConfig = OptimiserConfig(learning_rate=3e-4, weight_decay=0.02, warmup=10)


SHOTS = Recipe()
WHOLE = Recipe(head_steps=1500, batch=64, frames=24000, noise=0.3)  # with more examples less noise is enough


class Examples(NamedTuple):
    """n examples of one task."""

    features: Array  # (n, F, S, Dv): frozen, standardised (`model.flamingo.encode_media`)
    questions: list  # texts, "" for no question
    answers: list  # texts
    candidates: list  # for each example the answers to choose from, () for all texts
    pixels: Array | None = None  # uint8 (n, F, Y, X, 3), for models that train the encoder


# ---------------------------------------------------------------- class means


def prototype(rng: np.random.Generator, train: Examples, test: Examples, model: TrainedFlamingo) -> Answers:
    """The answer with the nearest mean of examples, among the answers to the same question.

    For a question that no example has, all answers are possible. A candidate without examples comes last.
    """
    support, queries = pooled(train.features), pooled(test.features)
    predictions, scores = [], []
    for query, question, options in zip(queries, test.questions, test.candidates, strict=True):
        same = [i for i, q in enumerate(train.questions) if q == question] or range(len(support))
        labels = np.array([train.answers[i] for i in same])
        own = support[same]
        near = {a: -float(np.sum((own[labels == a].mean(axis=0) - query) ** 2)) for a in dict.fromkeys(labels)}
        lowest = min(near.values()) - 1
        scores.append([near.get(option, lowest) for option in options])
        predictions.append(best(options, scores[-1]) if options else str(max(near, key=lambda a: near[a])))
    return Answers(predictions, scores)


# ---------------------------------------------------------------- logistic regression

RIDGE = 1e-3  # on squared weights
LINEAR = OptimiserConfig(learning_rate=5e-2, weight_decay=0.0, warmup=10, clip=1e9)
LINEAR_STEPS = 300


def linear(rng: np.random.Generator, train: Examples, test: Examples, model: TrainedFlamingo) -> Answers:
    """Logistic regression for the word in every slot, on features times words of the question.

    There are fewer examples than features, so the best weights are in the span of the examples: `coordinates` projects
    onto it without loss.
    """
    slots = Slots(train.answers)
    x, queries = coordinates(*(_factors(train.questions, part) for part in (train, test)))
    targets, V = slots.targets(train.answers), len(slots.words)
    params = {"w": np.zeros((x.shape[1], slots.length * V), np.float32), "b": np.zeros(slots.length * V, np.float32)}
    optimiser = AdamW(params, LINEAR)

    def loss_of(params):
        logits = anp.reshape(ops.linear(x, params["w"], params["b"]), (-1, V))
        fit = anp.sum(ops.cross_entropy(logits, targets.reshape(-1))) * np.float32(1 / len(x))
        return fit + np.float32(RIDGE) * anp.sum(params["w"] ** 2)

    for step in range(LINEAR_STEPS):
        optimiser.step(flatten(ops.value_and_grad(loss_of)(optimiser.params)[1]), step, LINEAR_STEPS)
    logits = ops.linear(queries, optimiser.params["w"], optimiser.params["b"])
    return slots.answers(log_softmax(logits.reshape(len(queries), slots.length, V)), test.candidates)


def _factors(train_questions, examples):
    """Features with their mean and a constant (n, P), and words of the question (n, W + 1)."""
    n = len(examples.questions)
    means = pooled(examples.features)
    cells = examples.features.reshape(n, -1) * np.float32((examples.features[0].size / means.shape[1]) ** -0.5)
    scaled = np.concatenate([cells, np.float32(MEANS) * means], axis=1) * np.float32(means.shape[1] ** -0.5)
    asked = question_words(train_questions, examples.questions)
    return np.concatenate([scaled, np.ones((n, 1), np.float32)], axis=1), asked


def coordinates(train: tuple, test: tuple) -> tuple[Array, Array]:
    """Coordinates (n, n) and (m, n) in the span of n training examples; scalar products stay as they are.

    train, test: pairs of factors. The features of an example are all products of a number of one factor and a number of
    the other, so a scalar product of features is the product of two scalar products.
    """
    within = (train[0] @ train[0].T) * (train[1] @ train[1].T)
    across = (test[0] @ train[0].T) * (test[1] @ train[1].T)
    values, vectors = np.linalg.eigh(within)
    scale = np.where(values > 1e-5 * values[-1], np.maximum(values, 1e-30) ** -0.5, 0).astype(np.float32)
    return within @ vectors * scale, across @ vectors * scale


# ---------------------------------------------------------------- encoder and head


def finetuned(rng: np.random.Generator, train: Examples, test: Examples, model: TrainedFlamingo) -> Answers:
    """Encoder and head trained on a few examples; they need pixels. The encoder starts as the model's."""
    return _finetune(rng, train, test, model, SHOTS)


def whole(rng: np.random.Generator, train: Examples, test: Examples, model: TrainedFlamingo) -> Answers:
    """The same with a whole training set, thousands of examples."""
    return _finetune(rng, train, test, model, WHOLE)


def _finetune(rng, train, test, model, recipe: Recipe):
    if train.pixels is None or test.pixels is None:
        raise ValueError("finetuned: the examples need pixels, because the encoder is trained too")
    slots = Slots(train.answers)
    asked, targets = question_words(train.questions, train.questions), slots.targets(train.answers)
    head = AdamW(init_head(rng, train.features.shape, asked.shape[1], slots, recipe), recipe.head)
    _train(rng, {"head": head}, recipe.head_steps, train.features, asked, targets, model, recipe)
    both = {"head": AdamW(head.params, recipe.encoder), "vision": AdamW(model.frozen["vision"], recipe.encoder)}
    steps = recipe.frames // (min(recipe.batch, len(targets)) * train.pixels.shape[1])
    _train(rng, both, steps, train.pixels, asked, targets, model, recipe)
    features = encode_media(model.frozen | {"vision": both["vision"].params}, test.pixels, model.config, model.parts)
    asked = question_words(train.questions, test.questions)
    return slots.answers(log_softmax(head_logits(both["head"].params, features, asked, slots.length)), test.candidates)


def _train(rng, trained, steps, media, asked, targets, model, recipe):
    """Steps of all optimisers in `trained`. media: features if only "head" is trained, pixels if "vision" is too."""

    def loss_of(params, shard):
        media, noise, asked, targets = shard
        if "vision" in params:
            media = encode_media(model.frozen | {"vision": params["vision"]}, media, model.config, model.parts)
        logits = head_logits(params["head"], media + noise, asked, targets.shape[1])
        losses = ops.cross_entropy(anp.reshape(logits, (-1, logits.shape[-1])), targets.reshape(-1))
        return anp.sum(losses) * np.float32(1 / len(batch)), ()

    params = {name: optimiser.params for name, optimiser in trained.items()}
    S, Dv = (params["head"]["places"].shape[0] // media.shape[1], params["head"]["cell"].shape[0])
    for step in range(steps):
        batch = rng.permutation(len(targets))[: recipe.batch]
        noise = rng.standard_normal((len(batch), media.shape[1], S, Dv), np.float32) * np.float32(recipe.noise)
        shards = cut_rows(media[batch], noise, asked[batch], targets[batch])
        gradients = view_tree(summed_gradient(loss_of, params, shards)[2], params)
        for name, optimiser in trained.items():
            optimiser.step(flatten(gradients[name]), step, steps)


def head_logits(params: Params, features: Array, asked: Array, length: int) -> Array:
    """Features (n, F, S, Dv) and question words (n, W) to logits (n, length, words).

    Every cell is projected to a few numbers and gets an embedding of its place. All cells together, and their mean, are
    scaled and shifted by the question; two layers give the words.
    """
    n = features.shape[0]
    flat = anp.reshape(features, (n, -1, features.shape[3]))
    cells = ops.gelu(ops.linear(flat, params["cell"]) + params["places"])
    means = anp.sum(flat, axis=1) * np.float32(MEANS / flat.shape[1])
    visual = ops.linear(anp.reshape(cells, (n, -1)), params["cells"], params["cells_bias"])
    visual = visual + ops.linear(means, params["mean"])
    hidden = ops.gelu(visual * ops.linear(asked, params["ask_scale"]) + ops.linear(asked, params["ask_shift"]))
    hidden = hidden + ops.gelu(ops.linear(hidden, params["mix"], params["mix_bias"]))
    return anp.reshape(ops.linear(hidden, params["words"], params["words_bias"]), (n, length, -1))


def init_head(rng: np.random.Generator, shape: tuple, W: int, slots: Slots, recipe: Recipe) -> Params:
    """Parameters of `head_logits` for features of a shape (n, F, S, Dv)."""
    _, F, S, Dv = shape
    hidden, out = recipe.hidden, slots.length * len(slots.words)

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(np.float32)

    return {
        "cell": matrix(Dv, recipe.cell),
        "places": np.zeros((F * S, recipe.cell), np.float32),
        "mean": matrix(Dv, hidden),
        "cells": matrix(F * S * recipe.cell, hidden),
        "cells_bias": np.zeros(hidden, np.float32),
        "ask_scale": matrix(W, hidden, W**0.5),
        "ask_shift": matrix(W, hidden, W**0.5),
        "mix": matrix(hidden, hidden),
        "mix_bias": np.zeros(hidden, np.float32),
        "words": matrix(hidden, out, 0.3),
        "words_bias": np.zeros(out, np.float32),
    }
