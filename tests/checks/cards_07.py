"""Wrong answers to the exercises of notebook 07, as they are met."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_07_1_with_marks,
    check_07_2_phi,
    check_07_3_mask,
    check_07_4_masked_softmax,
    check_07_5_phi_next,
)

# ---------------------------------------------------------------- 07.1


def closes_before_a_leading_image(items):
    row = ["<BOS>"]
    for item in items:
        row += ["<EOC>", item] if item == "image" else [item]
    return [*row, "<EOC>"]


def leaves_the_last_chunk_open(items):
    return closes_between(items)[:-1]


def closes_between(items):
    row = ["<BOS>"]
    for place, item in enumerate(items):
        row += ["<EOC>", item] if item == "image" and place else [item]
    return [*row, "<EOC>"]


def closes_after_every_text(items):
    row = ["<BOS>"]
    for item in items:
        row += [item, "<EOC>"] if item == "text" else [item]
    return row if row[-1] == "<EOC>" else [*row, "<EOC>"]


def forgets_bos(items):
    return closes_between(items)[1:]


def returns_nothing(items):
    closes_between(items)


# ---------------------------------------------------------------- 07.2


def counts_tags_before(is_image):
    return np.cumsum(is_image, -1) - is_image


def counts_from_one(is_image):
    return np.cumsum(is_image, -1) + 1


def counts_over_the_batch(is_image):
    return np.cumsum(is_image).reshape(is_image.shape)


def marks_the_tags_only(is_image):
    return np.cumsum(is_image, -1) * is_image


# ---------------------------------------------------------------- 07.3


def owners(N, R):
    return np.repeat(np.arange(1, N + 1), R)


def sees_all_previous(phi, N, R):
    return phi[:, None] >= owners(N, R)


def sees_later_ones(phi, N, R):
    return (phi[:, None] <= owners(N, R)) & (phi[:, None] > 0)


def counts_images_from_zero(phi, N, R):
    return phi[:, None] == owners(N, R) - 1


def tiles(phi, N, R):
    return phi[:, None] == np.tile(np.arange(1, N + 1), R)


def a_column_an_image(phi, N, R):
    return phi[:, None] == np.arange(1, N + 1)


def gives_numbers(phi, N, R):
    return (phi[:, None] == owners(N, R)).astype(float)


# ---------------------------------------------------------------- 07.4


def softmax(scores):
    with np.errstate(all="ignore"):
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)


def shares_out_the_empty_row(scores, visible):
    return softmax(np.where(visible, scores, -1e9))


def has_nan_in_the_empty_row(scores, visible):
    return softmax(np.where(visible, scores, -np.inf))


def covers_afterwards(scores, visible):
    return softmax(scores) * visible


def multiplies_the_scores(scores, visible):
    return softmax(scores * visible) * visible.any(-1, keepdims=True)


def overflows(scores, visible):
    with np.errstate(all="ignore"):
        weights = np.exp(scores) * visible
        return np.nan_to_num(weights / np.where(visible.any(-1, keepdims=True), weights.sum(-1, keepdims=True), 1))


def warns(scores, visible):
    covered = np.where(visible, scores, -1e9)
    weights = np.exp(covered - covered.max(-1, keepdims=True)) * visible
    return np.nan_to_num(weights / weights.sum(-1, keepdims=True))


# ---------------------------------------------------------------- 07.5


def tags_look_ahead_too(is_image):
    return np.minimum(np.cumsum(is_image) + 1, is_image.sum())


def runs_past_the_end(is_image):
    return np.cumsum(is_image) - is_image + 1


def is_the_usual_phi(is_image):
    return np.cumsum(is_image)


def always_has_an_image(is_image):
    return np.minimum(np.cumsum(is_image) - is_image + 1, max(is_image.sum(), 1))


CARDS = [
    Card(
        "07.1",
        check_07_1_with_marks,
        [
            (closes_before_a_leading_image, "opens the page has no <EOC>"),
            (leaves_the_last_chunk_open, "at the end of the page"),
            (closes_after_every_text, "before every image|close a chunk"),
            (forgets_bos, "opens with <BOS>"),
            (returns_nothing, "`return` is missing"),
        ],
    ),
    Card(
        "07.2",
        check_07_2_phi,
        [
            (counts_tags_before, "number of its own image"),
            (counts_from_one, "token 0 has phi 1"),
            (counts_over_the_batch, "counts for itself"),
            (marks_the_tags_only, "can only grow"),
        ],
    ),
    Card(
        "07.3",
        check_07_3_mask,
        [
            (sees_all_previous, "sees image 1; Flamingo allows only the latest image, 2"),
            (sees_later_ones, "sees image 2; Flamingo allows only the latest image, 1"),
            (counts_images_from_zero, r"stands before every image \(phi 0\) but sees image"),
            (tiles, "repeat each number, do not tile"),
            (a_column_an_image, r"\(T, N \* R\) = .* was expected"),
            (gives_numbers, "should hold True and False"),
        ],
    ),
    Card(
        "07.4",
        check_07_4_masked_softmax,
        [
            (shares_out_the_empty_row, "it looks at everything"),
            (has_nan_in_the_empty_row, "sees nothing is NaN"),
            (covers_afterwards, "cover before the softmax"),
            (multiplies_the_scores, "what is not visible gets exactly 0"),
            (overflows, "largest score away before exp"),
            (warns, "NumPy warns"),
        ],
    ),
    Card(
        "07.5",
        check_07_5_phi_next,
        [
            (tags_look_ahead_too, "a tag carries its own image, in both modes"),
            (runs_past_the_end, "keeps the last one"),
            (is_the_usual_phi, "looks ahead to image 1"),
            (always_has_an_image, "without images"),
        ],
    ),
]
