"""Specialists: models trained for one task alone, on as many examples as a prompt shows (chapter §5).

The paper sets few-shot Flamingo beside models fine-tuned for each task (table 1). Here are four that
see the same examples through the same encoder: nearest class means, logistic regression, and encoder
and head trained together, on the shots (`finetuned`) or on a whole training set (`whole`).

Answers are texts. The first learns whole answers; the others learn the word of an answer at every
place, up to an end mark, so a caption nobody showed them can still be put together, and a closed
set of labels is the case of one place. Not here: the tasks, and their metrics (`metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.evaluation.retrieval import pooled
from tinyflamingo.evaluation.slots import Answers, Slots, best, log_softmax, question_words
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.shards import cut_rows, summed_gradient

MEANS = 6.0  # weight of a feature's mean over places, which varies less, beside its values at each


@dataclass(frozen=True)
class Recipe:
    """How encoder and head are trained. First the head on frozen features, then both."""

    head_steps: int = 200
    batch: int = 32
    frames: int = 1600  # pictures, or frames of videos, that the encoder meets in the second part
    hidden: int = 256
    cell: int = 24  # width to which each cell of the grid is brought
    noise: float = 1.0  # on features, whose own spread is 1
    head: OptimiserConfig = OptimiserConfig(weight_decay=0.1, warmup=10)
    encoder: OptimiserConfig = OptimiserConfig(learning_rate=3e-4, weight_decay=0.02, warmup=10)


SHOTS = Recipe()
WHOLE = Recipe(head_steps=1500, batch=64, frames=24000, noise=0.3)  # enough examples need less of it


class Examples(NamedTuple):
    """n examples of one task, query and answer.

    features (n, F, S, Dv): frozen, standardised (`model.flamingo.encode_media`); several media of an
    example stand as frames. questions: what is asked beside them, "" for nothing. answers: texts.
    pixels (n, F, Y, X, 3) uint8: read by those that train the encoder.
    """

    features: np.ndarray
    questions: list
    answers: list
    pixels: np.ndarray | None = None


# ---------------------------------------------------------------- class means


def prototype(rng, train: Examples, test: Examples, candidates, model):
    """The answer whose examples' mean is nearest, among the answers that the question had.

    A question that no example asked may have any answer. A candidate without examples comes last.
    """
    seen, queries = pooled(train.features), pooled(test.features)
    predictions, scores = [], []
    for query, question, options in zip(queries, test.questions, candidates, strict=True):
        asked = [i for i, q in enumerate(train.questions) if q == question] or range(len(seen))
        labels = np.array([train.answers[i] for i in asked])
        near = {a: -float(np.sum((seen[asked][labels == a].mean(axis=0) - query) ** 2)) for a in dict.fromkeys(labels)}
        lowest = min(near.values()) - 1
        scores.append([near.get(option, lowest) for option in options])
        predictions.append(best(options, scores[-1]) if options else str(max(near, key=near.get)))
    return Answers(predictions, scores)


# ---------------------------------------------------------------- logistic regression

RIDGE = 1e-3  # on squared weights
LINEAR = OptimiserConfig(learning_rate=5e-2, weight_decay=0.0, warmup=10, clip=1e9)
LINEAR_STEPS = 300


def linear(rng, train: Examples, test: Examples, candidates, model):
    """Logistic regression for the word of every slot, on features times words of the question.

    Features: each place's and their mean. With fewer examples than features the weights that matter
    lie in the examples' span: `coordinates` goes there, and nothing else is lost.
    """
    slots = Slots(train.answers)
    x, queries = coordinates(*(_times_question(train.questions, part) for part in (train, test)))
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
    return slots.answers(log_softmax(logits.reshape(len(queries), slots.length, V)), candidates)


def _times_question(train_questions, examples):
    """Two factors: looks (n, P), all features and their mean, and words of the question (n, W + 1)."""
    n = len(examples.questions)
    means = pooled(examples.features)
    places = examples.features.reshape(n, -1) * np.float32((examples.features[0].size / means.shape[1]) ** -0.5)
    looks = np.concatenate([places, np.float32(MEANS) * means], axis=1) * np.float32(means.shape[1] ** -0.5)
    return np.concatenate([looks, np.ones((n, 1), np.float32)], axis=1), question_words(
        train_questions, examples.questions
    )


def coordinates(train, test):
    """Rows whose scalar products are those of the products of two factors: (n, n) and (m, n).

    train, test: pairs of factors, rows of which stand for all products of one number of each.
    """
    within = (train[0] @ train[0].T) * (train[1] @ train[1].T)
    across = (test[0] @ train[0].T) * (test[1] @ train[1].T)
    values, vectors = np.linalg.eigh(within)
    scale = np.where(values > 1e-5 * values[-1], np.maximum(values, 1e-30) ** -0.5, 0).astype(np.float32)
    return within @ vectors * scale, across @ vectors * scale


# ---------------------------------------------------------------- encoder and head


def finetuned(rng, train: Examples, test: Examples, candidates, model, recipe: Recipe = SHOTS):
    """Encoder and head trained on the examples; needs pixels. model: a `TrainedFlamingo`, for its encoder."""
    if train.pixels is None or test.pixels is None:
        raise ValueError("finetuned: the examples need pixels, for the encoder is trained too")
    slots = Slots(train.answers)
    asked = question_words(train.questions, train.questions)
    targets = slots.targets(train.answers)
    head = init_head(rng, train.features.shape, asked.shape[1], slots, recipe)
    trained = {"head": AdamW(head, recipe.head)}
    _train(rng, trained, recipe.head_steps, train.features, asked, targets, model, recipe)
    trained = {
        "head": AdamW(trained["head"].params, recipe.encoder),
        "vision": AdamW(model.frozen["vision"], recipe.encoder),
    }
    steps = recipe.frames // (min(recipe.batch, len(targets)) * train.pixels.shape[1])
    _train(rng, trained, steps, train.pixels, asked, targets, model, recipe)
    features = encode_media(model.frozen | {"vision": trained["vision"].params}, test.pixels, model.config, model.parts)
    logits = head_logits(
        trained["head"].params, features, question_words(train.questions, test.questions), slots.length
    )
    return slots.answers(log_softmax(logits), candidates)


def whole(rng, train: Examples, test: Examples, candidates, model):
    """The same with a whole training set, thousands of examples."""
    return finetuned(rng, train, test, candidates, model, WHOLE)


def _train(rng, trained, steps, media, asked, targets, model, recipe):
    """Steps of all optimisers in `trained` ("head" alone, or also "vision"; media are then pixels)."""

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


def head_logits(params, features, asked, length):
    """Features (n, F, S, Dv) and question words (n, W) to logits (n, length, words).

    Every cell is brought to a few numbers, with an embedding of its place; all of them together, and
    the mean over cells, meet the question by a product, and two layers say the words.
    """
    n = features.shape[0]
    flat = anp.reshape(features, (n, -1, features.shape[3]))
    cells = ops.gelu(ops.linear(flat, params["cell"]) + params["places"])
    means = anp.sum(flat, axis=1) * np.float32(MEANS / flat.shape[1])
    seen = ops.linear(anp.reshape(cells, (n, -1)), params["look"], params["look_bias"]) + ops.linear(
        means, params["mean"]
    )
    hidden = ops.gelu(seen * ops.linear(asked, params["ask_scale"]) + ops.linear(asked, params["ask_shift"]))
    hidden = hidden + ops.gelu(ops.linear(hidden, params["mix"], params["mix_bias"]))
    return anp.reshape(ops.linear(hidden, params["words"], params["words_bias"]), (n, length, -1))


def init_head(rng, shape, W, slots: Slots, recipe: Recipe):
    """Parameters of `head_logits` for features of a shape (n, F, S, Dv)."""
    _, F, S, Dv = shape
    hidden, out = recipe.hidden, slots.length * len(slots.words)

    def matrix(rows, columns, scale=1.0):
        return (rng.standard_normal((rows, columns)) * scale * rows**-0.5).astype(np.float32)

    return {
        "cell": matrix(Dv, recipe.cell),
        "places": np.zeros((F * S, recipe.cell), np.float32),
        "mean": matrix(Dv, hidden),
        "look": matrix(F * S * recipe.cell, hidden),
        "look_bias": np.zeros(hidden, np.float32),
        "ask_scale": matrix(W, hidden, W**0.5),
        "ask_shift": matrix(W, hidden, W**0.5),
        "mix": matrix(hidden, hidden),
        "mix_bias": np.zeros(hidden, np.float32),
        "words": matrix(hidden, out, 0.3),
        "words_bias": np.zeros(out, np.float32),
    }


SPECIALISTS = {"prototype": prototype, "linear": linear, "finetuned": finetuned, "whole": whole}
