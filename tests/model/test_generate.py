"""Greedy completion: with and without a cache, in a batch and alone, when to stop, which tokens are never written."""

import numpy as np
import pytest
from completion_cases import (
    EMPTY,
    batch_of,
    greedy,
    log_probs_after,
    logits_for,
    plain_batch,
    prompts,
    scripted_model,
    sequence_of,
    sharp_model,
)
from model_cases import tiny

from tinyflamingo import ops
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.decoding.sampling import Sampling, sampler
from tinyflamingo.errors import UserError
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.generate import (
    NEVER,
    check_length,
    generate,
    likeliest,
    log_softmax_allowed,
    read_on,
    read_token,
)
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD, UNK
from tinyflamingo.ops import kernels
from tinyflamingo.ops.cache import cached_length

# ---------------------------------------------------------------- greedy and the cache


@pytest.mark.parametrize("seed", range(4))
def test_cached_greedy_equals_uncached_greedy(floor, seed):
    m = sharp_model(seed)
    for sequence in prompts(m.eoc):
        batch, visual = batch_of(m, [sequence])
        (tokens,), (scores,) = generate(m, batch, visual, max_tokens=8)
        expected, expected_scores = greedy(m, sequence, 8)
        assert tokens == expected
        np.testing.assert_allclose(scores, expected_scores, atol=1e-9)


def test_these_models_write_something():
    """Otherwise the test above would compare empty lists."""
    written = [greedy(sharp_model(seed), s, 8)[0] for seed in range(4) for s in prompts(12)]
    assert sum(map(len, written)) > 20 and len(set(map(tuple, written))) > 4


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_cached_logits_equal_uncached(floor, dtype, atol):
    m = tiny(dtype=dtype)
    whole = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config)
    cache, parts = {}, []
    for columns in (slice(0, 5), slice(5, 6), slice(6, 8)):
        parts.append(
            flamingo(m.params, m.frozen, m.tokens[:, columns], m.phi[:, columns], m.visual, m.config, None, cache)
        )
    assert cached_length(cache) == 8 and parts[0].dtype == dtype
    assert list(cache) == [f"{kind}_{i}" for i in range(3) for kind in ("xattn", "block")]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=atol)


@pytest.mark.parametrize("seed", range(3))
def test_a_left_padded_batch_equals_one_by_one(floor, seed):
    m = sharp_model(seed)
    sequences = prompts(m.eoc)
    batch, visual = batch_of(m, sequences)
    together, scores = generate(m, batch, visual, max_tokens=7)
    for i, sequence in enumerate(sequences):
        one, own = batch_of(m, [sequence])
        (tokens,), (alone,) = generate(m, one, own, max_tokens=7)
        assert together[i] == tokens
        np.testing.assert_allclose(scores[i], alone, atol=1e-9)


def test_a_prompt_in_two_parts_is_continued_like_a_whole_one(floor):
    """The cache holds the first part; media are numbered over both."""
    m = sharp_model(1)
    sequence = prompts(m.eoc)[2]
    batch, visual = batch_of(m, [sequence])
    expected, expected_scores = generate(m, batch, visual, max_tokens=6)
    cache = {}
    read_on(m, batch.tokens[:, :5], batch.phi[:, :5], visual, batch.visible_from[:, :5], cache)
    batch.tokens, batch.phi, batch.visible_from = batch.tokens[:, 5:], batch.phi[:, 5:], batch.visible_from[:, 5:]
    tokens, scores = generate(m, batch, visual, max_tokens=6, cache=cache)
    assert tokens == expected
    np.testing.assert_allclose(scores[0], expected_scores[0], atol=1e-9)


def test_one_token_more_for_each_row(floor):
    """`read_token` gives the same as whole rows. Each token sees the medium of the last token of its row."""
    m, cache = sharp_model(), {}
    sequences, words = prompts(m.eoc), [[7, 8, 9, m.eoc], [5, m.eoc, 5, 6]]
    batch, visual = batch_of(m, sequences)
    read_on(m, batch.tokens, batch.phi, visual, batch.visible_from, cache)
    for n, chosen in enumerate(words):
        actual = read_token(m, np.array(chosen), batch, visual, cache)
        for b, sequence in enumerate(sequences):
            tail = [column[b] for column in words[: n + 1]]
            np.testing.assert_allclose(actual[b], log_probs_after(m, sequence, tail), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_all_floors_write_the_same(seed, monkeypatch):
    """The fast floor with Numba and without it, and the reference."""
    m, results = sharp_model(seed), []
    batch, visual = batch_of(m, prompts(m.eoc))
    for floor, engine in (("fast", kernels.ENGINE), ("fast", "numpy"), ("reference", kernels.ENGINE)):
        with monkeypatch.context() as patch, ops.use(floor):
            patch.setattr(kernels, "ENGINE", engine)
            results.append(generate(m, batch, visual, max_tokens=8))
    for tokens, scores in results[1:]:
        assert tokens == results[0][0]
        np.testing.assert_allclose(np.concatenate(scores), np.concatenate(results[0][1]), atol=1e-9)


def test_the_picture_matters(floor):
    """Same words, another picture: other probabilities."""
    m, sequence = sharp_model(), sequence_of([BOS, IMAGE, 6, 5], [0])
    results = []
    for medium in (0, 1):
        batch, _ = batch_of(m, [sequence])
        results.append(generate(m, batch, m.visual[[medium]], 3)[1][0])
    assert results[0] != results[1]


# ---------------------------------------------------------------- when to stop, which tokens are never written


def test_stops_at_eoc_row_by_row(monkeypatch):
    """<EOC> closes a row. It is not part of the result, and nothing is written after it."""
    steps = [logits_for(6, 12, 7), logits_for(5, 8, 7), logits_for(12, 8, 7), logits_for(9, 8, 7)]
    tokens, scores = generate(scripted_model(monkeypatch, steps), plain_batch(3), EMPTY, max_tokens=4)
    assert tokens == [[6, 5], [], [7, 7, 7, 7]]
    assert list(map(len, scores)) == [2, 0, 4]
    certain = 9 - np.log(np.exp(9) + 8)  # 13 ids, four of them forbidden
    np.testing.assert_allclose(scores[0], certain, rtol=1e-12)


def test_no_step_is_taken_once_all_rows_are_closed(monkeypatch):
    """The script has one step only; a second would raise StopIteration."""
    m = scripted_model(monkeypatch, [logits_for(12, 12)])
    assert generate(m, plain_batch(2), EMPTY, max_tokens=9)[0] == [[], []]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_max_tokens(monkeypatch, n):
    m = scripted_model(monkeypatch, [logits_for(6)] * max(n, 1))
    assert generate(m, plain_batch(1), EMPTY, max_tokens=n)[0] == [[6] * n]


def test_another_choice_than_the_likeliest(monkeypatch):
    """`choose` gets log-probabilities (B, V + 1) and gives a token for each row."""
    shapes = []

    def second(log_probs):
        shapes.append(log_probs.shape)
        return np.argsort(-log_probs, axis=-1)[:, 1]

    logits = np.arange(13.0)[None]  # <EOC>, 12, is the likeliest
    tokens, scores = generate(scripted_model(monkeypatch, [logits] * 3), plain_batch(1), EMPTY, 3, choose=second)
    assert tokens == [[11, 11, 11]] and shapes == [(1, 13)] * 3
    np.testing.assert_allclose(scores, [[log_softmax_allowed(logits[0])[11]] * 3])
    assert likeliest(logits) == [12]


def test_never_writes_reserved_tokens(floor):
    """Also if they have the largest logits: their rows of the table are enlarged."""
    assert set(NEVER) == {PAD, BOS, UNK, IMAGE}
    m = model_that_prefers_reserved_tokens()
    batch, visual = batch_of(m, prompts(m.eoc))
    logits = flamingo(m.params, m.frozen, batch.tokens, batch.phi, visual, m.config, batch.visible_from)[:, -1]
    assert any(token in NEVER for token in logits.argmax(-1))
    for row in generate(m, batch, visual, 8)[0]:
        assert not set(row) & set(NEVER)


def model_that_prefers_reserved_tokens():
    m = sharp_model()
    table = m.frozen["language"]["embedding"].copy()
    table[list(NEVER)] *= 30
    m.frozen["language"] = m.frozen["language"] | {"embedding": table}
    return m


def test_log_softmax_is_over_the_allowed_tokens(rng):
    logits = rng.standard_normal((2, 9)).astype(np.float32)
    actual = log_softmax_allowed(logits)
    assert actual.dtype == np.float64 and np.all(np.isneginf(actual[:, list(NEVER)]))
    np.testing.assert_allclose(np.exp(actual).sum(axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(actual[0, 7] - actual[0, 5], logits[0, 7] - logits[0, 5], rtol=1e-5)
    np.testing.assert_allclose(log_softmax_allowed(logits + 1e4), actual, atol=1e-2)  # no overflow


def test_too_long_a_prompt_is_a_user_error_with_the_numbers(floor):
    m = sharp_model()
    batch, visual = batch_of(m, [sequence_of([BOS] + [5] * 59, [])])
    with pytest.raises(UserError, match="has 60 tokens and up to 5 would follow, but the context is 64"):
        generate(m, batch, visual, max_tokens=5)
    check_length(60, 4, m.config)
    assert len(generate(m, batch, visual, max_tokens=4)[0][0]) <= 4  # exactly full


def test_the_tokens_in_the_cache_count_too(floor):
    m, cache = sharp_model(), {}
    batch, visual = batch_of(m, [sequence_of([BOS] + [5] * 29, [])])
    read_on(m, batch.tokens, batch.phi, visual, batch.visible_from, cache)
    with pytest.raises(UserError, match="has 60 tokens and up to 5 would follow, but the context is 64"):
        generate(m, batch, visual, max_tokens=5, cache=cache)


def test_a_negative_number_of_tokens_is_a_user_error(monkeypatch):
    with pytest.raises(UserError, match="max_tokens is -1"):
        generate(scripted_model(monkeypatch, []), plain_batch(1), EMPTY, max_tokens=-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_give_no_answer(value):
    """Greedy, sampled, by beams and as a score: never a silent empty text."""
    m = sharp_model(0)
    m.params["eoc"][:] = value
    m.frozen["language"]["embedding"][:] = value
    batch, visual = batch_of(m, [prompts(m.eoc)[0]])
    ways = (
        lambda: generate(m, batch, visual, 4),
        lambda: generate(m, batch, visual, 4, sampler(Sampling(1.0), np.random.default_rng(0))),
        lambda: beam_search(m, batch, visual, 3, 4),
        lambda: score_continuations(m, batch, visual),
    )
    for way in ways:
        with np.errstate(all="ignore"), pytest.raises(UserError, match="NaN or infinite logits"):
            way()


def test_a_logit_of_minus_infinity_beside_finite_ones_is_only_impossible():
    log_probs = log_softmax_allowed(np.array([[0.0] * 7 + [-np.inf, 1.0]]))
    assert log_probs[0, 7] == -np.inf and np.isfinite(log_probs[0, 8])
