"""Generation: caches against none, batches against one by one, beams against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest
from model_cases import tiny, tiny_config

from tinyflamingo.errors import UserError
from tinyflamingo.model import generate as generate_module
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.generate import (
    NEVER,
    Sampling,
    beam_search,
    check_beams,
    check_length,
    generate,
    init_caches,
    log_softmax,
    restrict,
    score_continuations,
)
from tinyflamingo.model.interleave import Sequence, make_batch
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD, UNK

LETTERS = [3, 5, 6, 7, 8, 9, 10, 11]  # what a prompt may hold


def _model(seed=0, dtype=np.float64, vocab=12, sharp=3.0):
    """Open gates, and logits sharp enough that the argmax is never in doubt."""
    m = tiny(seed, dtype, tiny_config(vocab))
    m.frozen["language"]["final_gain"] = m.frozen["language"]["final_gain"] * dtype(sharp)
    return m


def _sequence(tokens, media):
    return Sequence(list(tokens), [0.0] * len(tokens), list(media))


def _prompts(eoc):
    """Three prompts of different lengths; media are numbers of rows in `visual`."""
    return [
        _sequence([BOS, IMAGE, 6, 5], [0]),
        _sequence([BOS, 5], []),
        _sequence([BOS, 6, eoc, IMAGE, 5, 3, eoc, IMAGE], [1, 2]),
    ]


def _batch(m, sequences, **kwargs):
    batch = make_batch(sequences, **({"left": True} | kwargs))
    return batch, m.visual[np.array(batch.media, int)]


def _whole_logits(m, tokens, phi_row, visual):
    """The last logits of one unpadded row, without any cache."""
    tokens, phi_row = np.array([tokens]), np.array([phi_row])
    return flamingo(m.params, m.frozen, tokens, phi_row, visual, m.config)[0, -1]


def _greedy(m, sequence, max_tokens):
    """Argmax after argmax, the whole row anew each time."""
    batch, visual = _batch(m, [sequence])
    tokens, numbers, out, scores = list(batch.tokens[0]), list(batch.phi[0]), [], []
    for _ in range(max_tokens):
        log_probs = log_softmax(_whole_logits(m, tokens, numbers, visual))
        best = int(log_probs.argmax())
        if best == m.eoc:
            break
        out, scores = out + [best], scores + [log_probs[best]]
        tokens, numbers = tokens + [best], numbers + [numbers[-1]]
    return out, scores


def _scripted(monkeypatch, steps):
    """A model that says what it is told: one (B, V + 1) array of logits a step."""
    script = iter(steps)

    def fake(params, frozen, tokens, phi, visual, config, start=None, cache=None, first=None):
        return np.repeat(np.asarray(next(script), float)[:, None], tokens.shape[1], axis=1)

    monkeypatch.setattr(generate_module, "flamingo", fake)
    monkeypatch.setattr(generate_module, "init_caches", lambda *a: {"length": 0})
    monkeypatch.setattr(generate_module, "stepper", lambda *a: lambda tokens: np.asarray(next(script), float))


def _says(*tokens, size=13):
    return np.where(np.arange(size) == np.array(tokens)[:, None], 9.0, 0.0)


EMPTY = np.zeros((0, 3, 8))


def _plain_batch(rows):
    return make_batch([_sequence([BOS], [])] * rows)


# ---------------------------------------------------------------- greedy and caches


@pytest.mark.parametrize("seed", range(4))
def test_cached_greedy_equals_uncached_greedy(floor, seed):
    m = _model(seed)
    for sequence in _prompts(m.eoc):
        batch, visual = _batch(m, [sequence])
        (tokens,), (scores,) = generate(m.params, m.frozen, batch, visual, m.config, max_tokens=8)
        expected, expected_scores = _greedy(m, sequence, 8)
        assert tokens == expected
        np.testing.assert_allclose(scores, expected_scores, atol=1e-9)


def test_these_models_write_something():
    """Else the test above would compare empty lists."""
    written = [_greedy(_model(seed), s, 8)[0] for seed in range(4) for s in _prompts(12)]
    assert sum(map(len, written)) > 20 and len(set(map(tuple, written))) > 4


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_cached_logits_equal_uncached(floor, dtype, atol):
    m = tiny(dtype=dtype)
    whole = flamingo(m.params, m.frozen, m.tokens, m.phi, m.visual, m.config)
    cache, parts = init_caches(m.params, m.config, 2, 8, m.visual), []
    for columns in (slice(0, 5), slice(5, 6), slice(6, 8)):
        parts.append(
            flamingo(m.params, m.frozen, m.tokens[:, columns], m.phi[:, columns], m.visual, m.config, None, cache)
        )
    assert cache["length"] == 8 and parts[0].dtype == dtype
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=atol)


@pytest.mark.parametrize("seed", range(3))
def test_a_left_padded_batch_equals_one_by_one(floor, seed):
    m = _model(seed)
    prompts = _prompts(m.eoc)
    batch, visual = _batch(m, prompts)
    together, scores = generate(m.params, m.frozen, batch, visual, m.config, max_tokens=7)
    for i, sequence in enumerate(prompts):
        one, own = _batch(m, [sequence])
        (tokens,), (alone,) = generate(m.params, m.frozen, one, own, m.config, max_tokens=7)
        assert together[i] == tokens
        np.testing.assert_allclose(scores[i], alone, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_all_previous_generates_as_it_reads(floor, seed):
    """Greedy and a beam of one, with caches, in a batch and alone: what the whole row anew gives each time."""
    m = _model(seed)
    config = dataclasses.replace(m.config, xattn=dataclasses.replace(m.config.xattn, attend="all_previous"))
    prompts = _prompts(m.eoc)
    batch, visual = _batch(m, prompts)
    together, scores = generate(m.params, m.frozen, batch, visual, config, max_tokens=6)
    for i, sequence in enumerate(prompts):
        one, own = _batch(m, [sequence])
        (beam,), _ = beam_search(m.params, m.frozen, one, own, config, width=1, max_tokens=6)
        assert beam == together[i]
        row, numbers = list(one.tokens[0]), list(one.phi[0])
        for token, score in zip(together[i], scores[i], strict=True):
            tokens, phi_row = np.array([row]), np.array([numbers])
            first = np.full_like(phi_row, min(len(own), 1))
            logits = flamingo(m.params, m.frozen, tokens, phi_row, own, config, first=first)[0, -1]
            assert log_softmax(logits)[token] == pytest.approx(score, abs=1e-9)
            row, numbers = row + [token], numbers + [numbers[-1]]
    last = generate(m.params, m.frozen, batch, visual, m.config, max_tokens=6)[1]
    assert last[:2] == scores[:2] and last[2] != scores[2]  # the third prompt alone has two pictures


def test_the_picture_matters(floor):
    """Same words, another picture: other probabilities."""
    m, sequence = _model(), _sequence([BOS, IMAGE, 6, 5], [0])
    found = []
    for medium in (0, 1):
        batch, _ = _batch(m, [sequence])
        found.append(generate(m.params, m.frozen, batch, m.visual[[medium]], m.config, 3)[1][0])
    assert found[0] != found[1]


# ---------------------------------------------------------------- when to stop, what never to say


def test_stops_at_eoc_row_by_row(monkeypatch):
    """<EOC> closes a row, is not part of it, and what comes after it is not written."""
    m = _model()
    _scripted(monkeypatch, [_says(6, 12, 7), _says(5, 8, 7), _says(12, 8, 7), _says(9, 8, 7)])
    tokens, scores = generate(None, None, _plain_batch(3), EMPTY, m.config, max_tokens=4)
    assert tokens == [[6, 5], [], [7, 7, 7, 7]]
    assert list(map(len, scores)) == [2, 0, 4]
    certain = 9 - np.log(np.exp(9) + 8)  # 13 ids, four of them forbidden
    np.testing.assert_allclose(scores[0], certain, rtol=1e-12)


def test_no_step_is_taken_once_all_rows_are_closed(monkeypatch):
    """The script has one step only; a second would raise StopIteration."""
    _scripted(monkeypatch, [_says(12, 12)])
    assert generate(None, None, _plain_batch(2), EMPTY, _model().config, max_tokens=9)[0] == [[], []]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_max_tokens(monkeypatch, n):
    _scripted(monkeypatch, [_says(6)] * max(n, 1))
    assert generate(None, None, _plain_batch(1), EMPTY, _model().config, max_tokens=n)[0] == [[6] * n]


def test_never_says_reserved_tokens(floor):
    """Even where the model would like to: their rows of the table are made loud."""
    assert set(NEVER) == {PAD, BOS, UNK, IMAGE}
    m = _model()
    table = m.frozen["language"]["embedding"].copy()
    table[list(NEVER)] *= 30
    m.frozen["language"] = m.frozen["language"] | {"embedding": table}
    batch, visual = _batch(m, _prompts(m.eoc))
    wish = flamingo(m.params, m.frozen, batch.tokens, batch.phi, visual, m.config, batch.start)[:, -1].argmax(-1)
    assert any(t in NEVER for t in wish)
    greedy, _ = generate(m.params, m.frozen, batch, visual, m.config, 8)
    sampled, _ = generate(
        m.params, m.frozen, batch, visual, m.config, 8, Sampling(temperature=50.0), np.random.default_rng(0)
    )
    one, visual = _batch(m, [_prompts(m.eoc)[0]])
    (beam,), _ = beam_search(m.params, m.frozen, one, visual, m.config, 3, 6)
    for row in [*greedy, *sampled, beam]:
        assert not set(row) & set(NEVER)


def test_log_softmax_is_over_what_may_be_said(rng):
    logits = rng.standard_normal((2, 9)).astype(np.float32)
    found = log_softmax(logits)
    assert found.dtype == np.float64 and np.all(np.isneginf(found[:, list(NEVER)]))
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found[0, 7] - found[0, 5], logits[0, 7] - logits[0, 5], rtol=1e-5)
    np.testing.assert_allclose(log_softmax(logits + 1e4), found, atol=1e-2)  # no overflow


def test_too_long_a_prompt_is_a_user_error_with_the_numbers(floor):
    m = _model()
    batch, visual = _batch(m, [_sequence([BOS] + [5] * 59, [])])
    for run in (generate, beam_search):
        with pytest.raises(UserError, match="has 60 tokens and up to 5 would follow, but the context is 64"):
            run(m.params, m.frozen, batch, visual, m.config, max_tokens=5)
    check_length(60, 4, m.config)
    assert len(generate(m.params, m.frozen, batch, visual, m.config, max_tokens=4)[0][0]) <= 4  # exactly full


@pytest.mark.parametrize("run", [generate, beam_search])
def test_less_than_no_token_is_a_user_error(run):
    with pytest.raises(UserError, match="max_tokens is -1"):
        run(None, None, _plain_batch(1), EMPTY, _model().config, max_tokens=-1)


# ---------------------------------------------------------------- sampling


P = np.array([[0.1, 0.4, 0.0, 0.3, 0.2]])


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(), [0.1, 0.4, 0.0, 0.3, 0.2]),
        (Sampling(top_k=1), [0, 1, 0, 0, 0]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_k=99), [0.1, 0.4, 0.0, 0.3, 0.2]),
        (Sampling(top_p=0.3), [0, 1, 0, 0, 0]),  # the first alone reaches it
        (Sampling(top_p=0.5), [0, 4 / 7, 0, 3 / 7, 0]),  # the one that crosses the line stays
        (Sampling(top_p=0.75), [0, 4 / 9, 0, 3 / 9, 2 / 9]),
        (Sampling(top_p=0.75, top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_p=0.3, top_k=3), [0, 1, 0, 0, 0]),
        (Sampling(top_p=1e-9), [0, 1, 0, 0, 0]),  # never nothing
    ],
)
def test_restrict_known_answers(sampling, expected):
    np.testing.assert_allclose(restrict(P, sampling), [expected], atol=1e-12)


def test_restrict_takes_each_row_for_itself():
    both = restrict(np.concatenate([P, P[:, ::-1]]), Sampling(top_k=2))
    np.testing.assert_allclose(both[1], both[0][::-1])


@pytest.mark.parametrize(
    "sampling", [Sampling(1.3, top_k=1), Sampling(0.7, top_p=1e-6), Sampling(1e-6), Sampling(1e-308)]
)
def test_one_choice_left_is_greedy(floor, sampling):
    m = _model(1)
    batch, visual = _batch(m, _prompts(m.eoc))
    greedy = generate(m.params, m.frozen, batch, visual, m.config, 6)
    sampled = generate(m.params, m.frozen, batch, visual, m.config, 6, sampling, np.random.default_rng(5))
    assert sampled == greedy  # the scores too: they are the model's, before temperature


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-6, 1e308])
def test_any_temperature_above_zero_samples(monkeypatch, temperature):
    """Divided first, even the likeliest's log-probability would be -inf at the smallest."""
    _scripted(monkeypatch, [np.arange(13.0)[None]])
    rng = np.random.default_rng(0)
    tokens, _ = generate(None, None, _plain_batch(1), EMPTY, _model().config, 1, Sampling(temperature), rng)
    assert temperature > 1 or tokens == [[]]  # the likeliest is <EOC>


def test_sampling_without_a_generator_is_a_user_error():
    with pytest.raises(UserError, match="give rng="):
        generate(None, None, _plain_batch(1), EMPTY, _model().config, 1, Sampling(1.0))


def test_sampling_is_reproducible_by_its_generator(floor):
    m = _model()
    batch, visual = _batch(m, _prompts(m.eoc))
    hot = Sampling(temperature=2.0)
    runs = [generate(m.params, m.frozen, batch, visual, m.config, 8, hot, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_matches_the_probabilities(monkeypatch, temperature):
    """4000 rows draw one token each; every share within five standard errors."""
    logits = np.zeros(13)
    logits[[6, 7, 8]] = [2.0, 1.0, -1.0]
    _scripted(monkeypatch, [np.repeat(logits[None], 4000, axis=0)])
    tokens, scores = generate(
        None, None, _plain_batch(4000), EMPTY, _model().config, 1, Sampling(temperature), np.random.default_rng(0)
    )
    expected = np.where(np.isin(np.arange(13), NEVER), 0, np.exp(logits / temperature))
    expected /= expected.sum()
    drawn = [row[0] if row else 12 for row in tokens]
    shares = np.bincount(drawn, minlength=13) / 4000
    error = np.sqrt(expected * (1 - expected) / 4000)
    assert np.all(np.abs(shares - expected) <= 5 * error)
    model = log_softmax(logits)
    np.testing.assert_allclose([s[0] for s in scores if s], [model[t] for t in drawn if t != 12], rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": float("nan")},
    ],
)
def test_bad_sampling_is_a_user_error(wrong):
    with pytest.raises(UserError, match="sampling: temperature .* top_k .* top_p"):
        Sampling(**wrong)


# ---------------------------------------------------------------- beams


def _brute_force(m, sequence, steps):
    """The best of all continuations: closed by <EOC> within `steps` tokens, or `steps` long and open."""
    batch, visual = _batch(m, [sequence])
    prompt, numbers = list(batch.tokens[0]), list(batch.phi[0])
    words = [t for t in range(m.eoc) if t not in NEVER]
    best = (-np.inf, None)
    table = {}
    for n in range(steps):
        for tail in itertools.product(words, repeat=n):
            row, phi_row = prompt + list(tail), numbers + [numbers[-1]] * n
            table[tail] = log_softmax(_whole_logits(m, row, phi_row, visual))
    for n in range(steps):
        for tail in itertools.product(words, repeat=n):
            so_far = sum(table[tail[:i]][tail[i]] for i in range(n))
            best = max(best, (so_far + table[tail][m.eoc], list(tail)))
            if n == steps - 1:
                best = max(best, *((so_far + table[tail][w], [*tail, w]) for w in words))
    return best


def _greedy_score(m, sequence, max_tokens):
    """Sum of log-probabilities, with that of the closing <EOC> if it came."""
    tokens, scores = _greedy(m, sequence, max_tokens)
    if len(tokens) == max_tokens:
        return sum(scores)
    batch, visual = _batch(m, [sequence])
    row = list(batch.tokens[0]) + tokens
    numbers = list(batch.phi[0]) + [batch.phi[0, -1]] * len(tokens)
    return sum(scores) + log_softmax(_whole_logits(m, row, numbers, visual))[m.eoc]


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_is_brute_force(floor, seed):
    """4 words and <EOC>, 3 steps: 64 open rows at most, so a beam of 64 forgets nothing."""
    m = _model(seed, vocab=7, sharp=1.0)
    sequence = _sequence([BOS, IMAGE, 6, 5], [seed % 3])
    batch, visual = _batch(m, [sequence])
    (tokens,), (score,) = beam_search(m.params, m.frozen, batch, visual, m.config, width=64, max_tokens=3)
    best_score, best = _brute_force(m, sequence, 3)
    assert tokens == best
    assert score == pytest.approx(best_score, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_beam_three_finds_the_best_here(floor, seed):
    """No theorem, but on these models beam 3 loses nothing to brute force, and never to greedy."""
    m = _model(seed, vocab=7, sharp=2.0)
    sequence = _sequence([BOS, IMAGE, 6, 5], [seed % 3])
    batch, visual = _batch(m, [sequence])
    (tokens,), (score,) = beam_search(m.params, m.frozen, batch, visual, m.config, width=3, max_tokens=3)
    best_score, best = _brute_force(m, sequence, 3)
    assert score >= _greedy_score(m, sequence, 3) - 1e-9
    assert tokens == best and score == pytest.approx(best_score, abs=1e-9)


def test_beam_three_beats_greedy_somewhere():
    gains = []
    for seed in range(12):
        m = _model(seed, vocab=7, sharp=1.0)
        sequence = _sequence([BOS, 6, 5], [])
        batch, visual = _batch(m, [sequence])
        score = beam_search(m.params, m.frozen, batch, visual, m.config, width=3, max_tokens=3)[1][0]
        gains.append(score - _greedy_score(m, sequence, 3))
    assert min(gains) >= -1e-9 and max(gains) > 0.01


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sharp", [0.5, 3.0])
def test_a_beam_of_one_is_greedy(floor, seed, sharp):
    m = _model(seed, sharp=sharp)
    for sequence in _prompts(m.eoc):
        batch, visual = _batch(m, [sequence])
        (tokens,), (score,) = beam_search(m.params, m.frozen, batch, visual, m.config, width=1, max_tokens=6)
        assert tokens == _greedy(m, sequence, 6)[0]
        assert score == pytest.approx(_greedy_score(m, sequence, 6), abs=1e-9)


def test_beams_that_cannot_search_are_a_user_error():
    for width in (0, -3, 65):
        with pytest.raises(UserError, match=f"beams is {width} but must be from 1 to 64"):
            beam_search(None, None, _plain_batch(1), EMPTY, _model().config, width=width)
    with pytest.raises(UserError, match="choose one"):
        check_beams(3, Sampling(1.0))
    check_beams(1, Sampling(1.0))
    check_beams(3, Sampling())


def test_an_unlikely_early_end_does_not_win(monkeypatch):
    """Greedy's way stays open and likely; a beam must not fall back to "" because that one is closed."""
    _scripted(monkeypatch, [_says(6, 6)] * 4)
    (tokens,), _ = beam_search(None, None, _plain_batch(1), EMPTY, _model().config, width=2, max_tokens=3)
    assert tokens == [6, 6, 6]


def test_beams_keep_their_own_caches(floor):
    """Long enough that parents change places; the score is what scoring the row anew gives."""
    for seed in range(4):
        m = _model(seed, sharp=0.5)
        sequence = _prompts(m.eoc)[2]
        batch, visual = _batch(m, [sequence])
        (tokens,), (score,) = beam_search(m.params, m.frozen, batch, visual, m.config, width=4, max_tokens=10)
        row, numbers, total = list(batch.tokens[0]), list(batch.phi[0]), 0.0
        for t in tokens if len(tokens) == 10 else [*tokens, m.eoc]:
            total += log_softmax(_whole_logits(m, row, numbers, visual))[t]
            row, numbers = row + [t], numbers + [numbers[-1]]
        assert score == pytest.approx(total, abs=1e-9)


# ---------------------------------------------------------------- ranking closed answers


def test_score_continuations_is_the_sum_of_log_probabilities(floor):
    m = _model()
    rows = [([BOS, IMAGE, 6], [5, 7], [0]), ([BOS, 5], [6, 6, 8, m.eoc], []), ([BOS, IMAGE, 6], [9], [1])]
    sequences = [
        Sequence(prompt + tail, [0.0] * len(prompt) + [1.0] * len(tail), media) for prompt, tail, media in rows
    ]
    batch, visual = _batch(m, sequences, left=False)
    scores = score_continuations(m.params, m.frozen, batch, visual, m.config)
    for (prompt, tail, media), score in zip(rows, scores, strict=True):
        expected, row = 0.0, list(prompt)
        for t in tail:
            numbers = np.cumsum(np.array(row) == IMAGE)
            expected += log_softmax(_whole_logits(m, row, numbers, m.visual[np.array(media, int)]))[t]
            row.append(t)
        assert score == pytest.approx(expected, abs=1e-9)


def test_score_of_nothing_is_zero(floor):
    m = _model()
    batch, visual = _batch(m, _prompts(m.eoc), left=False)
    np.testing.assert_array_equal(score_continuations(m.params, m.frozen, batch, visual, m.config), 0.0)
