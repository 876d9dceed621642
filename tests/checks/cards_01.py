"""Wrong answers to the exercises of notebook 01, as they are met."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_01_1_way_back,
    check_01_2_linear_vjp,
    check_01_3_softmax_vjp,
    check_01_4_measured_slope,
    check_01_5_kernel,
)

# ---------------------------------------------------------------- 01.1


def way_forward(made_of, end):
    order = []

    def visit(name):
        if name not in order:
            for part in made_of.get(name, ()):
                visit(part)
            order.append(name)

    visit(end)
    return order


def depth_first(made_of, end):
    order = []

    def visit(name):
        if name not in order:
            order.append(name)
            for part in made_of.get(name, ()):
                visit(part)

    visit(end)
    return order


def breadth_first(made_of, end):
    order, waiting = [], [end]
    while waiting:
        name = waiting.pop(0)
        if name not in order:
            order.append(name)
            waiting += made_of.get(name, ())
    return order


def with_repeats(made_of, end):
    return [end] + [name for part in made_of.get(end, ()) for name in with_repeats(made_of, part)]


def of_keys_only(made_of, end):
    return [name for name in way_forward(made_of, end)[::-1] if name in made_of]


def of_everything(made_of, end):
    rest = [name for name in made_of if name not in way_forward(made_of, end)]
    return way_forward(made_of, end)[::-1] + rest


# ---------------------------------------------------------------- 01.4


def one_sided(f, x, direction, eps=1e-5):
    return (f(x + eps * direction) - f(x)) / eps


def two_forgotten(f, x, direction, eps=1e-5):
    return (f(x + eps * direction) - f(x - eps * direction)) / eps


def along_ones(f, x, direction, eps=1e-5):
    return (f(x + eps) - f(x - eps)) / (2 * eps)


def unit_direction(f, x, direction, eps=1e-5):
    d = direction / np.sqrt(np.sum(direction**2))
    return (f(x + eps * d) - f(x - eps * d)) / (2 * eps)


def an_entry_each(f, x, direction, eps=1e-5):
    return one_sided(f, x, direction, eps) * direction


# ---------------------------------------------------------------- 01.5


def names_new_arrays(x, out, slope):
    out = np.maximum(x, 0) ** 2
    slope = 2 * np.maximum(x, 0)
    return out, slope


def leaves_the_last_column(x, out, slope):
    out[:, :-1] = np.maximum(x, 0)[:, :-1] ** 2
    slope[:, :-1] = 2 * np.maximum(x, 0)[:, :-1]


def squares_negatives(x, out, slope):
    out[:] = x * x
    slope[:] = 2 * np.maximum(x, 0)


def works_in_x(x, out, slope):
    x[x < 0] = 0
    out[:] = x * x
    slope[:] = 2 * x


def forgets_the_two(x, out, slope):
    out[:] = np.maximum(x, 0) ** 2
    slope[:] = np.maximum(x, 0)


def swallows_nan(x, out, slope):
    positive = np.where(x > 0, x, 0.0)
    out[:] = positive**2
    slope[:] = 2 * positive


CARDS = [
    Card(
        "01.1",
        check_01_1_way_back,
        [
            (way_forward, "begins with the givens"),
            (depth_first, "has not got all of its slope yet"),
            (breadth_first, "has not got all of its slope yet"),
            (with_repeats, "stands in it twice"),
            (of_keys_only, "is missing"),
            (of_everything, "is not needed for"),
        ],
    ),
    Card(
        "01.2",
        check_01_2_linear_vjp,
        [
            (lambda g, x, w: (x.T @ g, g @ w.T), "changed places"),
            (lambda g, x, w: (g @ w.T, g.T @ x), r"dw has shape .* but \(D, E\)"),
            (lambda g, x, w: (g @ w.T, x.T @ g / len(x)), "it is a sum"),
            (lambda g, x, w: g @ w.T, "2 results were expected, dx, dw"),
            (lambda g, x, w: (np.ones_like(g) @ w.T, x.T @ g), "g goes back through w"),
        ],
    ),
    Card(
        "01.3",
        check_01_3_softmax_vjp,
        [
            (lambda g, w: g * w * (1 - w), "the diagonal alone"),
            (lambda g, w: g * w, "A term is missing"),
            (lambda g, w: w * (g - np.sum(g * w)), "each row of shares is a softmax of its own"),
            (lambda g, w: w * (g - g.sum(-1, keepdims=True)), "not weighted with the shares"),
            (lambda g, w: g - (g * w).sum(-1, keepdims=True), "Compare with the loops"),
        ],
    ),
    Card(
        "01.4",
        check_01_4_measured_slope,
        [
            (one_sided, "one-sided difference"),
            (two_forgotten, "2 eps apart"),
            (along_ones, "not along the direction"),
            (unit_direction, "made of length 1"),
            (an_entry_each, "f is a scalar, so is its slope"),
        ],
    ),
    Card(
        "01.5",
        check_01_5_kernel,
        [
            (names_new_arrays, "names another array"),
            (leaves_the_last_column, "count rows and columns"),
            (squares_negatives, "out is x squared for negative x"),
            (works_in_x, "x has changed"),
            (forgets_the_two, r"slope is 2 max\(x, 0\)"),
            (swallows_nan, "NaN goes in and a number comes out"),
        ],
    ),
]
