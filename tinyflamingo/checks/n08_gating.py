"""Checks of notebook 08, gating (chapter §4): the gate, the block, shut gates, first gradients."""

import copy

import numpy as np

from tinyflamingo.language import _

from .core import check, fresh_rng, holds, pair_is, shape_is, value_is


def _alpha(rng):
    """Far from 0, where tanh, its argument and the sigmoid are all told apart."""
    return float(rng.uniform(0.7, 1.5) * rng.choice([-1, 1]))


def _like(got, want):
    return np.allclose(got, want, rtol=1e-6, atol=1e-9)


@check(
    "08.1",
    where=(
        "The text comes along and stays as it is. Only the branch passes the gate. The curve above shows the "
        "gate, with its sign."
    ),
    formula="h + tanh(alpha) * branch",
)
def check_08_1_gate(gate):
    """h + tanh(alpha) branch, and the identity at 0."""
    rng = fresh_rng()
    T, D = (int(n) for n in rng.integers(3, 8, size=2))
    h, branch, size = rng.standard_normal((T, D)), rng.standard_normal((T, D)), _alpha(rng)
    for alpha in (size, -size):
        got, t = gate(h, branch, alpha), np.tanh(alpha)
        mistakes = {
            "The branch is multiplied by alpha itself; the gate is a function of alpha, between -1 and 1.": (
                h + alpha * branch
            ),
            "h fades as the gate opens: h stays whole, only the branch is gated.": (1 - t) * h + t * branch,
            "h passes the gate too: h stays whole, only the branch is gated.": t * (h + branch),
            "h is missing: the branch is added to the text.": t * branch,
            "With alpha = 0 the text would change: the gate must be exactly 0 there.": h
            + branch / (1 + np.exp(-alpha)),
            "The gate has lost the sign of alpha.": h + abs(t) * branch,
        }
        value_is(got, h + t * branch, _("alpha is {alpha:.2f}.").format(alpha=alpha), mistakes=mistakes)
    shut = gate(h, branch, 0.0)
    holds(np.array_equal(shut, h), "with alpha = 0 the text changes: the gate must be exactly 0 there.")


@check(
    "08.2",
    where="Two steps. The second step works on the result of the first. Each step has the form of exercise 08.1.",
    formula="h1 = h + tanh(alpha_xattn) * attend(h); result = h1 + tanh(alpha_dense) * dense(h1)",
)
def check_08_2_block(block):
    """Attention first, then the dense layer on what it left, each with its own gate."""
    rng = fresh_rng()
    T, D = 4, int(rng.integers(5, 9))
    h, sizes = rng.standard_normal((T, D)), (_alpha(rng), _alpha(rng) * 0.5)
    one, two = rng.standard_normal((2, D, D))

    def attend(x):
        return np.sin(x @ one)

    def dense(x):
        return np.maximum(x @ two, 0) ** 2

    def after(h, layer, alpha):
        return h + np.tanh(alpha) * layer(h)

    for a, b in (sizes, (-sizes[0], sizes[1]), (sizes[0], -sizes[1])):
        seen, t = after(h, attend, a), np.tanh(b)
        mistakes = {
            "The dense layer reads the text as it was before the attention: it must read what the attention left.": (
                seen + t * dense(h)
            ),
            "The dense layer comes first; in the block the attention does.": after(after(h, dense, b), attend, a),
            "One gate serves both: the attention has alpha_xattn, the dense layer alpha_dense.": after(seen, dense, a),
            "The two gates have changed places.": after(after(h, attend, b), dense, a),
            "The text itself is gone: both layers are added to it.": t * dense(seen),
            "The text is gone: both layers are added to it.": t * dense(np.tanh(a) * attend(h)),
            "The gates are tanh of the two numbers, not the numbers.": _plain(h, attend, dense, a, b),
            "A gate has lost the sign of its alpha.": after(after(h, attend, abs(a)), dense, abs(b)),
        }
        got = block(h, attend, dense, a, b)
        value_is(got, after(seen, dense, b), "Compare with the loops, one addition after the other.", mistakes=mistakes)
    shut = block(h, attend, dense, 0.0, 0.0)
    holds(np.array_equal(shut, h), "with both gates at 0 the block is not the identity.")


def _plain(h, attend, dense, a, b):
    h = h + a * attend(h)
    return h + b * dense(h)


def _tree(rng):
    """A small tree of parameters with gates open, float32."""
    D = int(rng.integers(3, 6))

    def leaf(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    places = rng.choice(9, size=3, replace=False)
    blocks = {
        f"xattn_{i}": {"w_o": leaf(D, D), "alpha_xattn": leaf() + np.float32(9), "alpha_dense": leaf() + np.float32(9)}
        for i in places
    }
    return {"resampler": {"latents": leaf(4, D)}, "eoc": leaf(D), **{k: _arrays(b) for k, b in blocks.items()}}


def _arrays(block):
    return {name: np.asarray(value, np.float32) for name, value in block.items()}


@check(
    "08.3",
    where=(
        "You need a new dict for the tree and a new dict for every block that changes. Which arrays may the "
        "new tree share?"
    ),
    formula=(
        "for xattn_ blocks: {**block, 'alpha_xattn': np.float32(0), 'alpha_dense': np.float32(0)}; else the same part"
    ),
)
def check_08_3_shut_gates(shut_gates):
    """All gates 0 and float32, the rest as before, the argument untouched."""
    params = _tree(fresh_rng())
    before = copy.deepcopy(params)
    got = shut_gates(params)
    holds(
        isinstance(got, dict),
        _("your function returns {type}; a tree, a dict, was expected.").format(type=type(got).__name__),
    )
    holds(
        list(got) == list(before),
        _("the parts are {got}; they should still be {before}.").format(got=list(got), before=list(before)),
    )
    for name, part in before.items():
        if isinstance(part, dict):
            _same_but_gates(name, part, got[name])
        else:
            holds(_unchanged(part, got[name]), _("{name} has changed; it is no gate.").format(name=name))


def _unchanged(array, result):
    """Whether an array has its old numbers, in their old type."""
    return np.asarray(result).dtype == array.dtype and np.array_equal(result, array)


def _same_but_gates(name, part, result):
    holds(
        set(result) == set(part),
        _("{name} has the arrays {result}; it should still have {part}.").format(
            name=name, result=sorted(result), part=sorted(part)
        ),
    )
    for key, array in part.items():
        value = np.asarray(result[key])
        if not key.startswith("alpha_"):
            holds(_unchanged(array, value), _("{name}/{key} has changed; it is no gate.").format(name=name, key=key))
            continue
        holds(
            not value.any(),
            _("{name}/{key} is {value}: that gate is still open.").format(name=name, key=key, value=value),
        )
        holds(
            value.shape == (),
            _("{name}/{key} has shape {shape}; a gate is a scalar.").format(name=name, key=key, shape=value.shape),
        )
        hint = _("{name}/{key} is {dtype}: keep float32, or every layer above becomes {dtype}.").format(
            name=name, key=key, dtype=value.dtype
        )
        holds(value.dtype == np.float32, hint)


@check(
    "08.4",
    where=(
        "y = h + t * branch with t = tanh(alpha). Derive y by h, by branch, and by alpha; the slope of tanh "
        "is in the figure above."
    ),
    formula="dh = g; dbranch = tanh(alpha) * g; dalpha = (1 - tanh(alpha)²) * sum(g * branch)",
)
def check_08_4_gate_backward(backward):
    """The three gradients, at an open gate and at a shut one."""
    rng = fresh_rng()
    T, D = 3, int(rng.integers(4, 8))
    g, branch, size = rng.standard_normal((T, D)), rng.standard_normal((T, D)), _alpha(rng)
    for alpha in (size, -size):
        gradients, t, total = backward(g, branch, alpha), np.tanh(alpha), np.sum(g * branch)
        pair_is(gradients, ("dh", "dbranch", "dalpha"))
        dh, dbranch, dalpha = gradients
        value_is(dh, g, "The text flows on whatever the gate does.", "dh")
        mistakes = {
            "What flows back into the branch goes through the gate, too.": g,
            "The gate has lost the sign of alpha.": abs(t) * g,
            "Here it is the gate itself that counts, not its slope.": (1 - t * t) * g,
        }
        value_is(dbranch, t * g, "Which number multiplied the branch on the way forward?", "dbranch", mistakes=mistakes)
        hint = "alpha is one number that every entry of the branch meets: sum over all of them."
        shape_is(dalpha, (), what="dalpha", hint=hint)
        mistakes = {
            "The slope of tanh is missing.": total,
            "tanh(alpha) stands where the slope of tanh belongs.": t * total,
            "alpha meets every entry: it is a sum, not a mean.": (1 - t * t) * np.mean(g * branch),
            "g is missing: only what the loss asks for counts.": (1 - t * t) * np.sum(branch),
            "The slope of tanh is squared tanh(alpha) short of 1; here alpha itself is squared.": (1 - alpha**2)
            * total,
        }
        value_is(
            dalpha,
            (1 - t * t) * total,
            _("alpha is {alpha:.2f}: move it a little and see by how much y moves.").format(alpha=alpha),
            "dalpha",
            mistakes=mistakes,
        )
    shut, move = backward(g, branch, 0.0)[1:]
    holds(not np.any(shut), "at alpha = 0 the branch gets a gradient; it should be exactly 0.")
    value_is(move, total, "At alpha = 0 the slope of tanh is 1.", "dalpha at 0")


@check(
    "08.5",
    where=(
        "Average over the batches first: which axis is that? Then use only the sign. The loss falls against "
        "the gradient."
    ),
    formula="-sign(mean of slopes over the batches) * push",
)
def check_08_5_first_move(first_move):
    """Slopes that all agree at every other gate; at the rest one large one decides against the others."""
    rng = fresh_rng()
    n, push = int(rng.integers(5, 9)), float(rng.uniform(0.1, 0.6))
    way = rng.permutation(np.resize([-1.0, 1.0], n))  # both signs are there
    slopes = rng.uniform(0.1, 0.5, size=(5, n)) * np.where(np.arange(n) % 2, way, -way)
    slopes[int(rng.integers(1, 5))] = way * rng.uniform(4, 9, size=n)
    got = first_move(slopes, push)
    shape_is(got, (n,), "(gates,)", "alpha")
    got, want = np.asarray(got), -way * push
    holds(not _like(got, -want), "every gate moves uphill: the loss falls against the gradient.")
    hint = "a gate follows most batches, or the first: average the gradients, then take the sign."
    holds(np.array_equal(np.sign(got), np.sign(want)), hint)
    value_is(got, want, "Every gate moves by push, whether its slope is small or large.", "alpha")
