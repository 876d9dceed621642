"""AdamW against a plain loop over scalars; the schedule, both kinds of clipping, and trees of parameters."""

import math

import numpy as np
import pytest

from tinyflamingo.ops.tree import count, flatten, from_named_leaves, half_precision, named_leaves, view_tree
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig, adaptive_clip, learning_rate


def small_tree(rng):
    return {
        "resampler": {"w": rng.standard_normal((3, 2)).astype("f4"), "gain": np.ones(2, "f4")},
        "xattn_0": {"w": rng.standard_normal((2, 2)).astype("f4"), "alpha": np.zeros((), "f4")},
        "kernel": rng.standard_normal((2, 2, 1, 3)).astype("f4"),
        "bias": np.zeros(3, "f4"),
    }


def plain_adamw(x, gradients, decay, c, steps):
    """One scalar, in Python floats: Loshchilov and Hutter's algorithm 2."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        rate = learning_rate(c, t - 1, steps)
        m = c.beta_1 * m + (1 - c.beta_1) * g
        v = c.beta_2 * v + (1 - c.beta_2) * g * g
        x -= rate * (m / (1 - c.beta_1**t) / (math.sqrt(v / (1 - c.beta_2**t)) + c.epsilon) + decay * x)
    return x


def test_adamw_equals_a_loop_over_scalars(rng):
    config = OptimiserConfig(learning_rate=0.03, weight_decay=0.3, warmup=4, clip=math.inf)
    params = small_tree(rng)
    optimiser = AdamW(params, config)
    start, n = optimiser.vector.copy(), 25
    gradients = rng.standard_normal((n, start.size)).astype("f4")
    for step in range(n):
        optimiser.step(gradients[step], step, n)
    decays = np.concatenate([np.full(leaf.size, leaf.ndim >= 2) for leaf in named_leaves(params).values()])
    for i in range(start.size):
        expected = plain_adamw(float(start[i]), gradients[:, i].tolist(), 0.3 if decays[i] else 0.0, config, n)
        assert optimiser.vector[i] == pytest.approx(expected, abs=2e-5)
    assert optimiser.vector.dtype == optimiser.m.dtype == optimiser.v.dtype == np.float32


def test_weight_decay_is_for_matrices_and_kernels_and_not_under_a_prefix(rng):
    params = small_tree(rng)
    decay = view_tree(AdamW(params, OptimiserConfig(weight_decay=0.1), no_decay=("resampler",)).decay, params)
    shares = {name: set(np.ravel(leaf).tolist()) for name, leaf in named_leaves(decay).items()}
    tenth = float(np.float32(0.1))
    assert shares == {
        "resampler/w": {0.0},
        "resampler/gain": {0.0},
        "xattn_0/w": {tenth},
        "xattn_0/alpha": {0.0},
        "kernel": {tenth},
        "bias": {0.0},
    }
    everywhere = AdamW(params, OptimiserConfig(weight_decay=0.1)).decay
    assert view_tree(everywhere, params)["resampler"]["w"].min() == np.float32(0.1)


def test_params_are_views_of_the_vector(rng):
    params = small_tree(rng)
    optimiser = AdamW(params, OptimiserConfig())
    optimiser.vector[:] = 7
    assert all((leaf == 7).all() for leaf in named_leaves(optimiser.params).values())
    assert params["kernel"].max() < 7  # the given parameters do not change: the vector is a copy
    optimiser.params["xattn_0"]["alpha"][...] = 3
    assert (optimiser.vector == 3).sum() == 1


def test_a_step_changes_the_size_of_the_gradient_only_above_the_clip():
    config = OptimiserConfig(clip=1.0, warmup=1, weight_decay=0.0)
    for size, kept in ((0.5, 0.5), (1.0, 1.0), (20.0, 1.0)):
        optimiser = AdamW({"w": np.zeros((2, 2), "f4")}, config)
        gradient = np.full(4, size / 2, "f4")
        before = gradient.copy()
        assert optimiser.step(gradient, 0, 10) == pytest.approx(size)  # the norm before clipping
        np.testing.assert_array_equal(gradient, before)
        assert np.linalg.norm(optimiser.m) == pytest.approx(0.1 * kept, rel=1e-5)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
def test_a_gradient_that_is_not_finite_raises_and_changes_nothing(poison, rng):
    optimiser = AdamW(small_tree(rng), OptimiserConfig())
    optimiser.step(np.ones_like(optimiser.vector), 0, 10)
    before = [a.tobytes() for a in (optimiser.vector, optimiser.m, optimiser.v)]
    gradient = np.ones_like(optimiser.vector)
    gradient[3] = poison  # 1e30: its square is too large for a float32
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="norm"):
        optimiser.step(gradient, 1, 10)
    assert [a.tobytes() for a in (optimiser.vector, optimiser.m, optimiser.v)] == before


def test_the_schedule_warms_up_and_follows_a_cosine():
    c = OptimiserConfig(learning_rate=1.0, warmup=10, final_share=0.1)
    assert [learning_rate(c, s, 110) for s in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert learning_rate(c, 10, 110) == 1.0
    assert learning_rate(c, 60, 110) == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert learning_rate(c, 35, 110) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(c, 110, 110) == learning_rate(c, 500, 110) == pytest.approx(0.1)
    rates = [learning_rate(c, s, 110) for s in range(10, 111)]
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(OptimiserConfig(warmup=0), 0, 0) > 0  # no warm-up and no steps cause no division by 0


def test_adaptive_clipping_known_values():
    params = {"w": np.array([[3.0, 0.0], [4.0, 0.0]], "f4"), "b": np.array([0.6, 0.8], "f4"), "a": np.array(2.0, "f4")}
    gradients = {
        "w": np.array([[6.0, 3.0], [8.0, 4.0]], "f4"),  # columns are units: norms 10 and 5; weights 5 and 0
        "b": np.array([0.03, 0.04], "f4"),  # one unit: norm 0.05 against 1
        "a": np.array(-8.0, "f4"),
    }
    clipped = adaptive_clip(gradients, params, 0.1)
    assert clipped is gradients
    np.testing.assert_allclose(clipped["w"][:, 0], [0.3, 0.4], rtol=1e-6)  # to 0.1 * 5
    np.testing.assert_allclose(clipped["w"][:, 1], [6e-5, 8e-5], rtol=1e-5)  # to 0.1 * epsilon
    np.testing.assert_array_equal(clipped["b"], np.array([0.03, 0.04], "f4"))  # small enough
    np.testing.assert_allclose(clipped["a"], -0.2, rtol=1e-6)
    assert {g.dtype for g in clipped.values()} == {np.dtype("f4")}


def test_adaptive_clipping_leaves_zero_gradients_and_kernels_by_their_last_axis():
    params = {"k": np.ones((3, 3, 2, 4), "f4")}  # every unit's norm: sqrt(18)
    gradients = {"k": np.zeros((3, 3, 2, 4), "f4")}
    gradients["k"][..., 1] = 1.0
    clipped = adaptive_clip(gradients, params, 0.5)["k"]
    np.testing.assert_allclose(clipped[..., 1], 0.5)
    assert not clipped[..., [0, 2, 3]].any()


# ---- trees -----------------------------------------------------------------------------------


def test_trees_go_to_names_and_vectors_and_back(rng):
    tree = small_tree(rng)
    names = named_leaves(tree)
    assert list(names) == ["resampler/w", "resampler/gain", "xattn_0/w", "xattn_0/alpha", "kernel", "bias"]
    back = from_named_leaves(names)
    assert back.keys() == tree.keys() and back["resampler"]["w"] is tree["resampler"]["w"]
    vector = flatten(tree)
    assert vector.dtype == np.float32 and vector.size == count(tree) == 6 + 2 + 4 + 1 + 12 + 3
    viewed = view_tree(vector, tree)
    for name, leaf in named_leaves(viewed).items():
        assert leaf.shape == names[name].shape and np.shares_memory(leaf, vector)
        np.testing.assert_array_equal(leaf, names[name])


def test_half_precision_a_second_time_changes_nothing(rng):
    tree = {"a": {"b": rng.standard_normal((4, 4)).astype("f4")}}
    once = half_precision(tree)
    assert once["a"]["b"].dtype == np.float32
    np.testing.assert_array_equal(once["a"]["b"], once["a"]["b"].astype("f2").astype("f4"))
    np.testing.assert_array_equal(half_precision(once)["a"]["b"], once["a"]["b"])
    np.testing.assert_allclose(once["a"]["b"], tree["a"]["b"], rtol=1e-3)
