"""The replacements of the resampler: shapes, gradients, permutations, number of weights."""

import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny, tiny_config

from tinyflamingo.model.config import ResamplerConfig
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.ops.tree import count
from tinyflamingo.variants.plain_resamplers import MLPConfig, TransformerConfig, mlp, transformer
from tinyflamingo.variants.registry import in_form, init_part

PLAIN = {"mlp": (MLPConfig, mlp), "transformer": (TransformerConfig, transformer)}


def make(kind, rng, dtype=np.float64):
    form, resample = PLAIN[kind]
    config = in_form(tiny_config().resampler, form)
    return shake(init_part(rng, config, dtype), rng), resample, config


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("F", [1, 2, 7])
def test_every_feature_of_a_frame_becomes_a_token(kind, F, rng, floor):
    params, resample, config = make(kind, rng)
    assert resample(params, rng.standard_normal((3, F, 4, 8)), config).shape == (3, 4, 8)


@pytest.mark.parametrize("kind", PLAIN)
def test_gradients(kind, rng, floor):
    params, resample, config = make(kind, rng)
    features, weights = rng.standard_normal((2, 3, 4, 8)), rng.standard_normal((2, 4, 8))
    check_tree(lambda p, f: (resample(p, f, config) * weights).sum(), params, features)
    single, f, w = make(kind, rng, np.float32)[0], features.astype("f4"), weights.astype("f4")
    assert_float32_inside(lambda p: (resample(p, f, config) * w).sum(), single)


def test_the_mlp_reads_each_feature_alone_and_the_transformer_all(rng):
    features = rng.standard_normal((1, 2, 4, 8))
    changed = features.copy()
    changed[0, 0, 0] += rng.standard_normal(8)
    for kind, reaches in (("mlp", False), ("transformer", True)):
        params, resample, config = make(kind, rng)
        one, two = resample(params, features, config), resample(params, changed, config)
        assert np.abs(one[0, 0] - two[0, 0]).max() > 1e-3
        assert (np.abs(one[0, 1:] - two[0, 1:]).max() > 1e-6) == reaches


@pytest.mark.parametrize("kind", PLAIN)
def test_tokens_follow_their_features_and_frames_have_their_time(kind, rng):
    params, resample, config = make(kind, rng)
    features, order = rng.standard_normal((1, 3, 4, 8)), rng.permutation(4)
    one = resample(params, features, config)
    np.testing.assert_allclose(resample(params, features[:, :, order], config), one[:, order])
    assert np.abs(resample(params, features[:, ::-1], config) - one).max() > 1e-3


@pytest.mark.parametrize("kind", PLAIN)
def test_they_have_as_many_weights_as_the_resampler(kind, rng):
    plain, perceiver = count(init_part(rng, PLAIN[kind][0]())), count(init_part(rng, ResamplerConfig()))
    assert plain == pytest.approx(perceiver, rel=0.01)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_whole_flamingo_with_it(kind):
    m = tiny(config=tiny_config(resampler={"form": PLAIN[kind][0]}))
    assert m.visual.shape == (3, 4, 8)
    logits = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config, parts=m.parts)
    other = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual[::-1], m.config, parts=m.parts)
    assert np.isfinite(logits).all() and np.abs(logits - other)[0].max() > 1e-6
    for nothing in ([], [m.features[:0]]):
        assert m.parts.resample(m.params, nothing, m.config).shape[0] == 0


@pytest.mark.parametrize("kind", PLAIN)
def test_runs_of_media_with_equally_many_frames(kind, rng):
    m = tiny(config=tiny_config(resampler={"form": PLAIN[kind][0]}))
    pictures, clips = rng.standard_normal((2, 1, 4, 8)), rng.standard_normal((1, 3, 4, 8))
    tokens = m.parts.resample(m.params, [pictures, clips], m.config)
    one_by_one = [m.parts.resample(m.params, [x], m.config) for x in (pictures[:1], pictures[1:], clips)]
    np.testing.assert_allclose(tokens, np.concatenate(one_by_one), atol=1e-12)
