"""Choosing shots: the most similar last, at any scale of the features; permutations that differ."""

import numpy as np
import pytest

from tinyflamingo.evaluation.retrieval import permutations, pooled, rices


def test_the_most_similar_comes_last():
    support = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
    assert rices(support, np.array([[1.0, 0.1], [0.0, 1.0]]), 3).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_similarity_depends_on_the_direction_alone(rng):
    support, queries = rng.standard_normal((20, 6)), rng.standard_normal((5, 6))
    scaled = rices(support * rng.uniform(0.1, 10, (20, 1)), queries * 7, 4)
    np.testing.assert_array_equal(rices(support, queries, 4), scaled)
    similarity = [[s @ q / np.linalg.norm(s) for s in support] for q in queries]
    np.testing.assert_array_equal(scaled[:, -1], np.argmax(similarity, axis=1))


def test_the_most_similar_example_to_an_example_is_itself(rng):
    support = rng.standard_normal((8, 3))
    assert rices(support, support, 2)[:, -1].tolist() == list(range(8))
    assert rices(support, np.zeros((1, 3)), 8).shape == (1, 8) and rices(support, support, 0).shape == (8, 0)
    with pytest.raises(ValueError, match="9 shots of 8 examples"):
        rices(support, support, 9)


def test_pooling_is_the_mean_over_frames_and_cells(rng):
    features = rng.standard_normal((4, 3, 5, 2))
    np.testing.assert_allclose(pooled(features), features.reshape(4, 15, 2).mean(axis=1))


@pytest.mark.parametrize("k, times, count", [(8, 6, 6), (3, 6, 6), (2, 6, 2), (1, 6, 1), (0, 6, 1)])
def test_permutations_differ_and_are_permutations(rng, k, times, count):
    orders = permutations(rng, k, times)
    assert orders.shape == (count, k) and len({tuple(o) for o in orders}) == count
    assert all(sorted(o) == list(range(k)) for o in orders.tolist())
