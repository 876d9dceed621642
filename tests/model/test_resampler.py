"""The Perceiver resampler: any S and F in, R tokens out; the order of frames matters, of patches not."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.perceiver_resampler import (
    init_resampler,
    perceiver_resampler,
    project_both,
    resampler_layer,
    temporal_embedding,
)

CONFIG = tiny_config().resampler  # R 3, D 8, trained for 4 frames


@pytest.fixture
def params(rng):
    return shake(init_resampler(rng, CONFIG, np.float64), rng)


@pytest.mark.parametrize("F", [1, 4, 9])
@pytest.mark.parametrize("S", [1, 6])
def test_output_shape_for_any_features(floor, rng, params, F, S):
    out = perceiver_resampler(params, rng.standard_normal((2, F, S, 8)), CONFIG)
    assert out.shape == (2, 3, 8) and np.all(np.isfinite(out))


@pytest.mark.parametrize("F", [1, 3, 7])
def test_permuting_patches_changes_nothing(floor, rng, params, F):
    features = rng.standard_normal((2, F, 6, 8))
    shuffled = np.stack([features[:, f, rng.permutation(6)] for f in range(F)], axis=1)
    np.testing.assert_allclose(
        perceiver_resampler(params, shuffled, CONFIG), perceiver_resampler(params, features, CONFIG), atol=1e-12
    )


def test_permuting_frames_changes_the_tokens(floor, rng, params):
    features = rng.standard_normal((2, 3, 6, 8))
    before = perceiver_resampler(params, features, CONFIG)
    assert np.abs(perceiver_resampler(params, features[:, [2, 0, 1]], CONFIG) - before).max() > 1e-3
    timeless = params | {"temporal": 0 * params["temporal"]}  # without the embedding it does not
    np.testing.assert_allclose(
        perceiver_resampler(timeless, features[:, [2, 0, 1]], CONFIG),
        perceiver_resampler(timeless, features, CONFIG),
        atol=1e-12,
    )


def test_media_do_not_see_each_other(floor, rng, params):
    features = rng.standard_normal((3, 2, 5, 8))
    together = perceiver_resampler(params, features, CONFIG)
    for m in range(3):
        alone = perceiver_resampler(params, features[m : m + 1], CONFIG)
        np.testing.assert_allclose(alone[0], together[m], atol=1e-12)


def test_a_latent_reaches_other_latents_within_one_layer(floor, rng, params):
    """Queries do not mix rows. Only keys and values of the latents can carry one latent to another."""
    x, features, time = rng.standard_normal((1, 3, 8)), rng.standard_normal((1, 1, 5, 8)), params["temporal"][:1]
    before = resampler_layer(params["layer_0"], x, features, time, CONFIG)
    x[0, 2] += rng.standard_normal(8)
    after = resampler_layer(params["layer_0"], x, features, time, CONFIG)
    assert np.all(np.abs(after - before).max(axis=-1) > 1e-6)


def test_latents_are_in_keys_and_values_even_without_features(floor, rng, params):
    """Without features the latents still attend to themselves."""
    x, nothing, time = rng.standard_normal((1, 3, 8)), np.zeros((1, 1, 0, 8)), params["temporal"][:1]
    out = resampler_layer(params["layer_0"], x, nothing, time, CONFIG)
    no_output = params["layer_0"] | {"w_o": 0 * params["layer_0"]["w_o"]}
    no_attention = resampler_layer(no_output, x, nothing, time, CONFIG)
    assert np.abs(out - no_attention).max() > 1e-3


def test_features_reach_keys_and_values_without_a_norm(floor, rng, params):
    """As docs/deviations.md says: twice the features gives another result."""
    features = rng.standard_normal((1, 1, 5, 8))
    one, two = (perceiver_resampler(params, s * features, CONFIG) for s in (1, 2))
    assert np.abs(one - two).max() > 1e-3


def test_projection_one_by_one_equals_projection_together(floor, rng):
    """[features + time ; latents] @ w, with the features of a frame in order, frame after frame."""
    features, time = rng.standard_normal((2, 3, 4, 8)), rng.standard_normal((3, 8))
    latents, w = rng.standard_normal((2, 5, 8)), rng.standard_normal((8, 6))
    both = np.concatenate([(features + time[None, :, None]).reshape(2, 12, 8), latents], axis=1)
    np.testing.assert_allclose(project_both(features, time, latents, w), both @ w, atol=1e-12)


# ---------------------------------------------------------------- time


def test_interpolation_is_exact_up_to_the_trained_frames(floor, params):
    for F in (1, 3, 4):
        np.testing.assert_array_equal(temporal_embedding(params["temporal"], F), params["temporal"][:F])


def test_interpolation_thirty_from_eight():
    """Paper, appendix B.1.2. On a table whose row t is (t, t^2): places are i * 7 / 29."""
    t = np.arange(8.0)
    actual = temporal_embedding(np.stack([t, t**2], axis=1), 30)
    assert actual.shape == (30, 2)
    np.testing.assert_allclose(actual[:, 0], np.arange(30) * 7 / 29, rtol=1e-12)
    np.testing.assert_allclose(actual[:, 1], np.interp(np.arange(30) * 7 / 29, t, t**2), rtol=1e-12)
    np.testing.assert_allclose(actual[5, 1], 1 + 3 * (35 / 29 - 1), rtol=1e-12)  # between 1 and 4


@pytest.mark.parametrize("F", [5, 7, 30])
def test_interpolation_keeps_endpoints_and_is_linear(rng, params, F):
    a, b = params["temporal"], rng.standard_normal((4, 8))
    np.testing.assert_allclose(temporal_embedding(a, F)[[0, -1]], a[[0, -1]], rtol=1e-12)
    np.testing.assert_allclose(
        temporal_embedding(2 * a + b, F), 2 * temporal_embedding(a, F) + temporal_embedding(b, F), atol=1e-12
    )


def test_interpolation_at_twice_minus_one_hits_every_trained_row(params):
    actual = temporal_embedding(params["temporal"], 7)
    np.testing.assert_allclose(actual[::2], params["temporal"], atol=1e-12)
    np.testing.assert_allclose(actual[1], (params["temporal"][0] + params["temporal"][1]) / 2, atol=1e-12)


def test_interpolation_from_one_trained_frame():
    np.testing.assert_array_equal(temporal_embedding(np.array([[3.0, 4.0]]), 3), [[3.0, 4.0]] * 3)


def test_interpolation_keeps_float32(params):
    assert temporal_embedding(params["temporal"].astype(np.float32), 9).dtype == np.float32


def test_a_picture_is_a_video_of_one_frame(floor, rng, params):
    """It gets the embedding of time 0 only."""
    features = rng.standard_normal((2, 1, 5, 8))
    timeless = params | {"temporal": 0 * params["temporal"]}
    np.testing.assert_allclose(
        perceiver_resampler(params, features, CONFIG),
        perceiver_resampler(timeless, features + params["temporal"][0], CONFIG),
        atol=1e-12,
    )


# ---------------------------------------------------------------- the same thing in loops


def _norm(x, gain, bias):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + bias


def _slow(params, features):
    """One medium (F, S, D), in loops, after the paper's figure 5."""
    F, S, _ = features.shape
    inputs = [features[f, s] + temporal_embedding(params["temporal"], F)[f] for f in range(F) for s in range(S)]
    x = [latent.copy() for latent in params["latents"]]
    K = CONFIG.key_size
    for n in range(CONFIG.layers):
        p = params[f"layer_{n}"]
        latents = [_norm(row, p["attn_gain"], p["attn_bias"]) for row in x]
        rows = []
        for latent in latents:
            heads = []
            for h in range(CONFIG.heads):
                own = slice(h * K, (h + 1) * K)
                scores = [(latent @ p["w_q"][:, own]) @ (y @ p["w_k"][:, own]) / K**0.5 for y in inputs + latents]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                heads.append(sum(a * (y @ p["w_v"][:, own]) for a, y in zip(weights, inputs + latents, strict=True)))
            rows.append(np.concatenate(heads) @ p["w_o"])
        x = [a + b for a, b in zip(x, rows, strict=True)]
        x = [row + np.maximum(_norm(row, p["ffw_gain"], p["ffw_bias"]) @ p["w_1"], 0) ** 2 @ p["w_2"] for row in x]
    return np.stack(x)


@pytest.mark.parametrize("F", [1, 6])
def test_loops_agree(floor, rng, params, F):
    features = rng.standard_normal((2, F, 3, 8))
    expected = np.stack([_slow(params, one) for one in features])
    np.testing.assert_allclose(perceiver_resampler(params, features, CONFIG), expected, rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------- gradients


def test_layer_gradient(floor, rng, params):
    x, features, time = (rng.standard_normal(shape) for shape in ((2, 3, 8), (2, 3, 4, 8), (3, 8)))
    layer = lambda p, x, f, t: resampler_layer(p, x, f, t, CONFIG)  # noqa: E731
    check_tree(layer, params["layer_0"], x, features, time, tol=1e-5)


def test_gradient_with_interpolated_frames(floor, rng, params):
    """For every row of the temporal table, and for the latents."""
    features = rng.standard_normal((1, 6, 2, 8))

    def run(temporal, latents, features):
        return perceiver_resampler(params | {"temporal": temporal, "latents": latents}, features, CONFIG)

    ops.check_grad(run, params["temporal"], params["latents"], features, tol=1e-5)


def test_float32_inside_backward(floor, rng):
    params = init_resampler(rng, CONFIG)
    features = rng.standard_normal((2, 6, 3, 8)).astype(np.float32)
    assert_float32_inside(lambda p: anp.sum(perceiver_resampler(p, features, CONFIG)), params)


def test_initialisation_depends_on_the_generator_alone():
    a, b, c = (init_resampler(np.random.default_rng(s), CONFIG) for s in (1, 1, 2))
    np.testing.assert_array_equal(a["layer_1"]["w_v"], b["layer_1"]["w_v"])
    assert np.any(a["layer_1"]["w_v"] != c["layer_1"]["w_v"])


def test_features_of_another_width_are_projected(floor, rng):
    """As in the paper's models: one matrix before everything else."""
    config = dataclasses.replace(CONFIG, input_width=5)
    params = shake(init_resampler(rng, config, np.float64), rng)
    features = rng.standard_normal((2, 3, 6, 5))
    assert params["w_in"].shape == (5, 8)
    expected = perceiver_resampler({k: v for k, v in params.items() if k != "w_in"}, features @ params["w_in"], CONFIG)
    np.testing.assert_allclose(perceiver_resampler(params, features, config), expected, rtol=1e-10, atol=1e-12)
    check_tree(lambda p: perceiver_resampler(params | p, features, config), {"w_in": params["w_in"]})
