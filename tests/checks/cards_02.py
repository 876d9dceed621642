"""Wrong answers of notebook 02, the NF-ResNet."""

import numpy as np
from card import Card

from tinyflamingo.checks.n02_nf_resnet import (
    check_02_1_standardise,
    check_02_2_standardise_gradient,
    check_02_3_unit_gain,
    check_02_4_betas,
    check_02_5_clip_by_unit,
)

AXES = (0, 1, 2)


def spread_of(w):
    return np.sqrt(np.sum((w - w.mean(axis=AXES)) ** 2, axis=AXES))


def unit_variance(w, gain):
    return gain * (w - w.mean(axis=AXES)) / w.std(axis=AXES)


def not_centred(w, gain):
    return gain * w / spread_of(w)


def all_channels_together(w, gain):
    return gain * (w - w.mean()) / np.sqrt(np.sum((w - w.mean()) ** 2))


def without_gain(w, gain):
    return (w - w.mean(axis=AXES)) / spread_of(w)


def in_place(w, gain):
    w -= w.mean(axis=AXES)
    return gain * w / np.sqrt(np.sum(w**2, axis=AXES))


def forgets_the_length(w, gain, a):
    return gain / spread_of(w) * (a - a.mean(axis=AXES))


def forgets_the_mean(w, gain, a):
    u = (w - w.mean(axis=AXES)) / spread_of(w)
    return gain / spread_of(w) * (a - u * np.sum(u * a, axis=AXES))


def forgets_the_scale(w, gain, a):
    return forgets_the_mean(w, gain, a - a.mean(axis=AXES)) * spread_of(w) / gain


def mean_square(f, samples):
    return 1 / np.sqrt(np.mean(f(samples) ** 2))


def no_root(f, samples):
    return 1 / np.var(f(samples))


def spread_itself(f, samples):
    return np.std(f(samples))


def books(blocks, alpha, reset=True, early=False):
    deviations, variance = [], 1.0
    for number in blocks:
        for b in range(number):
            if early and b == 0:
                variance = 1.0
            deviations.append(variance**0.5)
            variance = (1.0 if reset and b == 0 else variance) + alpha**2
    return deviations


def never_reset(blocks, alpha):
    return books(blocks, alpha, reset=False)


def reset_too_early(blocks, alpha):
    return books(blocks, alpha, early=True)


def variances(blocks, alpha):
    return [beta**2 for beta in books(blocks, alpha)]


def alpha_not_squared(blocks, alpha):
    return books(blocks, alpha**0.5)


def one_a_stage(blocks, alpha):
    return books([1] * len(blocks), alpha)


def norms(x):
    return np.sqrt(np.sum(x**2, axis=tuple(range(x.ndim - 1))))


def whole_tensor(g, w, limit, eps=1e-3):
    return g * min(1, limit * max(np.linalg.norm(w), eps) / max(np.linalg.norm(g), 1e-12))


def always_scaled(g, w, limit, eps=1e-3):
    return g * limit * np.maximum(norms(w), eps) / np.maximum(norms(g), 1e-12)


def without_floor(g, w, limit, eps=1e-3):
    return g * np.minimum(1, limit * norms(w) / np.maximum(norms(g), 1e-12))


def without_limit(g, w, limit, eps=1e-3):
    return g * np.minimum(1, np.maximum(norms(w), eps) / np.maximum(norms(g), 1e-12))


CARDS = [
    Card(
        key="02.1",
        check=check_02_1_standardise,
        wrong=[
            (unit_variance, "root of the fan-in N is missing"),
            (not_centred, "The mean is still there"),
            (all_channels_together, "all channels share one"),
            (without_gain, "The gain is missing"),
            (in_place, "`w`, which was passed in, has changed"),
        ],
    ),
    Card(
        key="02.2",
        check=check_02_2_standardise_gradient,
        wrong=[
            (forgets_the_length, "part along the weights"),
            (forgets_the_mean, "Its mean is still in it"),
            (forgets_the_scale, "gain over the length"),
        ],
    ),
    Card(
        key="02.3",
        check=check_02_3_unit_gain,
        wrong=[(mean_square, "about the mean"), (no_root, "take a root"), (spread_itself, "the gain undoes it")],
    ),
    Card(
        key="02.4",
        check=check_02_4_betas,
        wrong=[
            (never_reset, "variance is 1 . alpha.2 again"),
            (reset_too_early, "the reset is behind it"),
            (variances, "beta is the standard deviation"),
            (alpha_not_squared, "grows by alpha squared"),
            (one_a_stage, "the list of betas has shape"),
        ],
    ),
    Card(
        key="02.5",
        check=check_02_5_clip_by_unit,
        wrong=[
            (whole_tensor, "a ratio of its own"),
            (always_scaled, "Small gradients have grown"),
            (without_floor, "can never leave 0"),
            (without_limit, "The limit is missing"),
        ],
    ),
]
