"""Checks of notebook 05, the Perceiver resampler (chapter §3): one look, its price, and who gets its gradient.

Not here: the library's own layer (`model/perceiver_resampler.py`).
"""

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, pair_is, shape_is, value_is


def _softmax(s, axis=-1):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _look(queries, seen, w_q, w_k, w_v, axis=-1, scale=True):
    scores = (queries @ w_q) @ (seen @ w_k).T
    return _softmax(scores / (w_q.shape[1] ** 0.5 if scale else 1), axis) @ (seen @ w_v)


@check(
    "05.1",
    where=(
        "The loops above, line by line: who asks (query), and what is seen (keys and values)? The softmax "
        "runs over what is seen."
    ),
    formula="E = [features; latents]; softmax((latents w_q)(E w_k)ᵀ / sqrt(K)) (E w_v), softmax along the last axis",
)
def check_05_1_look(look):
    """look(latents (R, D), features (S, D), w_q, w_k, w_v (D, K)) -> (R, K)."""
    rng = fresh_rng()
    R, S, D, K = (int(n) for n in rng.choice(np.arange(3, 9), size=4, replace=False))
    latents, features = rng.standard_normal((R, D)), rng.standard_normal((S, D))
    weights = [rng.standard_normal((D, K)) / np.sqrt(D) for _ in range(3)]
    got = look(latents, features, *weights)
    asked = _("Only the {R} latents ask; features are looked at, they do not look.").format(R=R)
    shape_is(got, (R, K), "(R, K)", hint=asked if np.shape(got)[:1] != (R,) else "")
    both = np.concatenate([features, latents])
    mistakes = {
        "The latents see the features only; keys and values are features and latents, joined.": _look(
            latents, features, *weights
        ),
        "The features are not seen; keys and values are features and latents, joined.": _look(
            latents, latents, *weights
        ),
        "The softmax runs over the latents; the weights of one latent, over all it sees, sum to 1.": _look(
            latents, both, *weights, axis=0
        ),
        "The scores are not divided by the root of K.": _look(latents, both, *weights, scale=False),
        "The scores are divided by the root of D; a query has K numbers.": _look(
            latents, both, weights[0] * np.sqrt(K / D), *weights[1:]
        ),
        "Keys and values are exchanged: w_k is for the scores, w_v for what is mixed.": _look(
            latents, both, weights[0], weights[2], weights[1]
        ),
    }
    value_is(got, _look(latents, both, *weights), "Compare with the loops, line by line.", mistakes=mistakes)
    shuffled = look(latents, features[rng.permutation(S)], *weights)
    value_is(shuffled, got, "The order of the features must not matter.")


@check(
    "05.2",
    where="time has an axis for frames. Put length-1 axes where features has M and S, so that the frames meet.",
    formula="concatenate([(features + time[None, :, None, :]).reshape(M, F * S, D), latents], axis=1)",
)
def check_05_2_what_is_seen(what_is_seen):
    """what_is_seen(features (M, F, S, D), time (F, D), latents (M, R, D)) -> (M, F * S + R, D)."""
    rng = fresh_rng()
    M, F, S, R, D = (int(n) for n in rng.choice(np.arange(2, 8), size=5, replace=False))
    features, time = rng.standard_normal((M, F, S, D)), rng.standard_normal((F, D))
    latents = rng.standard_normal((M, R, D))
    got = what_is_seen(features, time, latents)
    hint = "The latents are missing: they are keys and values, too." if np.shape(got) == (M, F * S, D) else ""
    shape_is(got, (M, F * S + R, D), "(M, F * S + R, D)", hint=hint)
    timed = features + time[None, :, None]
    rows = timed.reshape(M, F * S, D)
    by_cell = features.reshape(M, S, F, D) + time  # the axes misread: every F-th feature gets the same time
    mistakes = {
        "The temporal embedding is missing.": np.concatenate([features.reshape(M, F * S, D), latents], axis=1),
        "Row t of time belongs to all S features of frame t; here it goes round among the features.": np.concatenate(
            [by_cell.reshape(M, F * S, D), latents], axis=1
        ),
        "Frame after frame: all features of frame 0 come first. Here the features of one place come together.": (
            np.concatenate([timed.swapaxes(1, 2).reshape(M, F * S, D), latents], axis=1)
        ),
        "The latents come last, after the features.": np.concatenate([latents, rows], axis=1),
    }
    value_is(got, np.concatenate([rows, latents], axis=1), "Features plus time, then latents.", mistakes=mistakes)


@check(
    "05.3",
    where=(
        "The sentence above the exercise counts one product. There are two products in each of H heads, and "
        "one table of scores."
    ),
    formula="flops = 2 * 2 * T * S * K * H; bytes = 4 * T * S * H",
)
def check_05_3_price(price):
    """price(T, S, H, K) -> (flops, bytes)."""
    rng = fresh_rng()
    primes = (5, 7, 11, 13, 17, 19, 23)  # so that no missing factor looks like another
    T, S, H, K = (int(n) for n in rng.choice(primes, size=4, replace=False))
    got = price(T, S, H, K)
    shape_is(got, (2,), what="the pair (flops, bytes)")
    flops, scores = 4 * H * T * S * K, 4 * H * T * S
    holds(got[0] != flops // 2, "half of the flops are missing: two products, each with multiplications and additions.")
    holds(got[0] != flops // 4, "a product takes as many additions as multiplications, and there are two products.")
    holds(got[0] != flops // H and got[1] != scores // H, "each of the H heads has products and scores of its own.")
    holds(got[1] != scores * K, "the scores are one number for a query and a key; K is gone when they are made.")
    holds(got[1] != scores // 4, "that is how many scores there are; in float32 each takes 4 bytes.")
    value_is(np.array(got), np.array([flops, scores]), "Count one product of one head first.")


@check(
    "05.4",
    where=(
        "Go back one step at a time: from the result to the values, then to what is seen. Then cut the rows "
        "where features end."
    ),
    formula="d = (pᵀ g) w_vᵀ; features get d[:S], latents get d[S:]",
)
def check_05_4_through_values(through_values):
    """through_values(p (R, S + R), g (R, K), w_v (D, K), S) -> (dfeatures (S, D), dlatents (R, D))."""
    rng = fresh_rng()
    R, S, D, K = (int(n) for n in rng.choice(np.arange(3, 9), size=4, replace=False))
    p, g, w_v = _softmax(rng.standard_normal((R, S + R))), rng.standard_normal((R, K)), rng.standard_normal((D, K))
    gradients = through_values(p, g, w_v, S)
    pair_is(gradients, ("dfeatures", "dlatents"))
    hint = "The features come first in the row, S of them; the latents are the last R."
    for got, rows, letters in zip(gradients, (S, R), ("(S, D)", "(R, D)"), strict=True):
        shape_is(got, (rows, D), letters, "dfeatures" if rows == S else "dlatents", hint)
    want = p.T @ g @ w_v.T
    mistakes = {
        "The weights p are missing: what is seen with a small weight gets little.": np.ones_like(p).T @ g @ w_v.T,
        "The weights of a vector were made to sum to 1 over the latents; leave them as they are.": (
            (p / p.sum(axis=0)).T @ g @ w_v.T
        ),
        "The sign is wrong: nothing is subtracted on the way.": -want,
        "Every latent that looks adds its share: it is a sum over them, not a mean.": want / R,
    }
    value_is(
        np.concatenate(gradients), want, "Moving what is seen a little says otherwise.", "the gradient", 1e-4, mistakes
    )
