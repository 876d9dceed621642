"""Checks of notebook 02, the NF-ResNet (chapter §2): weights, gains, book-keeping, clipping.

Not here: the library's own versions (`ops/reference.py`, `model/vision_encoder.py`, `training/optimiser.py`).
"""

import numpy as np

from .core import check, fresh_rng, gradient_by_moving, shape_is, value_is

AXES = (0, 1, 2)  # all of a kernel but its output channels


def _kernel(rng, least=2):
    """(kernel with a mean that is not 0, gain): fan-in and output channels differ in every size."""
    cin, cout = (int(n) for n in rng.choice(np.arange(least, least + 4), size=2, replace=False))
    return rng.standard_normal((3, 3, cin, cout)) + rng.uniform(0.5, 1.0), rng.uniform(0.5, 2.0, cout)


def _standardised(w, gain):
    centred = w - w.mean(axis=AXES)
    return gain * centred / np.sqrt(np.sum(centred**2, axis=AXES))


@check(
    "02.1",
    where="The loops above treat one output channel at a time. Which axes do they sum over? The last axis stays.",
    formula="c = w - mean over axes (0, 1, 2); result = gain * c / sqrt(sum of c² over axes (0, 1, 2))",
)
def check_02_1_standardise(standardise):
    """standardise(w (kh, kw, Cin, Cout), gain (Cout,)) -> the shape of w."""
    w, gain = _kernel(fresh_rng())
    got = standardise(w, gain)
    shape_is(got, w.shape, "(kh, kw, Cin, Cout)")
    want = _standardised(w, gain)
    mistakes = {
        "The mean is still there: it turns the positive mean of an activation into a shift.": gain
        * w
        / np.sqrt(np.sum((w - w.mean(axis=AXES)) ** 2, axis=AXES)),
        "The root of the fan-in N is missing: the variance of the output is N times too large.": (
            want * np.sqrt(w[..., 0].size)
        ),
        "Every output channel has a mean and a spread of its own; here all channels share one.": gain
        * (w - w.mean())
        / np.sqrt(np.sum((w - w.mean()) ** 2)),
        "The gain is missing: it is learned, one number for each output channel.": want / gain,
    }
    value_is(got, want, "Compare with the loops.", mistakes=mistakes)


@check(
    "02.2",
    where=(
        "The two formulas above the exercise. Every dot product and every mean is over axes (0, 1, 2), one "
        "for each output channel."
    ),
    formula="dc = gain / n * (a - u * sum(u * a)); dw = dc - mean(dc), sums and means over axes (0, 1, 2)",
)
def check_02_2_standardise_gradient(standardise_gradient):
    """standardise_gradient(w, gain, a: gradient by the result) -> gradient by w."""
    rng = fresh_rng()
    w, gain = _kernel(rng)
    a = rng.standard_normal(w.shape)
    got = standardise_gradient(w, gain, a)
    shape_is(got, w.shape, "(kh, kw, Cin, Cout)")
    want = gradient_by_moving(lambda moved: _standardised(moved, gain), w, a)
    centred = w - w.mean(axis=AXES)
    length = np.sqrt(np.sum(centred**2, axis=AXES))
    along = centred / length * np.sum(centred / length * a, axis=AXES)
    mistakes = {
        "The part along the weights is still in it: a longer kernel makes the same result.": gain
        / length
        * (a - a.mean(axis=AXES)),
        "Its mean is still in it: adding one number to all weights of a channel makes the same result.": gain
        / length
        * (a - along),
        "The gain over the length is missing: the result is the centred weights times just that.": want * length / gain,
    }
    value_is(got, want, "Moving the weights a little says otherwise.", tol=1e-4, mistakes=mistakes)


@check(
    "02.3",
    where="Multiply f by a number: by what factor does the variance change? Which number makes it 1?",
    formula="gain = 1 / (standard deviation of f(samples))",
)
def check_02_3_unit_gain(unit_gain):
    """unit_gain(f, samples) -> a number, for activations that shift, halve and squash."""
    rng = fresh_rng()
    samples = rng.standard_normal(20_000)
    shift, slope = rng.uniform(1.0, 2.0), rng.uniform(0.1, 0.5)
    activations = (lambda x: np.maximum(x, 0), lambda x: np.tanh(x) + shift, lambda x: np.where(x > 0, x, slope * x))
    for f in activations:
        got = unit_gain(f, samples)
        shape_is(got, (), what="the gain")
        out = f(samples)
        mistakes = {
            "This makes the mean *square* 1; the variance is taken about the mean.": 1 / np.sqrt(np.mean(out**2)),
            "The gain multiplies the signal, so the variance changes by its square: take a root.": 1 / np.var(out),
            "That is the spread itself; the gain undoes it.": np.std(out),
        }
        value_is(got, 1 / np.std(out), "Var(gain * f(x)) should be 1.", what="the gain", tol=1e-3, mistakes=mistakes)


def _betas(blocks, alpha, reset=True, early=False, power=2):
    deviations, variance = [], 1.0
    for number in blocks:
        for b in range(number):
            variance = 1.0 if early and b == 0 else variance
            deviations.append(variance**0.5)
            variance = (1.0 if reset and b == 0 else variance) + alpha**power
    return deviations


@check(
    "02.4",
    where=(
        "Write the variance after each block on paper, for two stages of two blocks. Append beta before you "
        "update the variance."
    ),
    formula="append sqrt(v); then v = (1 if it is the first block of its stage, else v) + alpha²",
)
def check_02_4_betas(betas):
    """betas([blocks in each stage], alpha) -> a flat list with beta of every block."""
    rng = fresh_rng()
    blocks, alpha = [int(n) for n in rng.integers(3, 6, size=3)], float(rng.uniform(0.2, 0.6))
    got = betas(blocks, alpha)
    shape_is(got, (sum(blocks),), "(number of blocks,)", "the list of betas")
    want = np.array(_betas(blocks, alpha))
    mistakes = {
        "A transition takes its shortcut from the normalised signal: after it the variance is 1 + alpha^2 again.": (
            _betas(blocks, alpha, reset=False)
        ),
        "The first block of a stage still divides by what the stage before has left; the reset is behind it.": (
            _betas(blocks, alpha, early=True)
        ),
        "A block adds alpha times a signal of variance 1, so the variance grows by alpha squared.": (
            _betas(blocks, alpha, power=1)
        ),
        "These are the variances; beta is the standard deviation, their root.": want**2,
    }
    mistakes = {hint: np.array(value) for hint, value in mistakes.items()}
    value_is(np.array(got, float), want, "beta is the root of the variance that comes in.", "beta", mistakes=mistakes)
    short = [blocks[0], 1, blocks[2]]
    hint = "A stage may have one block only: it is a transition, too."
    value_is(betas(short, alpha), np.array(_betas(short, alpha)), hint, "beta")


def _clipped(g, w, limit, eps):
    axes = tuple(range(g.ndim - 1))
    norm_g, norm_w = (np.sqrt(np.sum(x**2, axis=axes)) for x in (g, w))
    return g * np.minimum(1, limit * np.maximum(norm_w, eps) / np.maximum(norm_g, 1e-12))


@check(
    "02.5",
    where="The loop above treats one output unit: the last axis stays, the norm is over all other axes.",
    formula="g * min(1, limit * max(|w|, eps) / |g|), with the norms over all axes but the last",
)
def check_02_5_clip_by_unit(clip_by_unit):
    """clip_by_unit(g, w, limit, eps) -> clipped gradient: a kernel, a matrix, and weights that are 0."""
    rng = fresh_rng()
    w, _ = _kernel(rng, least=4)
    limit, eps = float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.005, 0.02))
    for weights in (w, w[0, 0]):
        axes = tuple(range(weights.ndim - 1))
        norm_w = np.sqrt(np.sum(weights**2, axis=axes))
        g = rng.standard_normal(weights.shape)
        ratio = np.resize([0.2 * limit, 3 * limit, 0.5 * limit, 9 * limit], weights.shape[-1])
        g *= ratio * norm_w / np.sqrt(np.sum(g**2, axis=axes))
        got = clip_by_unit(g, weights, limit, eps)
        shape_is(got, g.shape)
        whole = limit * np.sqrt(np.sum(weights**2)) / np.sqrt(np.sum(g**2))
        mistakes = {
            "All units are clipped together; AGC gives every output unit a ratio of its own.": g * min(1, whole),
            "Small gradients have grown: a clip only makes smaller, min(1, ...).": g / ratio * limit,
            "The limit is missing: a unit may move by limit times the norm of its weights.": _clipped(
                g, weights, 1.0, eps
            ),
            "eps is added to every norm; it replaces only a norm that is smaller.": g
            * np.minimum(1, limit * (norm_w + eps) / np.sqrt(np.sum(g**2, axis=axes))),
        }
        value_is(got, _clipped(g, weights, limit, eps), "Each unit by itself, the last axis.", mistakes=mistakes)
    zero = np.zeros_like(w)
    got = clip_by_unit(np.ones_like(w), zero, limit, eps)
    mistakes = {
        "Weights of 0 get no step at all and can never leave 0: use eps where their norm is smaller.": zero,
        "Use the argument eps: other values than 1e-3 come too.": _clipped(np.ones_like(w), zero, limit, 1e-3),
    }
    value_is(got, _clipped(np.ones_like(w), zero, limit, eps), mistakes=mistakes)
    got = clip_by_unit(zero, w, limit, eps)
    value_is(got, zero, "A gradient of 0 stays 0; do not divide by its norm of 0.")
