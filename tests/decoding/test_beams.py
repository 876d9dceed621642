"""Beam search compared with brute force and with greedy; the scores of given continuations."""

import itertools

import numpy as np
import pytest
from completion_cases import (
    EMPTY,
    batch_of,
    greedy,
    greedy_score,
    log_probs_after,
    logits_for,
    plain_batch,
    prompts,
    scripted_model,
    sequence_of,
    sharp_model,
)

from tinyflamingo import ops
from tinyflamingo.decoding.beams import beam_search, check_beams, score_continuations
from tinyflamingo.errors import UserError
from tinyflamingo.model.generate import NEVER, check_length, read_on
from tinyflamingo.model.interleave import Sequence
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops import kernels


def _brute_force(m, sequence, steps):
    """The best of all continuations: closed by <EOC> within `steps` tokens, or `steps` long and open."""
    words = [t for t in range(m.eoc) if t not in NEVER]
    best = (-np.inf, None)
    tails = [tail for n in range(steps) for tail in itertools.product(words, repeat=n)]
    table = {tail: log_probs_after(m, sequence, tail) for tail in tails}
    for tail in tails:
        so_far = sum(table[tail[:i]][tail[i]] for i in range(len(tail)))
        best = max(best, (so_far + table[tail][m.eoc], list(tail)))
        if len(tail) == steps - 1:
            best = max(best, *((so_far + table[tail][w], [*tail, w]) for w in words))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_is_brute_force(floor, seed):
    """4 words and <EOC>, 3 steps: at most 64 open rows, so 64 beams keep all of them."""
    m = sharp_model(seed, vocab=7, sharp=1.0)
    sequence = sequence_of([BOS, IMAGE, 6, 5], [seed % 3])
    (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=64, max_tokens=3)
    best_score, best = _brute_force(m, sequence, 3)
    assert tokens == best
    assert score == pytest.approx(best_score, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_beam_three_finds_the_best_here(floor, seed):
    """Not always true, but on these models 3 beams find the best, and are never worse than greedy."""
    m = sharp_model(seed, vocab=7, sharp=2.0)
    sequence = sequence_of([BOS, IMAGE, 6, 5], [seed % 3])
    (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=3, max_tokens=3)
    best_score, best = _brute_force(m, sequence, 3)
    assert score >= greedy_score(m, sequence, 3) - 1e-9
    assert tokens == best and score == pytest.approx(best_score, abs=1e-9)


def test_beam_three_beats_greedy_somewhere():
    gains = []
    for seed in range(12):
        m = sharp_model(seed, vocab=7, sharp=1.0)
        sequence = sequence_of([BOS, 6, 5], [])
        score = beam_search(m, *batch_of(m, [sequence]), width=3, max_tokens=3)[1][0]
        gains.append(score - greedy_score(m, sequence, 3))
    assert min(gains) >= -1e-9 and max(gains) > 0.01


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sharp", [0.5, 3.0])
def test_a_beam_of_one_is_greedy(floor, seed, sharp):
    m = sharp_model(seed, sharp=sharp)
    for sequence in prompts(m.eoc):
        (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=1, max_tokens=6)
        assert tokens == greedy(m, sequence, 6)[0]
        assert score == pytest.approx(greedy_score(m, sequence, 6), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_left_padded_batch_equals_one_by_one(floor, seed):
    m = sharp_model(seed, sharp=0.5)
    sequences = prompts(m.eoc)
    together, scores = beam_search(m, *batch_of(m, sequences), width=3, max_tokens=6)
    for i, sequence in enumerate(sequences):
        (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=3, max_tokens=6)
        assert together[i] == tokens and scores[i] == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_all_floors_find_the_same(seed, monkeypatch):
    """The fast floor with Numba and without it, and the reference."""
    m, results = sharp_model(seed), []
    for floor, engine in (("fast", kernels.ENGINE), ("fast", "numpy"), ("reference", kernels.ENGINE)):
        with monkeypatch.context() as patch, ops.use(floor):
            patch.setattr(kernels, "ENGINE", engine)
            results.append(beam_search(m, *batch_of(m, prompts(m.eoc)[:1]), width=3, max_tokens=5))
    for tokens, scores in results[1:]:
        assert tokens == results[0][0]
        np.testing.assert_allclose(scores, results[0][1], atol=1e-9)


def test_a_wrong_width_is_a_user_error(monkeypatch):
    m = scripted_model(monkeypatch, [])
    for width in (0, -3, 65):
        with pytest.raises(UserError, match=f"beams is {width} but must be from 1 to 64"):
            beam_search(m, plain_batch(1), EMPTY, width=width)
        with pytest.raises(UserError, match=f"beams is {width} but must be from 1 to 64"):
            check_beams(width)
    for width in (1, 3, 64):
        check_beams(width)


def test_too_long_a_prompt_is_a_user_error_with_the_numbers(floor):
    m = sharp_model()
    batch, visual = batch_of(m, [sequence_of([BOS] + [5] * 59, [])])
    with pytest.raises(UserError, match="has 60 tokens and up to 5 would follow, but the context is 64"):
        beam_search(m, batch, visual, max_tokens=5)
    check_length(60, 4, m.config)
    assert len(beam_search(m, batch, visual, max_tokens=4)[0][0]) <= 4  # exactly full


def test_the_tokens_in_the_cache_count_too(floor):
    m, cache = sharp_model(), {}
    batch, visual = batch_of(m, [sequence_of([BOS] + [5] * 29, [])])
    read_on(m, batch.tokens, batch.phi, visual, batch.visible_from, cache)
    with pytest.raises(UserError, match="has 60 tokens and up to 5 would follow, but the context is 64"):
        beam_search(m, batch, visual, max_tokens=5, cache=cache)


def test_a_negative_number_of_tokens_is_a_user_error(monkeypatch):
    with pytest.raises(UserError, match="max_tokens is -1"):
        beam_search(scripted_model(monkeypatch, []), plain_batch(1), EMPTY, max_tokens=-1)


def test_an_unlikely_early_end_does_not_win(monkeypatch):
    """The greedy continuation stays open and likely. The search must not return "" because that one is finished."""
    m = scripted_model(monkeypatch, [logits_for(6)] + [logits_for(6, 6)] * 3)
    (tokens,), _ = beam_search(m, plain_batch(1), EMPTY, width=2, max_tokens=3)
    assert tokens == [6, 6, 6]


def test_never_writes_reserved_tokens(floor):
    """Also if they have the largest logits: their rows of the table are enlarged."""
    m = sharp_model()
    table = m.frozen["language"]["embedding"].copy()
    table[list(NEVER)] *= 30
    m.frozen["language"] = m.frozen["language"] | {"embedding": table}
    (beam,), _ = beam_search(m, *batch_of(m, prompts(m.eoc)[:1]), width=3, max_tokens=6)
    assert not set(beam) & set(NEVER)


def test_beams_keep_their_own_caches(floor):
    """Long enough that beams are reordered. The score equals that of the whole row without a cache."""
    for seed in range(4):
        m = sharp_model(seed, sharp=0.5)
        sequence = prompts(m.eoc)[2]
        (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=4, max_tokens=10)
        written = tokens if len(tokens) == 10 else [*tokens, m.eoc]
        total = sum(log_probs_after(m, sequence, written[:i])[t] for i, t in enumerate(written))
        assert score == pytest.approx(total, abs=1e-9)


def test_beams_continue_a_cache(floor):
    """A prompt in two parts gives the same as a whole prompt."""
    m, cache = sharp_model(1, sharp=0.5), {}
    batch, visual = batch_of(m, [prompts(m.eoc)[2]])
    expected = beam_search(m, batch, visual, width=3, max_tokens=6)
    read_on(m, batch.tokens[:, :5], batch.phi[:, :5], visual, batch.visible_from[:, :5], cache)
    batch.tokens, batch.phi, batch.visible_from = batch.tokens[:, 5:], batch.phi[:, 5:], batch.visible_from[:, 5:]
    tokens, scores = beam_search(m, batch, visual, width=3, max_tokens=6, cache=cache)
    assert tokens == expected[0] and scores == pytest.approx(expected[1], abs=1e-9)


# ---------------------------------------------------------------- ranking closed answers


def test_score_continuations_is_the_sum_of_log_probabilities(floor):
    m = sharp_model()
    rows = [([BOS, IMAGE, 6], [5, 7], [0]), ([BOS, 5], [6, 6, 8, m.eoc], []), ([BOS, IMAGE, 6], [9], [1])]
    sequences = [
        Sequence(prompt + tail, [0.0] * len(prompt) + [1.0] * len(tail), media) for prompt, tail, media in rows
    ]
    scores = score_continuations(m, *batch_of(m, sequences, left=False))
    for (prompt, tail, media), score in zip(rows, scores, strict=True):
        own = sequence_of(prompt, media)
        expected = sum(log_probs_after(m, own, tail[:i])[t] for i, t in enumerate(tail))
        assert score == pytest.approx(expected, abs=1e-9)


def test_the_score_of_no_tokens_is_zero(floor):
    m = sharp_model()
    np.testing.assert_array_equal(score_continuations(m, *batch_of(m, prompts(m.eoc), left=False)), 0.0)


def test_scores_continue_a_cache(floor):
    m, cache = sharp_model(), {}
    prompt, tail = prompts(m.eoc)[2], [5, 7, m.eoc]
    whole = Sequence(prompt.tokens + tail, [0.0] * 8 + [1.0] * 3, prompt.media)
    batch, visual = batch_of(m, [whole], left=False)
    expected = score_continuations(m, batch, visual)
    read_on(m, batch.tokens[:, :6], batch.phi[:, :6], visual, batch.visible_from[:, :6], cache)
    for name in ("tokens", "weights", "phi", "visible_from"):
        setattr(batch, name, getattr(batch, name)[:, 6:])
    np.testing.assert_allclose(score_continuations(m, batch, visual, cache), expected, atol=1e-9)
