"""Wrong answers of notebook 06, the language model's block."""

import numpy as np
from card import Card

from tinyflamingo.checks.n06_chinchilla import (
    check_06_1_rms_norm,
    check_06_2_rms_norm_gradient,
    check_06_3_sinusoids,
    check_06_4_relative_scores,
    check_06_5_optimal,
)


def layer_norm(x, gain, eps=1e-6):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps) * gain


def by_length(x, gain, eps=1e-6):
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps) * gain


def no_gain(x, gain, eps=1e-6):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def over_everything(x, gain, eps=1e-6):
    return x / np.sqrt(np.mean(x * x) + eps) * gain


def eps_outside(x, gain, eps=1e-6):
    return x / (np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + eps) * gain


def root(x, eps):
    return np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def one_way(x, gain, g, eps=1e-6):
    return g * gain / root(x, eps)


def second_way(x, a, eps):
    return x * np.sum(a * x, axis=-1, keepdims=True) / root(x, eps) ** 3


def sum_for_mean(x, gain, g, eps=1e-6):
    return g * gain / root(x, eps) - second_way(x, g * gain, eps)


def wrong_sign(x, gain, g, eps=1e-6):
    return g * gain / root(x, eps) + second_way(x, g * gain, eps) / x.shape[-1]


def gradient_without_gain(x, gain, g, eps=1e-6):
    return g / root(x, eps) - second_way(x, g, eps) / x.shape[-1]


def angles(S, D, exponent=-2.0, first=0):
    return (np.arange(S)[:, None] + first) * 10000.0 ** (exponent * np.arange(D // 2) / D)


def waves(angle):
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def in_turns(S, D):
    out = np.zeros((S, D))
    out[:, 0::2], out[:, 1::2] = np.sin(angles(S, D)), np.cos(angles(S, D))
    return out


def cosines_first(S, D):
    return np.concatenate([np.cos(angles(S, D)), np.sin(angles(S, D))], axis=1)


def too_slow(S, D):
    return waves(angles(S, D, -1.0))


def growing(S, D):
    return waves(angles(S, D, 2.0))


def begins_at_one(S, D):
    return waves(angles(S, D, first=1))


def masked(scores):
    return np.where(np.tril(np.ones(scores.shape, bool)), scores, -np.inf)


def by_key(q, k, r, u, v):
    return masked(((q + u) @ k.T + (q + v) @ r.T) / q.shape[1] ** 0.5)


def turned_not_shifted(q, k, r, u, v):
    return by_key(q, k, r[::-1], u, v)


def shifted(q, k, r, u, v):
    T = len(q)
    far_first = np.concatenate([np.zeros((T, 1)), (q + v) @ r[::-1].T], axis=1)
    return (q + u) @ k.T + far_first.reshape(T + 1, T)[1:]


def sees_the_future(q, k, r, u, v):
    return shifted(q, k, r, u, v) / q.shape[1] ** 0.5


def no_scale(q, k, r, u, v):
    return masked(shifted(q, k, r, u, v))


def u_and_v_swapped(q, k, r, u, v):
    return masked(shifted(q, k, r, v, u) / q.shape[1] ** 0.5)


def no_u_and_v(q, k, r, u, v):
    return masked(shifted(q, k, r, 0, 0) / q.shape[1] ** 0.5)


def solve(C, A, B, alpha, beta):
    return (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))


def without_six(C, A, B, alpha, beta):
    N = solve(6 * C, A, B, alpha, beta)
    return N, C / N


def exponents_swapped(C, A, B, alpha, beta):
    N = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** (alpha / (alpha + beta))
    return N, C / (6 * N)


def without_factor(C, A, B, alpha, beta):
    N = (C / 6) ** (beta / (alpha + beta))
    return N, C / (6 * N)


def twenty_tokens(C, A, B, alpha, beta):
    N = (C / 120) ** 0.5
    return N, 20 * N


def overspent(C, A, B, alpha, beta):
    N = solve(C, A, B, alpha, beta)
    return N, 20 * N


CARDS = [
    Card(
        key="06.1",
        check=check_06_1_rms_norm,
        wrong=[
            (layer_norm, "that is LayerNorm"),
            (by_length, "not their sum"),
            (no_gain, "The gain is missing"),
            (over_everything, "normalised by itself"),
            (eps_outside, "outside of the root"),
        ],
    ),
    Card(
        key="06.2",
        check=check_06_2_rms_norm_gradient,
        wrong=[
            (one_way, "second way is missing"),
            (sum_for_mean, "1 / D of the mean"),
            (wrong_sign, "wrong sign"),
            (gradient_without_gain, "The gain is missing"),
        ],
    ),
    Card(
        key="06.3",
        check=check_06_3_sinusoids,
        wrong=[
            (in_turns, "take turns here"),
            (cosines_first, "cosines come first"),
            (too_slow, "fall too slowly"),
            (growing, "frequencies grow"),
            (begins_at_one, "your rows begin at 1"),
        ],
    ),
    Card(
        key="06.4",
        check=check_06_4_relative_scores,
        wrong=[
            (by_key, "The shift is missing"),
            (turned_not_shifted, "not yet shifted against each other"),
            (sees_the_future, "in its future"),
            (no_scale, "root of K"),
            (u_and_v_swapped, "have changed places"),
            (no_u_and_v, "u and v are missing"),
        ],
    ),
    Card(
        key="06.5",
        check=check_06_5_optimal,
        wrong=[
            (without_six, "not C: a token costs 6"),
            (exponents_swapped, "have changed places in the exponent"),
            (without_factor, "factor with A and B"),
            (twenty_tokens, "has a lower predicted loss"),
            (overspent, "times the budget C"),
        ],
    ),
]
