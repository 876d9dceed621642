"""Wrong answers of notebook 03, contrastive pretraining."""

import numpy as np
from card import Card

from tinyflamingo.checks.n03_contrastive import (
    check_03_1_contrastive_loss,
    check_03_2_logits_gradient,
    check_03_3_duplicates,
    check_03_4_zero_shot,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def directions(logits):
    own = np.diagonal(logits)
    return [np.log(np.exp(logits).sum(axis=axis)) - own for axis in (1, 0)]


def one_direction(pictures, captions, scale):
    return directions(scale * unit(pictures) @ unit(captions).T)[0].mean()


def other_direction(pictures, captions, scale):
    return directions(scale * unit(pictures) @ unit(captions).T)[1].mean()


def clip_mean(pictures, captions, scale):
    return np.mean(directions(scale * unit(pictures) @ unit(captions).T))


def any_length(pictures, captions, scale):
    return np.mean(sum(directions(scale * pictures @ captions.T)))


def no_factor(pictures, captions, scale):
    return np.mean(sum(directions(unit(pictures) @ unit(captions).T)))


def divided(pictures, captions, scale):
    return np.mean(sum(directions(unit(pictures) @ unit(captions).T / scale)))


def summed(pictures, captions, scale):
    return np.sum(directions(scale * unit(pictures) @ unit(captions).T))


def softmax(logits, axis):
    e = np.exp(logits - logits.max())
    return e / e.sum(axis=axis, keepdims=True)


def rows_only(logits):
    return (softmax(logits, 1) - np.eye(len(logits))) / len(logits)


def columns_only(logits):
    return (softmax(logits, 0) - np.eye(len(logits))) / len(logits)


def no_mean(logits):
    return len(logits) * (rows_only(logits) + columns_only(logits))


def climbs(logits):
    return -rows_only(logits) - columns_only(logits)


def one_for_both(logits):
    return (softmax(logits, 0) + softmax(logits, 1) - np.eye(len(logits))) / len(logits)


def gradient_overflows(logits):
    with np.errstate(all="ignore"):
        e = np.exp(logits)
        return (e / e.sum(0) + e / e.sum(1, keepdims=True) - 2 * np.eye(len(logits))) / len(logits)


def with_diagonal(ids):
    return ids[:, None] == ids[None, :]


def neighbours_only(ids):
    out = np.zeros((len(ids), len(ids)), bool)
    for i in range(1, len(ids)):
        out[i, i - 1] = out[i - 1, i] = ids[i] == ids[i - 1]
    return out


def one_half(ids):
    return np.triu(ids[:, None] == ids[None, :], 1)


def numbers(ids):
    return ((ids[:, None] == ids[None, :]) & ~np.eye(len(ids), dtype=bool)).astype(float)


def plain_mean(pictures, captions):
    return (pictures @ captions.mean(axis=1).T).argmax(axis=1)


def first_caption(pictures, captions):
    return (pictures @ captions[:, 0].T).argmax(axis=1)


def farthest(pictures, captions):
    return (pictures @ unit(captions.mean(axis=1)).T).argmin(axis=1)


def nearest_caption(pictures, captions):
    C, P, J = captions.shape
    return (pictures @ captions.reshape(C * P, J).T).argmax(axis=1) // P


def picture_of_class(pictures, captions):
    return (pictures @ unit(captions.mean(axis=1)).T).argmax(axis=0)


CARDS = [
    Card(
        key="03.1",
        check=check_03_1_contrastive_loss,
        wrong=[
            (one_direction, "Only the pictures ask"),
            (other_direction, "Only the captions ask"),
            (clip_mean, "That is half of it"),
            (any_length, "not brought to length 1"),
            (no_factor, "The factor is missing"),
            (divided, "multiply by it"),
            (summed, "take the mean"),
        ],
    ),
    Card(
        key="03.2",
        check=check_03_2_logits_gradient,
        wrong=[
            (rows_only, "Only the rows' softmax"),
            (columns_only, "Only the columns' softmax"),
            (no_mean, "mean over the B pairs"),
            (climbs, "sign is wrong"),
            (one_for_both, "subtracted twice"),
        ],
        right=[gradient_overflows],
    ),
    Card(
        key="03.3",
        check=check_03_3_duplicates,
        wrong=[
            (with_diagonal, "the diagonal is True"),
            (neighbours_only, "captions 0 and 3 are equal"),
            (one_half, "captions 0 and 3 are equal"),
            (numbers, "should hold True and False"),
        ],
    ),
    Card(
        key="03.4",
        check=check_03_4_zero_shot,
        wrong=[
            (plain_mean, "averages are not brought to length 1"),
            (first_caption, "Only the first caption"),
            (farthest, "the .farthest. class"),
            (nearest_caption, "nearest single caption"),
            (picture_of_class, "One number for every picture"),
        ],
    ),
]
