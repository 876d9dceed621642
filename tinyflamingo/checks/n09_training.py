"""Checks of notebook 09: the loss of a mixture, its gradient, accumulation, clipping (chapter §1 and §4).

Not here: the library's own training (`training/flamingo_stage.py`, `training/optimiser.py`).
"""

from __future__ import annotations

import numpy as np

from .core import check, fresh_rng, holds, shape_is, value_is


@check(
    "09.1",
    where=(
        "The loops above. For one data set: which tokens are its own and count? Sum their losses, divide by "
        "their number."
    ),
    formula="sum over i of lambda_i * sum(losses * m) / sum(m), with m = weights * (datasets == i); 0 if sum(m) is 0",
)
def check_09_1_mixture_loss(mixture_loss):
    """mixture_loss(losses, weights, datasets, lambdas) -> a number; the first three (B, T)."""
    rng = fresh_rng()
    B, T, sets = int(rng.integers(3, 6)), int(rng.integers(9, 14)), int(rng.integers(3, 5))
    losses = rng.uniform(0.5, 4.0, (B, T)).astype(np.float32)
    lambdas = rng.uniform(0.1, 1.0, sets)
    datasets, weights = _mixed_batch(rng, B, T, sets)
    got = mixture_loss(losses, weights, datasets, lambdas)
    shape_is(got, (), what="the loss")
    want = _mixture(losses, weights, datasets, lambdas)
    real = weights * (datasets >= 0)
    weighed = np.sum(lambdas[datasets] * losses * real)
    ignored = [np.mean((losses * weights)[datasets == i]) for i in range(sets)]
    mistakes = {
        "Every data set has a mean of its own; with one for all, the largest set counts most.": weighed / real.sum(),
        "A data set's loss is a mean: divide its sum by the number of its tokens that count.": weighed,
        "The lambdas are missing: each mean times its own.": _mixture(losses, weights, datasets, np.ones(sets)),
        "Quiet tokens (weight 0) must not count, neither in the sum nor in the number of tokens.": _mixture(
            losses, np.ones_like(weights), datasets, lambdas
        ),
        "Divide by the tokens that count, not by all tokens of the data set.": np.dot(lambdas, ignored),
        "The lambdas are used as they are, not divided by their sum.": want / lambdas.sum(),
        "Padding (-1) belongs to no data set, but lambdas[-1] is that of the last one.": np.sum(
            lambdas[datasets] * losses * weights
        ),
        "The means are divided by the number of data sets; they are added.": want / sets,
    }
    value_is(got, want, "Take the data sets one by one, as in the loops.", what="the loss", mistakes=mistakes)
    absent = np.where(datasets == 0, 1, datasets)
    with np.errstate(all="ignore"):
        got = mixture_loss(losses, weights, absent, lambdas)
    holds(np.isfinite(got), "a data set without a token that counts gives 0/0; it should add nothing.")
    value_is(got, _mixture(losses, weights, absent, lambdas), "One data set has no token here.", what="the loss")


def _mixed_batch(rng, B, T, sets):
    """Data sets and weights of tokens. If all sets were of one size, the mean over all would be the mean of means."""
    share, sizes = np.arange(1.0, sets + 1), np.zeros(sets)
    while not np.ptp(sizes):
        datasets = rng.choice(sets, (B, T), p=share / share.sum())
        datasets[:, : sets + 1] = np.arange(-1, sets)  # every set is there, and so is padding
        weights = (rng.random((B, T)) < 0.7).astype(np.float32)
        weights[0], weights[1, :] = 1.0, 0.0
        sizes = np.array([weights[datasets == i].sum() for i in range(sets)])
    return datasets, weights


def _mixture(losses, weights, datasets, lambdas):
    total = 0.0
    for i, share in enumerate(lambdas):
        own_weights = weights * (datasets == i)
        total += share * np.sum(losses * own_weights) / max(own_weights.sum(), 1.0)
    return total


@check(
    "09.2",
    where=(
        "The formula above is for one token. Take the softmax along the last axis, then 1 off at the target, "
        "then the shares."
    ),
    formula=(
        "(softmax(logits) - one-hot(targets)) * shares[..., None], with the largest logit of a token "
        "subtracted before exp"
    ),
)
def check_09_2_logits_gradient(logits_gradient):
    """logits_gradient(logits (B, T, V), targets (B, T), shares (B, T)) -> (B, T, V)."""
    rng = fresh_rng()
    B, T, V = (int(rng.integers(*bounds)) for bounds in ((2, 4), (4, 7), (8, 12)))
    logits, targets = rng.standard_normal((B, T, V)), rng.integers(0, V, (B, T))
    shares = rng.uniform(0.1, 1.0, (B, T)) * (rng.random((B, T)) < 0.7)
    shares[0, :2] = 0.0, 0.5
    got = logits_gradient(logits, targets, shares)
    shape_is(got, (B, T, V), "(B, T, V)")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = p - np.eye(V)[targets]
    share = shares[..., None]
    want = gradient * share
    mistakes = {
        "The shares are missing: quiet text and padding must get no gradient.": gradient,
        "1 is to be subtracted at the target: as it is, nothing tells which token was right.": p * share,
        "The sign is wrong: this step makes the loss larger.": -want,
        "The shares hold the mean already; do not divide by the number of tokens again.": want / (B * T),
        "The softmax runs over the words of the vocabulary, the last axis; here over the tokens of a row.": (
            np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(V)[targets]
        )
        * share,
    }
    value_is(got, want, "Work out one token by hand, then compare.", mistakes=mistakes)
    with np.errstate(all="ignore"):
        big = logits_gradient(logits + 2000.0, targets, shares)
    holds(np.all(np.isfinite(big)), "exp overflows for large logits: subtract the largest logit of each token first.")
    value_is(big, want, "A constant added to all logits changes no probability.", tol=1e-3)
    apart = np.resize([2000.0, -2000.0], (B, T, 1))
    with np.errstate(all="ignore"):
        got = logits_gradient(logits + apart, targets, shares)
    hint = "Logits of one token are around 2000, of another around -2000: subtract each token's own largest logit."
    value_is(got, want, hint, tol=1e-3)


@check(
    "09.3",
    where=(
        "`total = total + ...` makes a new array, `total += ...` writes into the old one. Whose array is the old one?"
    ),
    formula="total = 0; for each batch: total = total + lambda * gradient_of(batch)",
)
def check_09_3_accumulate(accumulate):
    """accumulate(gradient_of, batches, lambdas) -> a vector."""
    rng = fresh_rng()
    sets, P = int(rng.integers(3, 6)), int(rng.integers(5, 9))
    batches = [int(n) for n in 10 + rng.permutation(90)[:sets]]
    made = [rng.standard_normal(P) for _ in range(sets)]
    kept, lambdas, asked = [g.copy() for g in made], rng.uniform(0.1, 0.9, sets), []

    def gradient_of(batch):
        holds(batch in batches, "gradient_of takes an entry of `batches`, not the number of its place.")
        asked.append(batch)
        return made[batches.index(batch)]

    got = accumulate(gradient_of, list(batches), list(lambdas))
    changed = any(not np.array_equal(g, k) for g, k in zip(made, kept, strict=True))
    holds(not changed, "a gradient that you were handed has changed: `+=` and `*=` write into the array itself.")
    shape_is(got, (P,), "(P,)")
    want = np.sum(lambdas[:, None] * kept, axis=0)
    mistakes = {
        "The lambdas are missing: each gradient is multiplied by its own.": np.sum(kept, axis=0),
        "Only the last batch is left: add to the sum, do not replace it.": lambdas[-1] * kept[-1],
        "The lambdas say how much each set counts; do not divide by the number of sets as well.": want / sets,
    }
    value_is(got, want, "Each batch counts once, times its lambda.", what="the gradient", mistakes=mistakes)
    holds(sorted(asked) == sorted(batches), "a gradient costs much time: ask for each batch's gradient only once.")


@check(
    "09.4",
    where="One norm for all arrays together: which sum is under the root? Then one factor for all arrays.",
    formula="norm = sqrt(sum of all squares of all arrays); every g * min(1, limit / norm)",
)
def check_09_4_clip_globally(clip_globally):
    """clip_globally({name: array}, limit) -> {name: array}."""
    rng = fresh_rng()
    gradients = {"w": rng.standard_normal((3, int(rng.integers(4, 7)))), "b": 0.05 * rng.standard_normal(4)}
    gradients["alpha"] = np.array(rng.uniform(1.0, 2.0))
    norm = np.sqrt(sum(np.sum(g * g) for g in gradients.values()))
    limit = float(norm * rng.uniform(0.2, 0.4))
    kept = {name: g.copy() for name, g in gradients.items()}
    got = clip_globally(gradients, limit)
    holds(isinstance(got, dict) and set(got) == set(kept), "return a dict with the same names.")
    for name, g in kept.items():
        shape_is(got[name], g.shape, what=name)
    flat = np.concatenate([np.ravel(got[name]) for name in kept])
    whole = np.concatenate([np.ravel(g) for g in kept.values()])
    one_by_one = [np.ravel(g * min(1.0, limit / np.sqrt(np.sum(g * g)))) for g in kept.values()]
    mistakes = {
        "Each array was clipped by its own norm, which turns the direction; global means one factor for all.": (
            np.concatenate(one_by_one)
        ),
        "Single numbers were cut off, which turns the direction; scale the whole by one factor.": np.clip(
            whole, -limit, limit
        ),
        "The norm is the square root of the sum of squares.": whole * min(1.0, limit / norm**2),
    }
    value_is(flat, whole * limit / norm, what="the clipped gradient", tol=1e-4, mistakes=mistakes)
    small = clip_globally(kept, 2.0 * norm)
    flat = np.concatenate([np.ravel(small[name]) for name in kept])
    hint = "A gradient within the limit is left as it is: clipping never makes one longer."
    value_is(flat, whole, hint, what="a gradient within the limit")
