"""Checks of notebook 01, reverse mode: the order, two vjps, a measured slope, a kernel."""

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, pair_is, shape_is, value_is

# ---------------------------------------------------------------- 01.1


def _graphs(rng):
    """(made_of, end): a chain, ones where short and long ways meet, random ones, and an input, under random names."""
    letters = [str(letter) for letter in rng.permutation(list("abcdefghijkmnpqrst"))]
    a, b, c, d, e, f = letters[:6]
    yield {c: [b], b: [a]}, c
    yield {b: [a], c: [b], d: [c], e: [a, d], f: [c]}, e  # a is near to e and far; f is not needed
    yield {e: [d, b], d: [c, b], c: [b], b: [a, a]}, e
    for _row in range(6):
        names = letters[: int(rng.integers(6, 12))]
        yield {n: [names[int(j)] for j in rng.integers(i, size=2)] for i, n in enumerate(names) if i > 1}, names[-1]
    yield {}, a  # an input is made of nothing


@check(
    "01.1",
    where=(
        "Put a name into the list only after all its parts are in the list. What do you get if you read that "
        "list backwards?"
    ),
    formula="visit(name): visit every part of it, then append name, each name once; the answer is the reversed list",
)
def check_01_1_way_back(way_back):
    """Every name before what it was made of, each once, and only those that are needed."""
    for made_of, end in _graphs(fresh_rng()):
        order = way_back({name: list(parts) for name, parts in made_of.items()}, end)
        holds(order is not None, "your function returns None: a `return` is missing.")
        holds(not isinstance(order, str), "your function returns one string; a list of names was expected.")
        order = list(order)
        lead = _("For {made_of} from {end} your order is {order}. ").format(made_of=made_of, end=end, order=order)
        holds(len(set(order)) == len(order), lead + _("A name stands in it twice: its slope would be handed on twice."))
        needed, waiting = set(), [end]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += made_of.get(name, [])
        missing, extra = sorted(needed - set(order)), sorted(set(order) - needed)
        holds(not missing, lead + _("{missing} is missing.").format(missing="".join(missing[:1])))
        holds(not extra, lead + _("{extra} is not needed for {end}.").format(extra="".join(extra[:1]), end=end))
        hint = lead + _("It begins with the givens: the way back begins at {end}.").format(end=end)
        holds(order[0] == end or order[-1] != end, hint)
        for name in order:
            for part in made_of.get(name, []):
                hint = _(
                    "{part} comes before {name}, which is made of it: {part} has not got all of its slope yet."
                ).format(part=part, name=name)
                holds(order.index(name) < order.index(part), lead + hint)


# ---------------------------------------------------------------- 01.2 and 01.3


@check(
    "01.2",
    where=(
        "The loops above: which index do they sum over for dx, and which for dw? That index must be the inner "
        "one of the product."
    ),
    formula="dx = g wᵀ; dw = xᵀ g",
)
def check_01_2_linear_vjp(linear_vjp):
    """dx and dw; the sizes differ, so that a transpose in the wrong place shows."""
    rng = fresh_rng()
    T, D, E = (int(n) for n in rng.choice(np.arange(2, 9), size=3, replace=False))
    x, w, g = rng.standard_normal((T, D)), rng.standard_normal((D, E)), rng.standard_normal((T, E))
    gradients = linear_vjp(g, x, w)
    pair_is(gradients, ("dx", "dw"))
    dx, dw = gradients
    swapped = np.shape(dx) == (D, E) and np.shape(dw) == (T, D)
    holds(not swapped, "dx and dw have changed places.")
    shape_is(dx, (T, D), "(T, D)", "dx", "A gradient has the shape of what it belongs to.")
    shape_is(dw, (D, E), "(D, E)", "dw", "A gradient has the shape of what it belongs to.")
    holds(not np.allclose(dw, (x.T @ g) / T), "dw is a mean over the rows: every row adds its share, it is a sum.")
    value_is(dx, g @ w.T, "g goes back through w.", "dx")
    value_is(dw, x.T @ g, "Each row of x meets its row of g, and the rows add up.", "dw")


@check(
    "01.3",
    where="Multiply the sum over i out. Two terms remain; in one of them the sum is the same number for a whole row.",
    formula="w * (g - sum of g * w over the last axis)",
)
def check_01_3_softmax_vjp(softmax_vjp):
    """The gradient of the scores, for a matrix and for a single row."""
    rng = fresh_rng()
    T, S = int(rng.integers(2, 6)), int(rng.integers(3, 8))
    w = np.exp(rng.standard_normal((T, S)))
    w, g = w / w.sum(-1, keepdims=True), rng.standard_normal((T, S))
    got, own = softmax_vjp(g, w), (g * w).sum(-1, keepdims=True)
    shape_is(got, (T, S), "(T, S)")
    mistakes = {
        "This is the diagonal alone: a score takes its share away from all the others of its row.": g * w * (1 - w),
        "The shares add up to 1: what one gains the others lose. A term is missing.": g * w,
        "The sum runs over all rows: each row of shares is a softmax of its own.": w * (g - np.sum(g * w)),
        "The sum runs within each column: each row of shares is a softmax of its own.": w * (g - (g * w).sum(0)),
        "The sum is not weighted with the shares.": w * (g - g.sum(-1, keepdims=True)),
        "What is subtracted is the mean of g under the shares, not its plain mean.": w
        * (g - g.mean(-1, keepdims=True)),
        "The sign is wrong: a score that rises takes from the others.": w * (own - g),
    }
    value_is(got, w * (g - own), "Compare with the loops.", mistakes=mistakes)
    value_is(softmax_vjp(g[0], w[0]), got[0], "A single row should work too: sum over the last axis.")


# ---------------------------------------------------------------- 01.4


@check(
    "01.4",
    where=(
        "The curves above: the error of one side falls with eps, the error of two sides with eps². How far "
        "apart are the two points?"
    ),
    formula="(f(x + eps d) - f(x - eps d)) / (2 eps)",
)
def check_01_4_measured_slope(measured_slope):
    """Of a function that is curved, along a direction that is no unit vector."""
    rng = fresh_rng()
    x, direction = rng.standard_normal((2, 3)), 2 + rng.random((2, 3))

    def f(z):
        return float(np.sum(np.exp(z)))

    got, want = measured_slope(f, x, direction), float(np.sum(np.exp(x) * direction))
    shape_is(got, (), what="the slope", hint="f is a scalar, so is its slope along a direction.")
    holds(not np.isclose(got, 2 * want, rtol=1e-4), "your slope is twice too large: the two points are 2 eps apart.")
    length = float(np.sqrt(np.sum(direction**2)))
    hint = "your slope is that along the direction made of length 1; go along it as it is."
    holds(not np.isclose(got, want / length, rtol=1e-4), hint)
    holds(not np.isclose(got, float(np.sum(np.exp(x))), rtol=1e-4), "you move along ones and not along the direction.")
    coarse, curve = measured_slope(f, x, direction, eps=1e-2), float(np.sum(np.exp(x) * direction**2))
    bent = abs(abs(coarse - want) - 0.5e-2 * curve) < 0.1e-2 * curve
    holds(not bent, "that is the one-sided difference: its error shrinks with eps only. Go both ways.")
    value_is(got, want, "It is not exact enough, or not the slope of f along the direction.", "the slope", tol=1e-6)
    hint = "eps is an argument: other values than 1e-5 come too. Move by it and divide by it."
    holds(coarse != got, hint)
    value_is(coarse, want, hint, "the slope with eps = 0.01", tol=1e-3)


# ---------------------------------------------------------------- 01.5


@check(
    "01.5",
    where=(
        "Two loops, over rows and columns. Decide with a comparison which numbers become 0; any comparison "
        "with NaN is false."
    ),
    formula="p = 0 if x[m, d] < 0, else x[m, d]; out[m, d] = p * p; slope[m, d] = 2 * p",
    in_place=True,
)
def check_01_5_kernel(kernel):
    """Arrays are filled in place, every entry, and NaN passes."""
    rng = fresh_rng()
    M, D = int(rng.integers(2, 5)), int(rng.integers(5, 8))
    x = rng.standard_normal((M, D))
    x[0, -1], x[-1, -1] = -1 - rng.random(), 1 + rng.random()
    out, slope = np.full((M, D), -7.0), np.full((M, D), -7.0)
    before = x.copy()
    kernel(x, out, slope)
    holds(np.array_equal(x, before), "x has changed: a kernel writes into out and slope only.")
    untouched = bool(np.all(out == -7) and np.all(slope == -7))
    hint = "out and slope are as they were: write into their entries, out[m, d] = ...; out = ... names another array."
    holds(not untouched, hint)
    holds(not np.any(out == -7) and not np.any(slope == -7), "some entries were not filled: count rows and columns.")
    positive = np.maximum(x, 0)
    holds(not np.allclose(out, x * x), "out is x squared for negative x, too: those are 0.")
    value_is(out, positive**2, "out is max(x, 0) squared.", "out")
    value_is(slope, 2 * positive, "slope is 2 max(x, 0), the derivative.", "slope")
    x[0, 0] = np.nan
    kernel(x, out, slope)
    hint = "NaN goes in and a number comes out: a comparison with NaN is false, so let the other branch keep x."
    holds(np.isnan(out[0, 0]) and np.isnan(slope[0, 0]), hint)
