"""Checks of notebook 11: an interval, two specialists, and the choice of examples (chapter §5).

Not here: the library's tasks and scores (`evaluation/`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, shape_is, value_is


@check(
    "11.1",
    where="Square both sides of |s - p| = z sqrt(p (1 - p) / n) and order by powers of p: a p² + b p + c = 0.",
    formula=(
        "middle = (s + z²/2n) / (1 + z²/n); half = z sqrt(s (1 - s)/n + z²/4n²) / (1 + z²/n); low, high = "
        "middle -+ half"
    ),
)
def check_11_1_wilson(wilson):
    """wilson(hits, z=1.96) -> (low, high)."""
    rng = fresh_rng()
    n = int(rng.integers(15, 60))
    right = int(rng.integers(n // 3, n - 4))
    for hits in (np.arange(n) < right, np.ones(n), np.zeros(n)):
        got = wilson(hits)
        shape_is(got, (2,), "(low, high)")
        s, z = float(np.mean(hits)), 1.96
        spread = z * np.sqrt(s * (1 - s) / n)
        middle, half = _wilson(s, n, z)
        mistakes = {
            "That is the share give or take z standard errors; Wilson's has another middle and width.": (
                s - spread,
                s + spread,
            ),
            "The middle is right, but the width lacks the z²/4n² under the root.": (
                middle - spread / (1 + z * z / n),
                middle + spread / (1 + z * z / n),
            ),
            "Both middle and half width are divided by 1 + z²/n.": (
                s + z * z / (2 * n) - half,
                s + z * z / (2 * n) + half,
            ),
            "(high, low) came back; low comes first.": (middle + half, middle - half),
        }
        want, seen = (
            np.clip((middle - half, middle + half), 0, 1),
            _("{hits} of {n} were right; put both ends into the quadratic.").format(hits=int(np.sum(hits)), n=n),
        )
        value_is(got, want, seen, what="the interval", mistakes=mistakes)
    wide = wilson(np.arange(n) < right, z=2.58)
    middle, half = _wilson(right / n, n, 2.58)
    usual = _wilson(right / n, n, 1.96)
    mistakes = {
        "The argument z is not used: 2.58 asks for 99%, which is wider.": (usual[0] - usual[1], usual[0] + usual[1]),
    }
    want, hint = np.clip((middle - half, middle + half), 0, 1), "Every z in the formula is the argument z."
    value_is(wide, want, hint, what="the interval for z = 2.58", mistakes=mistakes)


def _wilson(s, n, z):
    half = z * np.sqrt(s * (1 - s) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (s + z * z / (2 * n)) / (1 + z * z / n), half


@check(
    "11.2",
    where=(
        "The loops above do it for one query and two classes. First the mean of each class, then distances to "
        "all means."
    ),
    formula="argmin over classes c of |query - mean of support[labels == c]|²",
)
def check_11_2_classify(classify):
    """classify(support (n, D), labels (n,), queries (m, D)) -> (m,)."""
    rng = fresh_rng()
    for _draw in range(200):  # until every mistake would show, as itself
        C, D, m = int(rng.integers(3, 5)), int(rng.integers(4, 8)), 200
        labels = rng.permutation(np.repeat(np.arange(C), rng.integers(2, 7, C) * np.array([1, 4, 1, 2][:C])))
        spread = rng.uniform(0.4, 2.0, D)  # of each feature: whoever divides by it gets other classes
        centres = spread * rng.standard_normal((C, D))
        support = centres[labels] + 0.9 * spread * rng.standard_normal((len(labels), D))
        queries = centres[rng.integers(0, C, m)] + 0.9 * spread * rng.standard_normal((m, D))
        means = np.stack([support[labels == c].mean(axis=0) for c in range(C)])
        want = _nearest(means, queries)
        mistakes = {
            "That is the class of the nearest single example; a prototype is the mean of a whole class.": labels[
                _nearest(support, queries)
            ],
            "A prototype is a mean: divide the sum of a class by the number of its examples.": _nearest(
                np.stack([support[labels == c].sum(axis=0) for c in range(C)]), queries
            ),
            "The class with the largest distance was taken; the nearest has the smallest.": _farthest(means, queries),
            "The largest dot product is not the smallest distance: long prototypes win.": (queries @ means.T).argmax(
                -1
            ),
            "The largest cosine is not the smallest distance: take the lengths of the difference.": (
                queries @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
            ).argmax(-1),
            "The distance is the root of the summed squares, not the sum of the absolute differences.": np.abs(
                queries[:, None] - means
            )
            .sum(-1)
            .argmin(-1),
            "A prototype is a mean, not a median.": _nearest(
                np.stack([np.median(support[labels == c], axis=0) for c in range(C)]), queries
            ),
        }
        if len({tuple(value) for value in (want, *mistakes.values())}) == 1 + len(mistakes):
            break
    got = classify(support, labels, queries)
    shape_is(got, (m,), "(m,)", what="the classes")
    value_is(got, want, "Compare the query with every class's mean.", what="the class", mistakes=mistakes)


def _nearest(points, queries):
    return np.sum((queries[:, None] - points) ** 2, axis=-1).argmin(axis=-1)


def _farthest(points, queries):
    return np.sum((queries[:, None] - points) ** 2, axis=-1).argmax(axis=-1)


@check(
    "11.3",
    where=(
        "The formula above. Make P, a row for each example, and Y, the one-hot labels; check the shapes of "
        "each product."
    ),
    formula="Xᵀ (P - Y) / n + decay * W",
)
def check_11_3_probe_gradient(probe_gradient):
    """probe_gradient(X (n, D), labels (n,), W (D, C), decay) -> (D, C)."""
    rng = fresh_rng()
    n, D, C = int(rng.integers(8, 12)), int(rng.integers(4, 7)), int(rng.integers(2, 4))
    X, labels, W = rng.standard_normal((n, D)), rng.integers(0, C, n), rng.standard_normal((D, C))
    decay = float(rng.uniform(0.05, 0.5))
    got = probe_gradient(X, labels, W, decay)
    hint = "(C, D) came back: transpose." if np.shape(got) == (C, D) and C != D else ""
    shape_is(got, (D, C), "(D, C)", hint=hint)
    P = np.exp(X @ W) / np.exp(X @ W).sum(axis=1, keepdims=True)
    data = X.T @ (P - np.eye(C)[labels]) / n
    mistakes = {
        "The loss is a mean over the examples: divide by n.": n * data + decay * W,
        "The decay has a gradient too: decay times W.": data,
        "The sign is wrong: this step makes the loss larger.": -data - decay * W,
        "The sign of the first term is wrong.": -data + decay * W,
        "decay/2 times the square has the derivative decay times W, without a 2.": data + 2 * decay * W,
        "The one-hot labels are missing: P - Y, not P.": X.T @ P / n + decay * W,
    }
    value_is(got, data + decay * W, what="the gradient", mistakes=mistakes)


@check(
    "11.4",
    where=(
        "Divide each dot product by the length of its row. np.argsort orders from small to large: where are "
        "the largest?"
    ),
    formula="np.argsort(support @ query / norms of the rows)[-k:]",
)
def check_11_4_rices(rices):
    """rices(query (D,), support (n, D), k) -> (k,) indices, the most similar last."""
    rng = fresh_rng()
    for _draw in range(3):
        _most_similar_last(rices, rng, n=int(rng.integers(14, 24)), k=int(rng.integers(5, 8)))
    _most_similar_last(rices, rng, n=2000, k=700)  # NumPy's argpartition happens to sort when k is small


def _most_similar_last(rices, rng, n, k):
    D = int(rng.integers(5, 9))
    query = rng.standard_normal(D)
    for _draw in range(50):
        support = rng.standard_normal((n, D)) * rng.uniform(0.2, 5.0, (n, 1))
        cosine = support @ query / np.linalg.norm(support, axis=1) / np.linalg.norm(query)
        order = np.argsort(cosine)
        want = order[-k:]
        dots, near = np.argsort(support @ query)[-k:], np.argsort(-np.sum((support - query) ** 2, axis=1))[-k:]
        shuffled = np.unique(np.sign(np.diff(want))).size == 2  # the order of the table is another answer
        if shuffled and set(dots) != set(want) != set(near) and not np.array_equal(dots, near):
            break
    got = rices(query, support, k)
    shape_is(got, (k,), "(k,)", what="the indices")
    got = np.asarray(got)
    holds(got.dtype.kind in "iu", "return indices, whole numbers, not similarities.")
    holds(len(set(got.tolist())) == k, "an example was chosen twice.")
    mistakes = {
        "The most similar belongs last, next to the query.": want[::-1],
        "Those are the least similar ones.": order[:k],
        "Long features won: divide by their lengths, cosine does not know them.": dots,
        "Those have the smallest distance; cosine asks for the angle, whatever the lengths.": near,
    }
    holds(set(got.tolist()) != set(order[:k].tolist()), "Those are the least similar ones.")
    hint = "These are the right ones, but not from less to more similar." if set(got) == set(want) else ""
    value_is(got, want, hint, what="the choice", mistakes=mistakes)
