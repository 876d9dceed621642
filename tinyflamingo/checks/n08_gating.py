"""Checks of notebook 08, gating (chapter §4): the gate, the block, shut gates, first gradients."""

import copy

import numpy as np

from .core import check, fresh_rng, holds, shape_is, value_is


def _alpha(rng):
    """Far from 0, where tanh, its argument and the sigmoid are all told apart."""
    return float(rng.uniform(0.7, 1.5) * rng.choice([-1, 1]))


def _like(got, want):
    return np.allclose(got, want, rtol=1e-6, atol=1e-9)


@check("08.1")
def check_08_1_gate(gate):
    """h + tanh(alpha) branch, and the identity at 0."""
    rng = fresh_rng()
    T, D = (int(n) for n in rng.integers(3, 8, size=2))
    h, branch, alpha = rng.standard_normal((T, D)), rng.standard_normal((T, D)), _alpha(rng)
    got, t = gate(h, branch, alpha), np.tanh(alpha)
    shape_is(got, (T, D), "(T, D)")
    holds(not _like(got, h + alpha * branch), "the branch is multiplied by alpha itself: the gate is tanh(alpha).")
    hint = "h fades as the gate opens: h stays whole, only the branch is gated."
    holds(not _like(got, (1 - t) * h + t * branch) and not _like(got, t * (h + branch)), hint)
    shut = gate(h, branch, 0.0)
    hint = "with alpha = 0 the text changes: the gate must be exactly 0 there, as tanh is."
    holds(np.array_equal(shut, h), hint)
    value_is(got, h + t * branch, "h + tanh(alpha) * branch.")


@check("08.2")
def check_08_2_block(block):
    """Attention first, then the dense layer on what it left, each with its own gate."""
    rng = fresh_rng()
    T, D = 4, int(rng.integers(5, 9))
    h, a, b = rng.standard_normal((T, D)), _alpha(rng), _alpha(rng) * 0.5
    one, two = rng.standard_normal((2, D, D))

    def attend(x):
        return np.sin(x @ one)

    def dense(x):
        return np.maximum(x @ two, 0) ** 2

    s, t = np.tanh(a), np.tanh(b)
    seen = h + s * attend(h)
    got = block(h.copy(), attend, dense, a, b)
    shape_is(got, (T, D), "(T, D)")
    first = h + t * dense(h)
    hint = "the dense layer reads the text as it was before the attention: it must read what the attention left."
    holds(not _like(got, seen + t * dense(h)), hint)
    holds(not _like(got, first + s * attend(first)), "the dense layer comes first: in the block the attention does.")
    hint = "one gate serves both: the attention has alpha_xattn, the dense layer alpha_dense."
    holds(not _like(got, seen + s * dense(seen)), hint)
    swapped = h + t * attend(h)
    holds(not _like(got, swapped + s * dense(swapped)), "the two gates have changed places.")
    hint = "the text itself is gone: both layers are added to it."
    holds(not _like(got, t * dense(seen)) and not _like(got, t * dense(s * attend(h))), hint)
    value_is(got, seen + t * dense(seen), "Add the gated attention, then the gated dense layer of the sum.")
    shut = block(h.copy(), attend, dense, 0.0, 0.0)
    holds(np.array_equal(shut, h), "with both gates at 0 the block is not the identity.")


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


@check("08.3")
def check_08_3_shut_gates(shut_gates):
    """All gates 0 and float32, the rest as before, the argument untouched."""
    params = _tree(fresh_rng())
    before = copy.deepcopy(params)
    got = shut_gates(params)
    holds(isinstance(got, dict), f"your function returns {type(got).__name__}; a tree, a dict, was expected.")
    for name, block in before.items():
        for gate in ("alpha_xattn", "alpha_dense") if name.startswith("xattn_") else ():
            hint = f"{name}/{gate} of the tree that was passed in has changed: make a new tree."
            holds(np.array_equal(params[name][gate], block[gate]), hint)
    holds(list(got) == list(before), f"the parts are {list(got)}; they should still be {list(before)}.")
    for name, part in before.items():
        if isinstance(part, dict):
            _same_but_gates(name, part, got[name])
        else:
            holds(np.array_equal(got[name], part), f"{name} has changed; it is no gate.")


def _same_but_gates(name, part, mine):
    holds(set(mine) == set(part), f"{name} has the arrays {sorted(mine)}; it should still have {sorted(part)}.")
    for key, array in part.items():
        value = np.asarray(mine[key])
        if not key.startswith("alpha_"):
            holds(np.array_equal(value, array), f"{name}/{key} has changed; it is no gate.")
            continue
        holds(not value.any(), f"{name}/{key} is {value}: that gate is still open.")
        holds(value.shape == (), f"{name}/{key} has shape {value.shape}; a gate is a scalar.")
        hint = f"{name}/{key} is {value.dtype}: keep float32, or every layer above becomes {value.dtype}."
        holds(value.dtype == np.float32, hint)


@check("08.4")
def check_08_4_gate_backward(backward):
    """The three gradients, at an open gate and at a shut one."""
    rng = fresh_rng()
    T, D = 3, int(rng.integers(4, 8))
    g, branch, alpha = rng.standard_normal((T, D)), rng.standard_normal((T, D)), _alpha(rng)
    found = backward(g, branch, alpha)
    three = isinstance(found, tuple | list) and len(found) == 3
    holds(three, "three gradients were expected: dh, dbranch, dalpha.")
    dh, dbranch, dalpha = found
    t, total = np.tanh(alpha), np.sum(g * branch)
    shape_is(dh, (T, D), "(T, D)", "dh")
    shape_is(dbranch, (T, D), "(T, D)", "dbranch")
    hint = "alpha is one number that every entry of the branch meets: sum over all of them."
    shape_is(dalpha, (), what="dalpha", hint=hint)
    value_is(dh, g, "The text flows on whatever the gate does.", "dh")
    holds(not _like(dbranch, g), "dbranch is g: what flows back into the branch goes through the gate, too.")
    value_is(dbranch, t * g, "It is tanh(alpha) * g.", "dbranch")
    holds(not _like(dalpha, total), "dalpha lacks the slope of tanh, 1 - tanh(alpha)^2.")
    holds(not _like(dalpha, t * total), "dalpha has tanh(alpha) where its slope belongs, 1 - tanh(alpha)^2.")
    value_is(dalpha, (1 - t * t) * total, "It is the slope of tanh times the sum of g * branch.", "dalpha")
    _, shut, move = backward(g, branch, 0.0)
    holds(not np.any(shut), "at alpha = 0 the branch gets a gradient; it should be exactly 0.")
    value_is(move, total, "At alpha = 0 the slope of tanh is 1.", "dalpha at 0")


@check("08.5")
def check_08_5_first_move(first_move):
    """Slopes that all agree at every other gate; at the rest one large one decides against the others."""
    rng = fresh_rng()
    n, push = int(rng.integers(5, 9)), float(rng.uniform(0.1, 0.6))
    way = rng.choice([-1.0, 1.0], size=n)
    slopes = rng.uniform(0.1, 0.5, size=(5, n)) * np.where(np.arange(n) % 2, way, -way)
    slopes[int(rng.integers(1, 5))] = way * rng.uniform(4, 9, size=n)
    got = first_move(slopes.copy(), push)
    shape_is(got, (n,), "(gates,)", "alpha")
    got, want = np.asarray(got), -way * push
    holds(not _like(got, -want), "every gate moves uphill: the loss falls against the gradient.")
    hint = "a gate follows most batches, or the first: average the gradients, then take the sign."
    holds(np.array_equal(np.sign(got), np.sign(want)), hint)
    value_is(got, want, "Every gate moves push far, however steep its slope.", "alpha")
