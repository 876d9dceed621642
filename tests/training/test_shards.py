"""A batch in shards gives the gradient of the whole batch, with the same bits for any number of workers."""

import autograd.numpy as anp
import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.training.shards import cut_rows, joined_gradient, summed_gradient

ROWS = 7


@pytest.fixture
def params(rng):
    def normal(*shape):
        return rng.standard_normal(shape).astype("f4")

    return {"first": {"w": normal(5, 6), "b": normal(6)}, "last": normal(6, 4), "scale": np.array(1.3, "f4")}


@pytest.fixture
def arrays(rng):
    return rng.standard_normal((ROWS, 5)).astype("f4"), rng.standard_normal((ROWS, 4)).astype("f4")


def vectors(params, shard):
    """A vector for each row."""
    x = shard[0]
    hidden = ops.gelu(ops.linear(x, params["first"]["w"], params["first"]["b"]))
    return ops.linear(hidden, params["last"]) * params["scale"]


def squares(params, shard):
    """A loss that is a sum over rows, and more numbers: the number of rows, and the sum of their vectors."""
    y = vectors(params, shard)
    return anp.sum((y - shard[1]) ** 2), [len(shard[0]), *anp.sum(y, axis=0)]


def contrast(head, rows):
    """A loss that compares every row with every other row."""
    return anp.sum(ops.cross_entropy(ops.linear(rows, rows.T) * head["scale"], np.arange(ROWS)))


def split(arrays, n):
    with ops.use_workers(n):
        return cut_rows(*arrays)


def close(actual, expected):
    assert actual.dtype == np.float32
    return np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


# ---- cutting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_shards_are_runs_of_rows_of_all_arrays(arrays, n):
    shards = split(arrays, n)
    assert len(shards) == min(n, ROWS)
    assert {len(x) for x, _ in shards} <= {ROWS // len(shards), ROWS // len(shards) + 1}
    for i, whole in enumerate(arrays):
        np.testing.assert_array_equal(np.concatenate([shard[i] for shard in shards]), whole)


# ---- sums ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_summed_gradient_is_that_of_the_whole_batch(floor, params, arrays, n):
    (loss, whole), gradients = ops.value_and_grad(squares)(params, arrays)
    with ops.use_workers(2):
        total, parts, gradient = summed_gradient(squares, params, split(arrays, n))
    assert total == pytest.approx(loss, rel=1e-5)
    assert close(gradient, flatten(gradients))
    assert parts[0] == ROWS and {type(number) for number in (total, *parts)} == {float}
    np.testing.assert_allclose(parts[1:], np.sum(vectors(params, arrays), axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_loss_without_parts_has_none(params, arrays):
    def alone(params, shard):
        return squares(params, shard)[0], ()

    loss, parts, gradient = summed_gradient(alone, params, split(arrays, 3))
    expected = summed_gradient(squares, params, split(arrays, 3))
    assert parts == [] and loss == expected[0]
    np.testing.assert_array_equal(gradient, expected[2])


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_joined_gradient_is_that_of_the_whole_batch(floor, params, arrays, n):
    """`scale` has a gradient from the vectors and one from the loss."""
    loss, gradients = ops.value_and_grad(lambda p: contrast(p, vectors(p, arrays)))(params)
    with ops.use_workers(2):
        head = {"scale": params["scale"]}
        joined_loss, gradient = joined_gradient(vectors, contrast, params, head, split(arrays, n))
    assert joined_loss == pytest.approx(loss, rel=1e-5)
    assert close(gradient, flatten(gradients))
    assert view_tree(gradient, params)["scale"] == pytest.approx(gradients["scale"], rel=1e-4)


@pytest.mark.parametrize("n", [2, 3])
def test_the_bits_depend_only_on_the_shards(params, arrays, n):
    shards, results = split(arrays, n), []
    for workers in (1, 2, 2, 3, 1):
        with ops.use_workers(workers):
            loss, _, gradient = summed_gradient(squares, params, shards)
            joined = joined_gradient(vectors, contrast, params, {"scale": params["scale"]}, shards)
        results.append((loss, gradient.tobytes(), joined[0], joined[1].tobytes()))
    assert len(set(results)) == 1


def test_parameters_and_shards_do_not_change(params, arrays):
    before, rows = flatten(params).tobytes(), [x.tobytes() for x in arrays]
    with ops.use_workers(2):
        summed_gradient(squares, params, cut_rows(*arrays))
        joined_gradient(vectors, contrast, params, {"scale": params["scale"]}, cut_rows(*arrays))
    assert flatten(params).tobytes() == before and [x.tobytes() for x in arrays] == rows


def test_an_error_in_a_shard_is_raised(params, arrays):
    def picky(params, shard):
        if len(shard[0]) < 3:
            raise ArithmeticError("too few rows")
        return squares(params, shard)

    with ops.use_workers(3), pytest.raises(ArithmeticError, match="too few rows"):
        summed_gradient(picky, params, cut_rows(*arrays))
