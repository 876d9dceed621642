"""Checks of notebook 03, contrastive pretraining (chapter §2): loss, gradient, duplicates, zero-shot answers.

Not here: the library's own loss (`model/contrastive.py`).
"""

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, gradient_by_moving, holds, shape_is, value_is


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _directions(logits):
    """The losses of all rows and of all columns, each (B,)."""
    own = np.diagonal(logits)
    return np.log(np.sum(np.exp(logits), axis=1)) - own, np.log(np.sum(np.exp(logits), axis=0)) - own


@check(
    "03.1",
    where=(
        "The loops above. One table of logits is enough: one direction is a softmax along its rows, the other "
        "along its columns."
    ),
    formula=(
        "mean over i of: log sum_j exp(l_ij) + log sum_j exp(l_ji) - 2 l_ii, with l = scale * unit pictures @ "
        "unit captionsᵀ"
    ),
)
def check_03_1_contrastive_loss(contrastive_loss):
    """contrastive_loss(pictures, captions (B, J), scale) -> a number."""
    rng = fresh_rng()
    B, J = (int(n) for n in rng.choice(np.arange(4, 10), size=2, replace=False))
    scale, apart = float(rng.uniform(3, 6)), 0.0
    while apart < 1e-3:  # until one direction alone would show
        pictures = rng.standard_normal((B, J)) * rng.uniform(0.5, 1.5, (B, 1))
        captions = pictures + 0.5 * rng.standard_normal((B, J))
        cosines = _unit(pictures) @ _unit(captions).T
        by_picture, by_caption = _directions(scale * cosines)
        apart = abs(by_picture.mean() - by_caption.mean())
    got = contrastive_loss(pictures, captions, scale)
    shape_is(got, (), what="the loss")
    mistakes = {
        "Only the pictures ask here; every caption asks for its picture, too.": by_picture.mean(),
        "Only the captions ask here; every picture asks for its caption, too.": by_caption.mean(),
        "That is half of it: CLIP's mean of both directions. Flamingo's paper adds them up.": (
            by_picture + by_caption
        ).mean()
        / 2,
        "The vectors are not brought to length 1: long vectors win then, whatever their direction.": np.mean(
            sum(_directions(scale * pictures @ captions.T))
        ),
        "The factor is missing: a softmax of cosines alone is nearly flat.": np.mean(sum(_directions(cosines))),
        "scale is the inverse of the temperature: multiply by it.": np.mean(sum(_directions(cosines / scale))),
        "This is the sum over the pairs; take the mean.": np.sum(by_picture + by_caption),
    }
    value_is(got, np.mean(by_picture + by_caption), "Compare with the loops.", what="the loss", mistakes=mistakes)


@check(
    "03.2",
    where=(
        "The text above: for one softmax the gradient is probabilities minus 1 at the right answer. Each "
        "logit is in two of them."
    ),
    formula="(softmax along rows + softmax along columns - 2 I) / B",
)
def check_03_2_logits_gradient(logits_gradient):
    """logits_gradient(logits (B, B)) -> (B, B)."""
    rng = fresh_rng()
    B = int(rng.integers(4, 8))
    logits = rng.standard_normal((B, B))
    got = logits_gradient(logits)
    shape_is(got, (B, B), "(B, B)")
    e, right = np.exp(logits), np.eye(B)
    rows, columns = e / e.sum(axis=1, keepdims=True) - right, e / e.sum(axis=0, keepdims=True) - right
    want = gradient_by_moving(lambda moved: np.mean(sum(_directions(moved))), logits, 1.0)
    mistakes = {
        "Only the rows' softmax is in it: each logit stands in a column, too.": rows / B,
        "Only the columns' softmax is in it: each logit stands in a row, too.": columns / B,
        "The mean over the B pairs is missing.": rows + columns,
        "The sign is wrong: on the diagonal the loss falls when the logit rises.": -want,
        "The 1 at the right answer stands in two softmaxes, so it is subtracted twice.": want + right / B,
    }
    value_is(got, want, "Moving the logits a little says otherwise.", tol=1e-4, mistakes=mistakes)


@check(
    "03.3",
    where=(
        "Compare every number with every other: one axis for the first caption, one for the second. Then "
        "treat the diagonal."
    ),
    formula="(ids[:, None] == ids[None, :]) and not the diagonal",
)
def check_03_3_duplicates(duplicates):
    """duplicates(caption_ids (B,)) -> bool (B, B)."""
    rng = fresh_rng()
    B = int(rng.integers(7, 12))
    ids = rng.integers(0, 4, B)
    ids[[0, 3, 5]] = 9  # three alike, none beside the other
    got = duplicates(ids)
    shape_is(got, (B, B), "(B, B)")
    got = np.asarray(got)
    holds(got.dtype == bool, _("the table holds {dtype}; it should hold True and False.").format(dtype=got.dtype))
    holds(not np.diagonal(got).any(), "the diagonal is True: a caption's own picture is the right answer, keep it in.")
    holds(got[0, 3] and got[3, 0], "captions 0 and 3 are equal, and neither may count as a wrong answer of the other.")
    holds(np.array_equal(got, got.T), "the table should be symmetric: if 0 is a duplicate of 3, 3 is one of 0.")
    want = (ids[:, None] == ids) & ~np.eye(B, dtype=bool)
    value_is(got, want, "True where the numbers are equal and the places are not.")


@check(
    "03.4",
    where=(
        "Three steps: average over P, bring to length 1, take the largest cosine. The mean of unit vectors is "
        "shorter than 1."
    ),
    formula="c = mean over P, divided by its own length; answer = argmax over classes of pictures @ cᵀ",
)
def check_03_4_zero_shot(zero_shot):
    """zero_shot(pictures (B, J), captions (C, P, J)) -> (B,), with classes whose captions scatter unevenly."""
    rng = fresh_rng()
    B, C, P, J = 400, int(rng.integers(5, 8)), int(rng.integers(3, 5)), 12
    centres = _unit(rng.standard_normal((C, J)))
    scatter = np.where(np.arange(C) % 2, 0.05, 1.2)[:, None, None]
    captions = _unit(centres[:, None] + scatter * rng.standard_normal((C, P, J)) / np.sqrt(J) ** 0.5)
    pictures = _unit(centres[rng.integers(C, size=B)] + 0.35 * rng.standard_normal((B, J)))
    mean = captions.mean(axis=1)
    want = (pictures @ _unit(mean).T).argmax(axis=1)
    got = zero_shot(pictures, captions)
    shape_is(got, (B,), "(B,)", hint="One number for every picture.")
    got = np.asarray(got)
    holds(
        got.dtype.kind in "iu",
        _("your result holds {dtype}; it should hold the numbers of classes.").format(dtype=got.dtype),
    )
    mistakes = {
        "The averages are not brought to length 1: classes whose captions agree win too often.": (
            pictures @ mean.T
        ).argmax(axis=1),
        "Only the first caption of each class is read; average over all P.": (pictures @ captions[:, 0].T).argmax(
            axis=1
        ),
        "That is the *farthest* class; the nearest has the largest cosine.": (pictures @ _unit(mean).T).argmin(axis=1),
        "The nearest single caption decides here; the mean of a class's captions should.": (
            (pictures @ captions.reshape(C * P, J).T).argmax(axis=1) // P
        ),
    }
    value_is(got, want, "The largest cosine with a class's unit vector.", mistakes=mistakes)
