"""Sampling: known answers for temperature, top-k and top-p; one choice left is greedy; fractions of many draws."""

import numpy as np
import pytest
from completion_cases import EMPTY, batch_of, plain_batch, prompts, scripted_model, sharp_model

from tinyflamingo.decoding.sampling import GREEDY, Sampling, draw, restrict, sampler
from tinyflamingo.errors import UserError
from tinyflamingo.model.generate import NEVER, generate, likeliest, log_softmax_allowed

P = np.array([[0.1, 0.4, 0.0, 0.3, 0.2]])


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(), [0.1, 0.4, 0.0, 0.3, 0.2]),
        (Sampling(top_k=1), [0, 1, 0, 0, 0]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_k=99), [0.1, 0.4, 0.0, 0.3, 0.2]),
        (Sampling(top_p=0.3), [0, 1, 0, 0, 0]),  # the first alone reaches it
        (Sampling(top_p=0.5), [0, 4 / 7, 0, 3 / 7, 0]),  # the token that crosses the limit stays
        (Sampling(top_p=0.75), [0, 4 / 9, 0, 3 / 9, 2 / 9]),
        (Sampling(top_p=0.75, top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_p=0.3, top_k=3), [0, 1, 0, 0, 0]),
        (Sampling(top_p=1e-9), [0, 1, 0, 0, 0]),  # never an empty set
    ],
)
def test_restrict_known_answers(sampling, expected):
    np.testing.assert_allclose(restrict(P, sampling), [expected], atol=1e-12)


def test_a_set_that_reaches_top_p_exactly_is_large_enough():
    """Powers of two add up without rounding."""
    probs = np.array([[0.25, 0.5, 0.125, 0.125]])
    np.testing.assert_array_equal(restrict(probs, Sampling(top_p=0.5)), [[0, 1, 0, 0]])
    np.testing.assert_array_equal(restrict(probs, Sampling(top_p=0.75)), [[1 / 3, 2 / 3, 0, 0]])


def test_restrict_works_on_each_row_alone():
    both = restrict(np.concatenate([P, P[:, ::-1]]), Sampling(top_k=2))
    np.testing.assert_allclose(both[1], both[0][::-1])


def test_temperature_zero_is_greedy_and_needs_no_generator():
    assert GREEDY == Sampling() and sampler(GREEDY) is sampler(Sampling(top_k=3)) is likeliest


@pytest.mark.parametrize(
    "sampling", [Sampling(1.3, top_k=1), Sampling(0.7, top_p=1e-6), Sampling(1e-6), Sampling(1e-308)]
)
def test_one_choice_left_is_greedy(floor, sampling):
    m = sharp_model(1)
    batch, visual = batch_of(m, prompts(m.eoc))
    sampled = generate(m, batch, visual, 6, sampler(sampling, np.random.default_rng(5)))
    assert sampled == generate(m, batch, visual, 6)  # the scores too: they do not depend on the temperature


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-6, 1e308])
def test_any_temperature_above_zero_samples(temperature):
    """If the division came first, even the largest log-probability would be -inf at the smallest temperature."""
    tokens = draw(log_softmax_allowed(np.arange(13.0)[None]), Sampling(temperature), np.random.default_rng(0))
    assert temperature > 1 or tokens == [12]
    assert tokens.shape == (1,) and tokens[0] not in NEVER


def test_sampling_without_a_generator_is_a_user_error():
    with pytest.raises(UserError, match="give rng="):
        sampler(Sampling(1.0))


def test_sampling_is_reproducible_by_its_generator(floor):
    m = sharp_model()
    batch, visual = batch_of(m, prompts(m.eoc))
    hot = Sampling(temperature=2.0)
    runs = [generate(m, batch, visual, 8, sampler(hot, np.random.default_rng(s))) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_sampling_never_writes_reserved_tokens(floor):
    """At a temperature where all other tokens are almost equally likely."""
    m = sharp_model()
    batch, visual = batch_of(m, prompts(m.eoc))
    rows, _ = generate(m, batch, visual, 8, sampler(Sampling(temperature=50.0), np.random.default_rng(0)))
    written = {token for row in rows for token in row}
    assert len(written) > 3 and not written & set(NEVER)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_matches_the_probabilities(monkeypatch, temperature):
    """4000 rows draw one token each. Every fraction is within five standard errors."""
    logits = np.zeros(13)
    logits[[6, 7, 8]] = [2.0, 1.0, -1.0]
    m = scripted_model(monkeypatch, [np.repeat(logits[None], 4000, axis=0)])
    choose = sampler(Sampling(temperature), np.random.default_rng(0))
    tokens, scores = generate(m, plain_batch(4000), EMPTY, 1, choose)
    expected = np.where(np.isin(np.arange(13), NEVER), 0, np.exp(logits / temperature))
    expected /= expected.sum()
    drawn = [row[0] if row else 12 for row in tokens]
    shares = np.bincount(drawn, minlength=13) / 4000
    error = np.sqrt(expected * (1 - expected) / 4000)
    assert np.all(np.abs(shares - expected) <= 5 * error)
    model = log_softmax_allowed(logits)
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
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=f"sampling: {name} is {value} but must be"):
        Sampling(**wrong)
