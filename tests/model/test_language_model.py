"""The decoder: causal to the last bit, relative positions, packed rows, tied embeddings, caches."""

import autograd.numpy as anp
import numpy as np
import pytest
from model_cases import V, assert_float32_inside, check_tree, shake, tiny_config

from tinyflamingo.model.language_model import (
    decoder_block,
    embed_tokens,
    init_language_model,
    language_model,
    self_attention,
    sinusoids,
)
from tinyflamingo.ops.cache import block_length, cached_length, entry, extend, table
from tinyflamingo.ops.tree import count

CONFIG = tiny_config().language


@pytest.fixture
def params(rng):
    return shake(init_language_model(rng, CONFIG, np.float64), rng)


@pytest.fixture
def tokens(rng):
    return rng.integers(0, V, (2, 9))


def test_a_later_token_changes_no_earlier_logit(floor, params, tokens):
    before = language_model(params, tokens, CONFIG)
    assert before.shape == (2, 9, V)
    tokens[:, 5] = (tokens[:, 5] + 1) % V
    after = language_model(params, tokens, CONFIG)
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert np.all(np.abs(after[:, 5:] - before[:, 5:]).max(axis=-1) > 1e-9)


def test_rows_do_not_see_each_other(floor, params, tokens):
    whole = language_model(params, tokens, CONFIG)
    np.testing.assert_allclose(language_model(params, tokens[1:], CONFIG), whole[1:], atol=1e-12)


@pytest.mark.parametrize("pad", [1, 6])
def test_the_same_text_further_right_has_the_same_logits(floor, params, tokens, pad):
    """Positions are relative: `pad` hidden tokens before the text change nothing."""
    alone = language_model(params, tokens, CONFIG)
    padded = np.concatenate([np.full((2, pad), 7), tokens], axis=1)
    visible_from = np.full(padded.shape, pad)
    np.testing.assert_allclose(language_model(params, padded, CONFIG, visible_from)[:, pad:], alone, atol=1e-11)


def test_order_matters(floor, params):
    """The last logit depends on the order of the earlier tokens."""
    a, b = (language_model(params, np.array([row]), CONFIG)[0, -1] for row in ([5, 6, 7, 8], [6, 5, 7, 8]))
    assert np.abs(a - b).max() > 1e-3


def test_packed_documents_do_not_see_each_other(floor, params, rng):
    first, second = rng.integers(0, V, (1, 4)), rng.integers(0, V, (1, 5))
    visible_from = np.array([[0] * 4 + [4] * 5])
    packed = language_model(params, np.concatenate([first, second], axis=1), CONFIG, visible_from)
    np.testing.assert_allclose(packed[:, :4], language_model(params, first, CONFIG), atol=1e-11)
    np.testing.assert_allclose(packed[:, 4:], language_model(params, second, CONFIG), atol=1e-11)


# ---------------------------------------------------------------- embeddings


def test_embeddings_are_tied(floor, params, tokens):
    """One table for input and output: a row of zeros gives the input 0 and the logit 0."""
    params = params | {"embedding": params["embedding"] * (np.arange(V) != 4)[:, None]}
    assert np.all(embed_tokens(params["embedding"], np.array([[4]])) == 0)
    logits = language_model(params, tokens, CONFIG)
    np.testing.assert_array_equal(logits[..., 4], 0)
    assert np.all(np.abs(logits[..., 5]) > 0)


def test_embeddings_are_scaled_by_the_root_of_the_width(params):
    actual = embed_tokens(params["embedding"], np.array([[3, 5]]))
    np.testing.assert_allclose(actual[0], params["embedding"][[3, 5]] * 12**0.5, rtol=1e-12)


def test_parameter_count_follows_chinchilla():
    """L (5 D H K + 2 D 4D + 10 D) + V D, tied; the final gain adds D."""
    config = tiny_config(language={"width": 16, "heads": 4, "key_size": 4, "ffw_multiplier": 4}).language
    L, D = config.layers, 16
    parameters = count(init_language_model(np.random.default_rng(0), config))
    assert parameters == L * (5 * D * 16 + 8 * D * D + 10 * D) + V * D + D


def test_initialisation_keeps_the_logits_modest(rng):
    config = tiny_config(language={"width": 64, "heads": 4, "key_size": 16}).language
    logits = language_model(init_language_model(rng, config), rng.integers(0, V, (4, 20)), config)
    assert 0.3 < logits.std() < 3.0 and logits.dtype == np.float32


# ---------------------------------------------------------------- Transformer-XL


def test_sinusoids_known_values():
    """All sines first, then all cosines; frequencies 10000^(-2m/D)."""
    waves = sinusoids(5, 4, np.float64)
    np.testing.assert_array_equal(waves[0], [0, 0, 1, 1])
    np.testing.assert_allclose(waves[3], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], rtol=1e-12)
    assert sinusoids(2, 4).dtype == np.float32


def test_self_attention_is_the_formula_in_loops(floor, params, rng):
    """score(i, j) = [(q_i + u).k_j + (q_i + v).W_R s_(i-j)] / sqrt(K), j from visible_from_i to i."""
    p, x = params["block_0"], rng.standard_normal((2, 6, 12))
    visible_from = np.array([[0, 0, 1, 0, 3, 5], [0, 1, 2, 2, 2, 2]])
    H, K = CONFIG.heads, CONFIG.key_size
    actual = self_attention(p, x, visible_from, CONFIG)
    for b, i in np.ndindex(2, 6):
        heads = []
        for h in range(H):
            own = slice(h * K, (h + 1) * K)
            q, keys = x[b, i] @ p["w_q"][:, own], range(visible_from[b, i], i + 1)
            scores = [
                ((q + p["u"][h]) @ (x[b, j] @ p["w_k"][:, own]) + (q + p["v"][h]) @ (_s(i - j) @ p["w_r"][:, own]))
                / K**0.5
                for j in keys
            ]
            weights = np.exp(scores) / np.sum(np.exp(scores))
            heads.append(sum(a * (x[b, j] @ p["w_v"][:, own]) for a, j in zip(weights, keys, strict=True)))
        np.testing.assert_allclose(actual[b, i], np.concatenate(heads) @ p["w_o"] + p["b_o"], atol=1e-11)


def _s(n, D=12):
    w = [10000 ** (-2 * m / D) for m in range(D // 2)]
    return np.array([np.sin(n * f) for f in w] + [np.cos(n * f) for f in w])


def test_block_is_pre_norm_with_two_residuals(floor, params, rng):
    """Without output projections the block is the identity. Each branch reads a normed stream."""
    h, visible_from = rng.standard_normal((1, 5, 12)), np.zeros((1, 5), int)
    p = params["block_1"]
    closed = p | {n: 0 * p[n] for n in ("w_o", "b_o", "w_2", "b_2")}
    np.testing.assert_array_equal(decoder_block(closed, h, visible_from, CONFIG), h)
    # RMSNorm: the branches do not depend on the scale of h.
    grown = decoder_block(p, 1e4 * h, visible_from, CONFIG) - 1e4 * h
    first = h + self_attention(p, h / np.sqrt((h**2).mean(-1, keepdims=True)) * p["attn_gain"], visible_from, CONFIG)
    attended = first - h
    x = (1e4 * h + attended) / np.sqrt(((1e4 * h + attended) ** 2).mean(-1, keepdims=True)) * p["ffw_gain"]
    z = x @ p["w_1"] + p["b_1"]
    gelu = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    np.testing.assert_allclose(grown, attended + gelu @ p["w_2"] + p["b_2"], atol=1e-5)


# ---------------------------------------------------------------- the cache


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-11), (np.float32, 2e-5)])
@pytest.mark.parametrize("cuts", [(9,), (4, 9), (1, 2, 3, 4, 5, 6, 7, 8, 9)])
def test_cache_against_no_cache(floor, rng, tokens, dtype, atol, cuts):
    params = shake(init_language_model(rng, CONFIG, dtype), rng)
    visible_from = np.zeros((2, 9), int)
    visible_from[1] = 2  # the second row is padded on the left
    whole = language_model(params, tokens, CONFIG, visible_from)
    cache, done, parts = {}, 0, []
    for stop in cuts:
        parts.append(language_model(params, tokens[:, done:stop], CONFIG, visible_from[:, done:stop], cache))
        done = stop
        assert cached_length(cache) == stop
    joined = np.concatenate(parts, axis=1)
    assert joined.dtype == dtype
    np.testing.assert_allclose(joined, whole, atol=atol)


@pytest.mark.parametrize("rows", [[], [4], [0, 3, 10, 17]], ids=str)
def test_logits_of_some_tokens_only(floor, params, tokens, rows):
    whole = language_model(params, tokens, CONFIG)
    few = language_model(params, tokens, CONFIG, needed=np.array(rows, int))
    assert few.shape == (len(rows), V)
    np.testing.assert_allclose(few, whole.reshape(-1, V)[rows], atol=1e-12)


def test_the_cache_of_a_block_holds_keys_values_and_distances(floor, params, tokens):
    cache = {}
    language_model(params, tokens, CONFIG, cache=cache)
    assert list(cache) == ["block_0", "block_1", "block_2"]
    for i in range(3):
        assert set(cache[f"block_{i}"]) == {"k", "v", "r", "length"} and cache[f"block_{i}"]["length"] == 9
    fresh = sinusoids(9, 12, np.float64) @ params["block_1"]["w_r"]  # one row for each distance, without a batch
    np.testing.assert_allclose(cache["block_1"]["r"][:9].reshape(9, -1), fresh, atol=1e-12)


def test_a_cache_has_room_for_any_number_of_tokens(floor, params, rng):
    """60 calls with one token each: new arrays are made a few times only."""
    tokens, cache, parts, arrays = rng.integers(0, V, (2, 60)), {}, [], []
    for done in range(60):
        parts.append(language_model(params, tokens[:, done : done + 1], CONFIG, cache=cache))
        if not arrays or cache["block_2"]["k"] is not arrays[-1]:
            arrays.append(cache["block_2"]["k"])
    np.testing.assert_allclose(np.concatenate(parts, axis=1), language_model(params, tokens, CONFIG), atol=1e-11)
    assert cached_length(cache) == 60 and len(arrays) <= 6  # room for 2, 6, 14, 30, 62


def test_new_arrays_are_written_in_place(rng):
    block, k = {}, rng.standard_normal((1, 2, 3, 4))
    extend(block, k=k, v=2 * k)
    held = block["k"]
    keys, values = extend(block, k=3 * k[:, :1], v=4 * k[:, :1])
    np.testing.assert_array_equal(keys, np.concatenate([k, 3 * k[:, :1]], axis=1))
    np.testing.assert_array_equal(values, np.concatenate([2 * k, 4 * k[:, :1]], axis=1))
    assert block["k"] is held and np.shares_memory(keys, held) and block_length(block) == 3
    grown, _ = extend(block, k=np.repeat(k, 4, axis=1), v=np.repeat(k, 4, axis=1))
    assert block["k"] is not held and block_length(block) == 11
    np.testing.assert_array_equal(grown[:, :3], keys)  # the old rows are copied to the longer array


def test_a_table_is_computed_again_only_when_it_is_too_short():
    block, made = {}, []

    def rows(n):
        made.append(n)
        return np.arange(n)

    for n in (3, 6, 7, 14, 1):
        np.testing.assert_array_equal(table(block, "r", n, rows), np.arange(n))
    assert made == [6, 14]
    assert len(table(None, "r", 3, rows)) == 3 and made == [6, 14, 3]


def test_without_a_cache_nothing_is_kept(rng):
    k = rng.standard_normal((1, 2, 3, 4))
    assert extend(None, k=k)[0] is k
    assert entry(None, "block_0") is None and cached_length(None) == cached_length({}) == block_length(None) == 0
    cache = {}
    assert entry(cache, "block_0") is entry(cache, "block_0") is cache["block_0"]


# ---------------------------------------------------------------- gradients


def test_block_gradient(floor, params, rng):
    h, visible_from = rng.standard_normal((2, 4, 12)), np.array([[0, 0, 0, 0], [0, 0, 2, 2]])
    check_tree(lambda p, h: decoder_block(p, h, visible_from, CONFIG), params["block_0"], h, tol=1e-5)


def test_gradient_of_the_tied_table(floor, params, tokens):
    """The table's gradient is the sum of both uses."""
    table = {"embedding": params["embedding"], "final_gain": params["final_gain"]}
    check_tree(lambda p: language_model(params | p, tokens, CONFIG), table, tol=1e-5)


def test_float32_inside_backward(floor, rng, tokens):
    params = init_language_model(rng, CONFIG)
    assert_float32_inside(lambda p: anp.sum(language_model(p, tokens, CONFIG)), params)
