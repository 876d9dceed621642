"""Checks of notebook 06, the language model's block (chapter §4): RMSNorm, relative positions, the best size.

Not here: the library's own versions (`ops/reference.py`, `model/language_model.py`).
"""

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, gradient_by_moving, holds, shape_is, value_is


def _rms_norm(x, gain, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * gain


@check(
    "06.1",
    where=(
        "The loops above. The mean is over one row (the last axis), and eps is the argument: other values "
        "than 1e-6 come too."
    ),
    formula="x / sqrt(mean(x², last axis) + eps) * gain",
)
def check_06_1_rms_norm(rms_norm):
    """rms_norm(x (..., D), gain (D,), eps) -> (..., D)."""
    rng = fresh_rng()
    B, T, D = (int(n) for n in rng.choice(np.arange(3, 9), size=3, replace=False))
    gain, eps = rng.uniform(0.5, 2, D), float(rng.uniform(0.05, 0.2))
    for shape in ((T, D), (B, T, D), (D,)):
        x = rng.standard_normal(shape) + 2.5  # no row near 0, where an eps of 1e-6 differs from none
        got = rms_norm(x, gain, eps)
        shape_is(got, shape, "(..., D)")
        centred = x - x.mean(axis=-1, keepdims=True)
        mistakes = {
            "The mean is subtracted: that is LayerNorm; RMSNorm only divides.": _rms_norm(centred, gain, eps),
            "This divides by the norm of the row: take the mean of the squares, not their sum.": x
            / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps)
            * gain,
            "The gain is missing.": _rms_norm(x, 1.0, eps),
            "eps is not in it. Use the argument eps: other values than 1e-6 come too.": _rms_norm(x, gain, 0.0),
            "eps stands outside of the root; it is added to the mean square.": x
            / (np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + eps)
            * gain,
            "The mean runs over all of x; every row is normalised by itself, along the last axis.": x
            / np.sqrt(np.mean(x * x) + eps)
            * gain,
        }
        value_is(got, _rms_norm(x, gain, eps), "Compare with the loops.", mistakes=mistakes)


@check(
    "06.2",
    where="The formula above has two terms. The sum over e is one number for each row, and a row has D entries.",
    formula="a = g * gain; a / r - x * sum(a * x, last axis) / (D r³), with r = sqrt(mean(x²) + eps)",
)
def check_06_2_rms_norm_gradient(rms_norm_gradient):
    """rms_norm_gradient(x (T, D), gain (D,), g (T, D), eps) -> (T, D)."""
    rng = fresh_rng()
    T, D = (int(n) for n in rng.choice(np.arange(3, 8), size=2, replace=False))
    x, g = rng.standard_normal((2, T, D))
    gain, eps = rng.uniform(0.5, 2, D), float(rng.uniform(0.05, 0.2))
    got = rms_norm_gradient(x, gain, g, eps)
    shape_is(got, (T, D), "(T, D)")
    want = gradient_by_moving(lambda moved: _rms_norm(moved, gain, eps), x, g)
    r = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    through_r = x * np.sum(g * gain * x, axis=-1, keepdims=True) / r**3
    plain = x * np.sum(g * x, axis=-1, keepdims=True) / (D * r**3)
    mistakes = {
        "The second way is missing: every x also changes the root that all share.": g * gain / r,
        "The 1 / D of the mean is missing in the second term.": g * gain / r - through_r,
        "The second term has the wrong sign: a longer row makes all outputs smaller.": g * gain / r + through_r / D,
        "The gain is missing: what arrives behind it is g * gain.": g / r - plain,
    }
    value_is(got, want, "Moving x a little says otherwise.", tol=1e-4, mistakes=mistakes)


@check(
    "06.3",
    where="Make a column of distances and a row of frequencies; their product is a table of angles, (S, D/2).",
    formula="angle = n * 10000 ** (-2 m / D); result = [sin(angle), cos(angle)] along the columns",
)
def check_06_3_sinusoids(sinusoids):
    """sinusoids(S, D) -> (S, D)."""
    rng = fresh_rng()
    S, D = 2 * int(rng.integers(3, 6)) - 1, 2 * int(rng.integers(3, 8))  # never equal
    got = sinusoids(S, D)
    shape_is(got, (S, D), "(S, D)")
    n, m = np.arange(S)[:, None], np.arange(D // 2)
    angle = n * 10000.0 ** (-2 * m / D)
    in_turns = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(S, D)
    slow = n * 10000.0 ** (-m / D)
    growing = n * 10000.0 ** (2 * m / D)
    later = (n + 1) * 10000.0 ** (-2 * m / D)

    def waves(angle):
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    mistakes = {
        "Sines and cosines take turns here; in Transformer-XL all sines come first.": in_turns,
        "The cosines come first here; the sines are the first half.": np.concatenate(
            [np.cos(angle), np.sin(angle)], axis=1
        ),
        "The frequencies fall too slowly: the exponent is -2 m / D, for m = 0 .. D/2 - 1.": waves(slow),
        "The frequencies grow; the exponent has a minus, the waves get longer.": waves(growing),
        "Row 0 is the distance 0, the token itself; your rows begin at 1.": waves(later),
    }
    value_is(got, waves(angle), "sin and cos of n * 10000 ** (-2 m / D).", mistakes=mistakes)


def _scores(q, k, r, u, v):
    T, K = q.shape
    distance = np.arange(T)[:, None] - np.arange(T)
    far = np.take_along_axis((q + v) @ r.T, np.maximum(distance, 0), axis=1)
    return np.where(distance >= 0, ((q + u) @ k.T + far) / K**0.5, -np.inf)


@check(
    "06.4",
    where=(
        "Make the two products first: queries with keys, queries with distances. Then take column i - j of "
        "the second in row i."
    ),
    formula="((q + u) kᵀ [i, j] + (q + v) rᵀ [i, i - j]) / sqrt(K) for j <= i, else -inf",
)
def check_06_4_relative_scores(relative_scores):
    """relative_scores(q, k, r (T, K), u, v (K,)) -> (T, T), the future -inf."""
    rng = fresh_rng()
    T, K = (int(n) for n in rng.choice(np.arange(4, 9), size=2, replace=False))
    q, k, r = rng.standard_normal((3, T, K))
    u, v = rng.standard_normal((2, K))
    got = relative_scores(q, k, r, u, v)
    shape_is(got, (T, T), "(T, T)")
    got = np.asarray(got, float)
    future = np.triu(np.ones((T, T), bool), 1)
    i, j = (int(n) for n in np.argwhere(future)[rng.integers(future.sum())])
    holds(
        np.all(got[future] == -np.inf),
        _("query {i} sees key {j}, which is in its future: that score is -inf.").format(i=i, j=j),
    )
    holds(np.isfinite(got[~future]).all(), "some score of the past, or of the token itself, is not a number.")
    by_key = ((q + u) @ k.T + (q + v) @ r.T) / K**0.5
    turned = ((q + u) @ k.T + (q + v) @ r[::-1].T) / K**0.5
    mistakes = {
        "Row j of r goes with key j here; it belongs to the distance i - j. The shift is missing.": by_key,
        "The rows of r are in reverse order, but not yet shifted against each other.": turned,
        "u and v have changed places: u goes with the keys, v with the distances.": _scores(q, k, r, v, u),
        "The scores are not divided by the root of K.": _scores(q, k, r, u, v) * K**0.5,
        "u and v are missing: they are added to every query.": _scores(q, k, r, 0 * u, 0 * v),
    }
    hint = "Compare with the loops: score (i, j) takes row i - j of r."
    want = _scores(q, k, r, u, v)
    mistakes = {h: np.where(future, 0, value) for h, value in mistakes.items()}
    value_is(np.where(future, 0, got), np.where(future, 0, want), hint, mistakes=mistakes)


@check(
    "06.5",
    where="After you put D in, only N is unknown: A / N^alpha + B (6 N / C)^beta. Its derivative is 0 at the bottom.",
    formula="N = (alpha A / (beta B)) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta)); D = C / (6 N)",
)
def check_06_5_optimal(optimal):
    """optimal(C, A, B, alpha, beta) -> (N, D)."""
    rng = fresh_rng()
    C, A, B = 10 ** rng.uniform(19, 24), rng.uniform(200, 800), rng.uniform(200, 800)
    alpha, beta = 0.28 + rng.uniform(0, 0.02), 0.36 + rng.uniform(0, 0.04)
    got = optimal(C, A, B, alpha, beta)
    shape_is(got, (2,), what="the pair (N, D)")
    N, D = (float(n) for n in got)
    holds(N > 0 and D > 0, "N and D are numbers of parameters and tokens: both above 0.")
    holds(abs(N * D / C - 1) > 1e-6, "N D should be C / 6, not C: a token costs 6 flops a parameter.")
    spent = 6 * N * D / C
    holds(
        abs(spent - 1) < 1e-6,
        _("6 N D is {spent:.3g} times the budget C; all of it should be spent, and no more.").format(spent=spent),
    )
    ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    best = ratio * (C / 6) ** (beta / (alpha + beta))
    swapped = ratio * (C / 6) ** (alpha / (alpha + beta))
    holds(
        abs(N / swapped - 1) > 1e-6,
        "alpha and beta have changed places in the exponent: the term that falls more slowly needs more of its kind.",
    )
    holds(abs(N / (best / ratio) - 1) > 1e-6, "the factor with A and B is missing: the terms weigh differently.")

    def loss(N):
        return A / N**alpha + B * (6 * N / C) ** beta

    better = _("smaller") if loss(N / 1.01) < loss(N) else _("larger")
    holds(
        loss(N) <= min(loss(N / 1.01), loss(N * 1.01)),
        _("a {better} model of the same budget has a lower predicted loss.").format(better=better),
    )
    value_is(np.array(N), np.array(best), "Set the derivative by N to zero.", what="N", tol=1e-4)
