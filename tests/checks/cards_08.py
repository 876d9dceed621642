"""Wrong answers to the exercises of notebook 08, as they are met."""

import numpy as np
from card import Card

from tinyflamingo.checks import (
    check_08_1_gate,
    check_08_2_block,
    check_08_3_shut_gates,
    check_08_4_gate_backward,
    check_08_5_first_move,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---------------------------------------------------------------- 08.2


def dense_reads_the_old_text(h, attend, dense, a, b):
    return h + np.tanh(a) * attend(h) + np.tanh(b) * dense(h)


def dense_comes_first(h, attend, dense, a, b):
    h = h + np.tanh(b) * dense(h)
    return h + np.tanh(a) * attend(h)


def one_gate_for_both(h, attend, dense, a, b):
    h = h + np.tanh(a) * attend(h)
    return h + np.tanh(a) * dense(h)


def gates_swapped(h, attend, dense, a, b):
    h = h + np.tanh(b) * attend(h)
    return h + np.tanh(a) * dense(h)


def no_residual(h, attend, dense, a, b):
    h = h + np.tanh(a) * attend(h)
    return np.tanh(b) * dense(h)


# ---------------------------------------------------------------- 08.3


def shuts_in_place(params):
    for name in params:
        if name.startswith("xattn_"):
            params[name]["alpha_xattn"] = params[name]["alpha_dense"] = np.zeros((), np.float32)
    return params


def shallow_copy(params):
    return shuts_in_place(dict(params))


def shuts(params, names, zero):
    return {k: {**v, **dict.fromkeys(names, zero)} if k.startswith("xattn_") else v for k, v in params.items()}


def shuts_one_kind(params):
    return shuts(params, ["alpha_xattn"], np.float32(0))


def shuts_in_float64(params):
    return shuts(params, ["alpha_xattn", "alpha_dense"], np.zeros(()))


def removes_the_blocks(params):
    return {name: part for name, part in params.items() if not name.startswith("xattn_")}


def zeroes_the_output_too(params):
    shut = shuts(params, ["alpha_xattn", "alpha_dense"], np.float32(0))
    return {k: {**v, "w_o": 0 * v["w_o"]} if k.startswith("xattn_") else v for k, v in shut.items()}


# ---------------------------------------------------------------- 08.4


def gradient(g, branch, alpha, dh=1.0, through=None, slope=None, total=np.sum):
    t = np.tanh(alpha)
    through = t if through is None else through
    slope = 1 - t * t if slope is None else slope
    return dh * g, through * g, slope * total(g * branch)


CARDS = [
    Card(
        "08.1",
        check_08_1_gate,
        [
            (lambda h, branch, alpha: h + alpha * branch, "multiplied by alpha itself"),
            (lambda h, branch, alpha: h + sigmoid(alpha) * branch, "exactly 0 there"),
            (lambda h, branch, alpha: (1 - np.tanh(alpha)) * h + np.tanh(alpha) * branch, "h fades as the gate"),
            (lambda h, branch, alpha: np.tanh(alpha) * (h + branch), "h passes the gate too"),
            (lambda h, branch, alpha: h + np.tanh(alpha * branch), r"alpha is -?\d"),
        ],
    ),
    Card(
        "08.2",
        check_08_2_block,
        [
            (dense_reads_the_old_text, "what the attention left"),
            (dense_comes_first, "comes first"),
            (one_gate_for_both, "One gate serves both"),
            (gates_swapped, "changed places"),
            (no_residual, "The text itself is gone"),
        ],
    ),
    Card(
        "08.3",
        check_08_3_shut_gates,
        [
            (shuts_in_place, "`params`, which was passed in, has changed"),
            (shallow_copy, "`params`, which was passed in, has changed"),
            (shuts_one_kind, "alpha_dense is .* still open"),
            (shuts_in_float64, "keep float32"),
            (removes_the_blocks, "they should still be"),
            (zeroes_the_output_too, "it is no gate"),
        ],
    ),
    Card(
        "08.4",
        check_08_4_gate_backward,
        [
            (lambda g, branch, alpha: gradient(g, branch, alpha, total=lambda x: x), "sum over all of them"),
            (lambda g, branch, alpha: gradient(g, branch, alpha, slope=1.0), "slope of tanh is missing"),
            (
                lambda g, branch, alpha: gradient(g, branch, alpha, slope=np.tanh(alpha)),
                "where the slope of tanh belongs",
            ),
            (lambda g, branch, alpha: gradient(g, branch, alpha, through=1.0), "goes through the gate, too"),
            (lambda g, branch, alpha: gradient(g, branch, alpha, dh=np.tanh(alpha)), "flows on whatever"),
            (lambda g, branch, alpha: gradient(g, branch, alpha)[:2], "3 results were expected, dh, dbranch, dalpha"),
        ],
    ),
    Card(
        "08.5",
        check_08_5_first_move,
        [
            (lambda slopes, push: np.sign(slopes.mean(0)) * push, "every gate moves uphill"),
            (lambda slopes, push: -np.sign(np.sign(slopes).mean(0)) * push, "average the gradients, then"),
            (lambda slopes, push: -np.sign(slopes[0]) * push, "average the gradients, then"),
            (lambda slopes, push: -slopes.mean(0) * push, "small or large"),
            (lambda slopes, push: -np.sign(slopes) * push, r"\(gates,\) = "),
        ],
    ),
]
