"""The gated block: the identity at closed gates, first gradients, masks, and the same formula in loops."""

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import assert_float32_inside, check_tree, shake, tiny_config

from tinyflamingo import ops
from tinyflamingo.model.gated_xattn import gated_xattn_dense, init_gated_xattn, media_keys_values
from tinyflamingo.ops.tree import named_leaves

WHOLE = tiny_config()  # text D 12, visual tokens 3 x 8
CONFIG = WHOLE.xattn
PHI = np.array([[0, 1, 1, 2], [0, 0, 3, 3]])


@pytest.fixture
def block(rng):
    """Shaken, gates open."""
    params = shake(init_gated_xattn(rng, WHOLE, np.float64), rng)
    return params | {"alpha_xattn": np.array(0.9), "alpha_dense": np.array(-0.7)}


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((2, 4, 12)), rng.standard_normal((3, 3, 8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_closed_gates_are_the_identity_to_the_last_bit(floor, rng, inputs, dtype):
    params = init_gated_xattn(rng, WHOLE, dtype)
    assert params["alpha_xattn"] == 0 and params["alpha_dense"] == 0
    h, visual = (x.astype(dtype) for x in inputs)
    out = gated_xattn_dense(params, h, visual, PHI, CONFIG)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, h)


def test_the_first_gradient_is_at_the_gates_alone(floor, rng, inputs):
    params = init_gated_xattn(rng, WHOLE, np.float64)
    h, visual = inputs

    def loss(tree):
        out = gated_xattn_dense(tree["block"], tree["h"], tree["visual"], PHI, CONFIG)
        return anp.sum(out * np.linspace(-1, 1, out.size).reshape(out.shape))

    _, gradients = ops.value_and_grad(loss)({"block": params, "h": h, "visual": visual})
    for name, gradient in named_leaves(gradients["block"]).items():
        if name.startswith("alpha_"):
            assert abs(gradient) > 1e-6, name
        else:
            np.testing.assert_array_equal(gradient, 0, err_msg=name)
    np.testing.assert_array_equal(gradients["visual"], 0)
    assert np.all(gradients["h"] != 0)


def test_gates_are_tanh_of_alpha(floor, inputs, block):
    """Each scales its own branch, and nothing else."""
    h, visual = inputs
    only_xattn = block | {"alpha_dense": np.array(0.0)}
    one = gated_xattn_dense(only_xattn | {"alpha_xattn": np.array(0.3)}, h, visual, PHI, CONFIG) - h
    two = gated_xattn_dense(only_xattn | {"alpha_xattn": np.array(-1.2)}, h, visual, PHI, CONFIG) - h
    np.testing.assert_allclose(two, one * np.tanh(-1.2) / np.tanh(0.3), atol=1e-12)
    only_dense = block | {"alpha_xattn": np.array(0.0)}
    one = gated_xattn_dense(only_dense | {"alpha_dense": np.array(0.3)}, h, visual, PHI, CONFIG) - h
    two = gated_xattn_dense(only_dense | {"alpha_dense": np.array(9.0)}, h, visual, PHI, CONFIG) - h
    np.testing.assert_allclose(two, one * np.tanh(9.0) / np.tanh(0.3), atol=1e-12)


def test_without_a_medium_the_attention_adds_exactly_nothing(floor, inputs, block):
    """phi = 0. The feed-forward layer still acts on all tokens."""
    h, visual = inputs
    out = gated_xattn_dense(block, h, visual, PHI, CONFIG)
    no_attention = gated_xattn_dense(block | {"alpha_xattn": np.array(0.0)}, h, visual, PHI, CONFIG)
    np.testing.assert_array_equal(out[PHI == 0], no_attention[PHI == 0])
    assert np.all(np.abs(out - no_attention)[PHI > 0].max(axis=-1) > 1e-6)
    assert np.all(np.abs(out - h)[PHI == 0].max(axis=-1) > 1e-6)


def test_no_media_at_all(floor, inputs, block):
    h, visual = inputs
    none = gated_xattn_dense(block, h, visual[:0], 0 * PHI, CONFIG)
    np.testing.assert_array_equal(none, gated_xattn_dense(block, h, visual, 0 * PHI, CONFIG))


@pytest.mark.parametrize("medium", [1, 2, 3])
def test_a_token_attends_to_its_own_medium_only(floor, inputs, block, rng, medium):
    h, visual = inputs
    before = gated_xattn_dense(block, h, visual, PHI, CONFIG)
    visual[medium - 1] = 10 * rng.standard_normal(visual[0].shape)
    after = gated_xattn_dense(block, h, visual, PHI, CONFIG)
    np.testing.assert_array_equal(after[PHI != medium], before[PHI != medium])
    assert np.all(np.abs(after - before)[PHI == medium].max(axis=-1) > 1e-6)


def test_tokens_do_not_mix(floor, inputs, block):
    """Cross-attention and feed-forward act on each token alone, in any order."""
    h, visual = inputs
    whole = gated_xattn_dense(block, h, visual, PHI, CONFIG)
    reverse = gated_xattn_dense(block, h[:, ::-1], visual, PHI[:, ::-1], CONFIG)
    np.testing.assert_allclose(reverse[:, ::-1], whole, atol=1e-12)


def test_the_order_of_visual_tokens_has_no_effect(floor, inputs, block):
    h, visual = inputs
    np.testing.assert_allclose(
        gated_xattn_dense(block, h, visual[:, [2, 0, 1]], PHI, CONFIG),
        gated_xattn_dense(block, h, visual, PHI, CONFIG),
        atol=1e-12,
    )


def test_phi_beyond_the_media_is_an_error(floor, inputs, block):
    h, visual = inputs
    with pytest.raises(ValueError, match="phi is 3 but there are 2 media"):
        gated_xattn_dense(block, h, visual[:2], PHI, CONFIG)


def _norm(x, gain, bias):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + bias


def test_loops_agree(floor, inputs, block):
    """Paper, figure 4, token by token; one layer norm on queries, one on keys and values."""
    h, visual = inputs
    p, H, K = block, CONFIG.heads, CONFIG.key_size
    actual = gated_xattn_dense(p, h, visual, PHI, CONFIG)
    for b, t in np.ndindex(2, 4):
        y = h[b, t]
        if PHI[b, t]:
            media = [_norm(v, p["media_gain"], p["media_bias"]) for v in visual[PHI[b, t] - 1]]
            query, heads = _norm(y, p["query_gain"], p["query_bias"]), []
            for n in range(H):
                own = slice(n * K, (n + 1) * K)
                scores = [(query @ p["w_q"][:, own]) @ (m @ p["w_k"][:, own]) / K**0.5 for m in media]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                heads.append(sum(a * (m @ p["w_v"][:, own]) for a, m in zip(weights, media, strict=True)))
            y = y + np.tanh(p["alpha_xattn"]) * np.concatenate(heads) @ p["w_o"]
        hidden = np.maximum(_norm(y, p["ffw_gain"], p["ffw_bias"]) @ p["w_1"], 0) ** 2
        y = y + np.tanh(p["alpha_dense"]) * hidden @ p["w_2"]
        np.testing.assert_allclose(actual[b, t], y, atol=1e-11)


def test_cached_keys_and_values_are_equal(floor, inputs, block):
    h, visual = inputs
    assert [x.shape for x in media_keys_values(block, visual, CONFIG)] == [(1, 3, 3, 2, 5)] * 2
    fresh, cache = gated_xattn_dense(block, h, visual, PHI, CONFIG), {}
    np.testing.assert_array_equal(gated_xattn_dense(block, h, visual, PHI, CONFIG, cache), fresh)
    assert set(cache) == {"k", "v"}
    np.testing.assert_array_equal(gated_xattn_dense(block, h, None, PHI, CONFIG, cache), fresh)  # no media are read
    one = gated_xattn_dense(block, h[:, 2:3], None, PHI[:, 2:3], CONFIG, cache)
    np.testing.assert_allclose(one, fresh[:, 2:3], atol=1e-12)


def test_phi_of_another_length_is_an_error(floor, inputs, block):
    h, visual = inputs
    with pytest.raises(ValueError, match="axis T"):
        gated_xattn_dense(block, h, visual, PHI[:, :2], CONFIG)


def test_gradient_with_open_gates(floor, inputs, block):
    h, visual = inputs
    check_tree(lambda p, h, v: gated_xattn_dense(p, h, v, PHI, CONFIG), block, h, visual, tol=1e-5)


def test_float32_inside_backward(floor, rng, inputs):
    params = shake(init_gated_xattn(rng, WHOLE), rng)
    h, visual = (x.astype(np.float32) for x in inputs)
    tree = {"block": params, "h": h, "visual": visual}
    assert_float32_inside(lambda t: anp.sum(gated_xattn_dense(t["block"], t["h"], t["visual"], PHI, CONFIG)), tree)
