"""Muon: orthogonal moves of hidden matrices; everything else is AdamW."""

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.ops.tree import flatten
from tinyflamingo.training.muon import SIZE, Muon, orthogonalised
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig
from tinyflamingo.training.processes import on_workers
from tinyflamingo.training.ranks import world

CONFIG = OptimiserConfig(learning_rate=0.01, weight_decay=0.1, warmup=0)


def params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (9, 8), "block": {"w_q": (8, 8), "w_1": (8, 32), "w_2": (32, 8), "gain": (8,)}}
    return _drawn(rng, shapes)


def _drawn(rng, shapes):
    if isinstance(shapes, tuple):
        return rng.standard_normal(shapes).astype(np.float32)
    return {name: _drawn(rng, inner) for name, inner in shapes.items()}


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (8, 32), (32, 8), (128, 512), (96, 64), (64, 96)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    result = orthogonalised(matrix)
    u, before, v = np.linalg.svd(matrix, full_matrices=False)
    singular = np.diag(u.T @ result @ v.T)  # in the same directions
    large = before > 0.01 * np.linalg.norm(before)
    assert result.dtype == np.float32 and result.shape == shape
    assert singular[large].min() > 0.7 and singular.max() < 1.3
    assert np.abs(u.T @ result @ v.T - np.diag(singular)).max() < 1e-3


def test_a_zero_matrix_does_not_move():
    assert not orthogonalised(np.zeros((4, 6), np.float32)).any()


def test_only_the_matrices_move_otherwise_than_with_adamw():
    gradient = flatten(params(1))
    muon, adamw = Muon(params(), CONFIG), AdamW(params(), CONFIG)
    assert muon.step(gradient, 0, 10) == adamw.step(gradient, 0, 10)
    assert np.array_equal(muon.params["embedding"], adamw.params["embedding"])
    assert np.array_equal(muon.params["block"]["gain"], adamw.params["block"]["gain"])
    assert not np.allclose(muon.params["block"]["w_q"], adamw.params["block"]["w_q"])


@pytest.mark.parametrize("name", ["w_q", "w_1", "w_2"])
def test_a_step_is_the_orthogonal_move_and_the_decay(name):
    muon, start, slope = Muon(params(), CONFIG), params()["block"][name], params(1)["block"][name]
    muon.step(flatten(params(1)), 0, 10)
    moved = start - 0.01 * (orthogonalised(slope) * SIZE * max(slope.shape) ** 0.5 + 0.1 * start)
    assert np.allclose(muon.params["block"][name], moved, atol=1e-5)


def test_no_decay_for_prefixes():
    muon = Muon({"resampler": {"w_q": np.ones((4, 4), np.float32)}}, CONFIG, no_decay=("resampler",))
    muon.step(np.zeros(16, np.float32), 0, 10)
    assert np.array_equal(muon.vector, np.ones(16))


def test_a_gradient_that_is_not_finite_changes_nothing():
    muon = Muon(params(), CONFIG)
    with pytest.raises(FloatingPointError):
        muon.step(np.full_like(muon.vector, np.nan), 0, 10)
    assert np.array_equal(muon.vector, flatten(params()))


def three_steps():
    muon = Muon(params(), CONFIG)
    for step in range(3):
        muon.step(flatten(params(step)), step, 3)
    return world().gather(muon.vector[None])


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_ranks_share_the_work_and_have_the_same_bits(workers):
    with ops.use_workers(1):
        (alone,) = three_steps()
    with ops.use_workers(workers):
        for vector in on_workers(three_steps):
            assert np.array_equal(vector, alone)
