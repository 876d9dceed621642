"""Wrong answers to the exercises of notebook 09, and the hints they must get."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_09_1_mixture_loss,
    check_09_2_logits_gradient,
    check_09_3_accumulate,
    check_09_4_clip_globally,
)


def one_mean_for_all(losses, weights, datasets, lambdas):
    real = weights * (datasets >= 0)
    return np.sum(lambdas[datasets] * losses * real) / real.sum()


def sums(losses, weights, datasets, lambdas):
    return sum(w * np.sum(losses * weights * (datasets == i)) for i, w in enumerate(lambdas))


def without_lambdas(losses, weights, datasets, lambdas):
    return sum(
        np.sum(losses * weights * (datasets == i)) / np.sum(weights * (datasets == i)) for i in range(len(lambdas))
    )


def quiet_counts(losses, weights, datasets, lambdas):
    return sum(w * np.mean(losses[datasets == i]) for i, w in enumerate(lambdas))


def nothing_by_nothing(losses, weights, datasets, lambdas):
    parts = [losses[(datasets == i) & (weights > 0)] for i in range(len(lambdas))]
    return sum(w * np.sum(part) / np.float64(part.size) for w, part in zip(lambdas, parts, strict=True))


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def without_shares(logits, targets, shares):
    return softmax(logits) - np.eye(logits.shape[-1])[targets]


def without_target(logits, targets, shares):
    return softmax(logits) * shares[..., None]


def uphill(logits, targets, shares):
    return (np.eye(logits.shape[-1])[targets] - softmax(logits)) * shares[..., None]


def overflowing(logits, targets, shares):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return (p - np.eye(logits.shape[-1])[targets]) * shares[..., None]


def in_place(logits, targets, shares):
    logits -= logits.max(-1, keepdims=True)
    return without_shares(logits, targets, shares) * shares[..., None]


def flat_rows(logits, targets, shares):
    return overflowing(logits, targets, shares).reshape(-1, logits.shape[-1])


def into_the_first(gradient_of, batches, lambdas):
    total = gradient_of(batches[0])
    total *= lambdas[0]
    for batch, weight in zip(batches[1:], lambdas[1:], strict=True):
        total += weight * gradient_of(batch)
    return total


def the_last(gradient_of, batches, lambdas):
    for batch, weight in zip(batches, lambdas, strict=True):
        total = weight * gradient_of(batch)
    return total


def unweighted(gradient_of, batches, lambdas):
    return np.sum([gradient_of(batch) for batch in batches], axis=0)


def averaged(gradient_of, batches, lambdas):
    return np.mean([w * gradient_of(b) for b, w in zip(batches, lambdas, strict=True)], axis=0)


def one_by_one(gradients, limit):
    return {n: g * min(1.0, limit / np.sqrt(np.sum(g * g))) for n, g in gradients.items()}


def by_value(gradients, limit):
    return {n: np.clip(g, -limit, limit) for n, g in gradients.items()}


def always(gradients, limit):
    norm = np.sqrt(sum(np.sum(g * g) for g in gradients.values()))
    return {n: g * limit / norm for n, g in gradients.items()}


def no_root(gradients, limit):
    norm = sum(np.sum(g * g) for g in gradients.values())
    return {n: g * min(1.0, limit / norm) for n, g in gradients.items()}


CARDS = [
    Card(
        "09.1",
        check_09_1_mixture_loss,
        wrong=[
            (one_mean_for_all, "a mean of its own"),
            (sums, "divide its sum"),
            (without_lambdas, "The lambdas are missing"),
            (quiet_counts, "Quiet tokens"),
            (nothing_by_nothing, "gives 0/0"),
        ],
    ),
    Card(
        "09.2",
        check_09_2_logits_gradient,
        wrong=[
            (without_shares, "The shares are missing"),
            (without_target, "subtracted at the target"),
            (uphill, "sign is wrong"),
            (overflowing, "exp overflows"),
            (in_place, "`logits`, which was passed in, has changed"),
            (flat_rows, r"\(B, T, V\)"),
        ],
    ),
    Card(
        "09.3",
        check_09_3_accumulate,
        wrong=[
            (into_the_first, "write into the array"),
            (the_last, "Only the last batch"),
            (unweighted, "The lambdas are missing"),
            (averaged, "do not divide"),
        ],
    ),
    Card(
        "09.4",
        check_09_4_clip_globally,
        wrong=[
            (one_by_one, "one factor for all"),
            (by_value, "Single numbers were cut off"),
            (always, "never makes one longer"),
            (no_root, "square root"),
        ],
    ),
]
