"""Wrong answers of notebook 05, the Perceiver resampler."""

import numpy as np
from card import Card

from tinyflamingo.checks.n05_resampler import (
    check_05_1_look,
    check_05_2_what_is_seen,
    check_05_3_price,
    check_05_4_through_values,
)


def attend(queries, seen, w_q, w_k, w_v, axis=-1, scale=True, safe=True):
    scores = (queries @ w_q) @ (seen @ w_k).T / (w_q.shape[1] ** 0.5 if scale else 1.0)
    with np.errstate(all="ignore"):
        weights = np.exp(scores - (scores.max(axis=axis, keepdims=True) if safe else 0))
        return weights / weights.sum(axis=axis, keepdims=True) @ (seen @ w_v)


def features_alone(latents, features, *w):
    return attend(latents, features, *w)


def latents_alone(latents, features, *w):
    return attend(latents, latents, *w)


def everybody_asks(latents, features, *w):
    both = np.concatenate([features, latents])
    return attend(both, both, *w)


def softmax_over_latents(latents, features, *w):
    return attend(latents, np.concatenate([features, latents]), *w, axis=0)


def no_scale(latents, features, *w):
    return attend(latents, np.concatenate([features, latents]), *w, scale=False)


def overflows(latents, features, *w):
    return attend(latents, np.concatenate([features, latents]), *w, safe=False)


def rows_of(timed, latents):
    M, F, S, D = timed.shape
    return np.concatenate([timed.reshape(M, F * S, D), latents], axis=1)


def no_time(features, time, latents):
    return rows_of(features, latents)


def no_latents(features, time, latents):
    return rows_of(features + time[None, :, None], latents[:, :0])


def place_after_place(features, time, latents):
    return rows_of((features + time[None, :, None]).swapaxes(1, 2), latents)


def latents_first(features, time, latents):
    M, _, _, D = features.shape
    return np.concatenate([latents, (features + time[None, :, None]).reshape(M, -1, D)], axis=1)


def time_goes_round(features, time, latents):
    M, F, S, D = features.shape
    timed = features.reshape(M, F * S, D) + np.tile(time, (S, 1))
    return np.concatenate([timed, latents], axis=1)


def adds_in_place(features, time, latents):
    features += time[None, :, None]
    return rows_of(features, latents)


def one_product(T, S, H, K):
    return 2 * H * T * S * K, 4 * H * T * S


def multiplications_of_one(T, S, H, K):
    return H * T * S * K, 4 * H * T * S


def one_head(T, S, H, K):
    return 4 * T * S * K, 4 * T * S


def numbers_not_bytes(T, S, H, K):
    return 4 * H * T * S * K, H * T * S


def scores_with_k(T, S, H, K):
    return 4 * H * T * S * K, 4 * H * T * S * K


def seen(p, g, w_v):
    return p.T @ g @ w_v.T


def latents_first_in_the_row(p, g, w_v, S):
    R = len(p)
    return seen(p, g, w_v)[:R], seen(p, g, w_v)[R:]


def exchanged(p, g, w_v, S):
    return seen(p, g, w_v)[S:], seen(p, g, w_v)[:S]


def without_weights(p, g, w_v, S):
    return without_looking(np.ones_like(p), g, w_v, S)


def without_looking(p, g, w_v, S):
    return seen(p, g, w_v)[:S], seen(p, g, w_v)[S:]


def in_one(p, g, w_v, S):
    return seen(p, g, w_v)


def shares_of_columns(p, g, w_v, S):
    return without_looking(p / p.sum(0), g, w_v, S)


CARDS = [
    Card(
        key="05.1",
        check=check_05_1_look,
        wrong=[
            (features_alone, "see the features only"),
            (latents_alone, "The features are not seen"),
            (everybody_asks, "latents ask"),
            (softmax_over_latents, "softmax runs over the latents"),
            (no_scale, "root of K"),
        ],
        right=[overflows],
    ),
    Card(
        key="05.2",
        check=check_05_2_what_is_seen,
        wrong=[
            (no_time, "temporal embedding is missing"),
            (no_latents, "latents are missing"),
            (place_after_place, "Frame after frame"),
            (latents_first, "latents come last"),
            (time_goes_round, "goes round among the features"),
            (adds_in_place, "`features`, which was passed in, has changed"),
        ],
    ),
    Card(
        key="05.3",
        check=check_05_3_price,
        wrong=[
            (one_product, "half of the flops"),
            (multiplications_of_one, "as many additions"),
            (one_head, "each of the H heads"),
            (numbers_not_bytes, "each takes 4 bytes"),
            (scores_with_k, "K is gone"),
        ],
    ),
    Card(
        key="05.4",
        check=check_05_4_through_values,
        wrong=[
            (latents_first_in_the_row, "latents are the last R"),
            (exchanged, "latents are the last R"),
            (without_weights, "The weights p are missing"),
            (in_one, "2 results were expected, dfeatures, dlatents"),
            (shares_of_columns, "leave them as they are"),
        ],
    ),
]
