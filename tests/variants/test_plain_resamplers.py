"""What stands in the resampler's place: shapes, gradients, what is permuted, and sizes like the resampler's."""

import dataclasses

import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny, tiny_config

from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.model.flamingo import flamingo, see
from tinyflamingo.variants.plain_resamplers import RESAMPLERS
from tinyflamingo.ops.tree import count

PLAIN = ("mlp", "transformer")


def made(kind, rng, dtype=np.float64):
    config = dataclasses.replace(tiny_config().resampler, kind=kind)
    init, look = RESAMPLERS[kind]
    return shake(init(rng, config, dtype), rng), look, config


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("F", [1, 2, 7])
def test_every_feature_of_a_frame_becomes_a_token(kind, F, rng, floor):
    params, look, config = made(kind, rng)
    assert look(params, rng.standard_normal((3, F, 4, 8)), config).shape == (3, 4, 8)


@pytest.mark.parametrize("kind", PLAIN)
def test_gradients(kind, rng, floor):
    params, look, config = made(kind, rng)
    features, weights = rng.standard_normal((2, 3, 4, 8)), rng.standard_normal((2, 4, 8))
    check_tree(lambda p, f: (look(p, f, config) * weights).sum(), params, features)
    single, f, w = made(kind, rng, np.float32)[0], features.astype("f4"), weights.astype("f4")
    assert_float32_inside(lambda p: (look(p, f, config) * w).sum(), single)


def test_the_mlp_sees_a_feature_alone_and_the_transformer_all(rng):
    features = rng.standard_normal((1, 2, 4, 8))
    changed = features.copy()
    changed[0, 0, 0] += rng.standard_normal(8)
    for kind, reaches in (("mlp", False), ("transformer", True)):
        params, look, config = made(kind, rng)
        one, two = look(params, features, config), look(params, changed, config)
        assert np.abs(one[0, 0] - two[0, 0]).max() > 1e-3
        assert (np.abs(one[0, 1:] - two[0, 1:]).max() > 1e-6) == reaches


@pytest.mark.parametrize("kind", PLAIN)
def test_places_move_with_their_features_and_frames_have_their_time(kind, rng):
    params, look, config = made(kind, rng)
    features, order = rng.standard_normal((1, 3, 4, 8)), rng.permutation(4)
    one = look(params, features, config)
    np.testing.assert_allclose(look(params, features[:, :, order], config), one[:, order])
    assert np.abs(look(params, features[:, ::-1], config) - one).max() > 1e-3


@pytest.mark.parametrize("kind", PLAIN)
def test_as_many_weights_as_the_resampler(kind, rng):
    sizes = {k: count(RESAMPLERS[k][0](rng, ResamplerConfig(kind=k))) for k in (kind, "perceiver")}
    assert sizes[kind] == pytest.approx(sizes["perceiver"], rel=0.01)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_whole_flamingo_with_it(kind):
    m = tiny(config=tiny_config(resampler={"kind": kind}))
    assert m.visual.shape == (3, 4, 8)
    logits = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config)
    other = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual[::-1], m.config)
    assert np.isfinite(logits).all() and np.abs(logits - other)[0].max() > 1e-6
    assert see(m.params, m.features[:0], m.config).shape[0] == 0
