"""Caches: one token at a time equals the whole row; copies of rows do not influence each other."""

import copy

import numpy as np
import pytest
from completion_cases import log_probs_after, prompts, random_words, read_prompts, row_by_row, sequence_of, step_by_step
from model_cases import tiny, tiny_config

from tinyflamingo.decoding.caches import reorder, take_rows
from tinyflamingo.model.generate import read_on, read_token
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.cache import cached_length

# ---------------------------------------------------------------- one token more


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 1e-5)])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("config", [tiny_config(), tiny_config(xattn={"every": 2})], ids=["1", "2"])
def test_every_step_equals_the_whole_row(floor, rng, config, rows, dtype, atol):
    m = tiny(dtype=dtype, config=config)
    sequences, words = prompts(m.eoc)[:rows], random_words(m, rng, rows)
    actual = step_by_step(m, sequences, words)
    assert actual.shape == (12, rows, m.eoc + 1) and actual.dtype == dtype
    np.testing.assert_allclose(actual, row_by_row(m, sequences, words), atol=atol)


@pytest.mark.parametrize("gates", [(0, 0), (0.8, 0), (0, -0.6)])
def test_every_step_with_any_gates(floor, rng, gates):
    m = tiny(gates=gates)
    sequences, words = prompts(m.eoc)[:3], random_words(m, rng, 3)
    np.testing.assert_allclose(step_by_step(m, sequences, words), row_by_row(m, sequences, words), atol=1e-10)


def test_every_step_without_any_picture(floor, rng):
    m = tiny()
    sequences, words = [sequence_of([BOS, 5, 6], []), sequence_of([BOS], [])], random_words(m, rng, 2)
    np.testing.assert_allclose(step_by_step(m, sequences, words), row_by_row(m, sequences, words), atol=1e-10)


def test_every_step_in_a_long_continuation(floor, rng):
    m = tiny(config=tiny_config(language={"context": 256}))
    sequences, words = prompts(m.eoc)[:2], random_words(m, rng, 2, 150)
    np.testing.assert_allclose(step_by_step(m, sequences, words), row_by_row(m, sequences, words), atol=1e-9)


def test_many_rows_at_once(floor, rng):
    """Equal rows stay equal, and equal to one row."""
    m, one = tiny(), sequence_of([BOS, IMAGE, 6], [0])
    words = random_words(m, rng, 1)
    many = step_by_step(m, [one] * 17, np.repeat(words, 17, axis=0))
    np.testing.assert_allclose(many, np.repeat(step_by_step(m, [one], words), 17, axis=1), atol=1e-10)


def test_rows_do_not_influence_each_other(floor, rng):
    """The first row gives the same alone and in a batch."""
    m = tiny()
    words = random_words(m, rng, 3)
    together = step_by_step(m, prompts(m.eoc)[:3], words)
    alone = step_by_step(m, prompts(m.eoc)[:1], words[:1])
    np.testing.assert_allclose(alone[:, 0], together[:, 0], atol=1e-10)


def test_parameters_pictures_and_keys_of_media_are_not_written_to(floor, rng):
    m = tiny(dtype=np.float32)
    batch, visual, cache = read_prompts(m, prompts(m.eoc)[:2])
    media = [cache["xattn_0"][part] for part in ("k", "v")]
    watched = [m.params["eoc"], m.params["xattn_0"]["w_q"], m.frozen["language"]["embedding"], visual, *media]
    before = [x.copy() for x in watched]
    for tokens in random_words(m, rng, 2).T:
        read_token(m, tokens, batch, visual, cache)
    for x, copied in zip(watched, before, strict=True):
        np.testing.assert_array_equal(x, copied)
    assert all(cache["xattn_0"][part] is x for part, x in zip(("k", "v"), media, strict=True))


# ---------------------------------------------------------------- copies of rows


def _continued(m, cache, batch, visual, rows, words):
    """Log-probabilities after one more token for each row of a cache; row i is a copy of row rows[i] of the batch."""
    visible, visible_from = m.parts.visible(batch)[rows, -1:], batch.visible_from[rows, -1:]
    return read_on(m, np.array(words)[:, None], visible, visual, visible_from, cache)


def test_copies_of_rows_are_continued(floor):
    m = tiny()
    sequences = prompts(m.eoc)
    batch, visual, cache = read_prompts(m, sequences)
    rows, words = [2, 0, 2, 3], [7, 7, 9, m.eoc]
    copied = take_rows(cache, rows)
    assert cached_length(copied) == cached_length(cache) == batch.tokens.shape[1]
    actual = _continued(m, copied, batch, visual, rows, words)
    for row, word, log_probs in zip(rows, words, actual, strict=True):
        np.testing.assert_allclose(log_probs, log_probs_after(m, sequences[row], [word]), atol=1e-10)


def test_copies_and_the_cache_itself_do_not_influence_each_other(floor):
    """Each is continued in turn, with different words."""
    m = tiny()
    sequences = prompts(m.eoc)[:2]
    batch, visual, cache = read_prompts(m, sequences)
    one, two = take_rows(cache, [0, 1]), take_rows(cache, np.array([1, 0]))
    tails = {0: [], 1: [], 2: []}
    for step in range(4):
        for number, (current, rows) in enumerate(((one, [0, 1]), (cache, [0, 1]), (two, [1, 0]))):
            words = [5 + (step + number) % 4, 8 + (step * number) % 3]
            tails[number].append(words)
            actual = _continued(m, current, batch, visual, rows, words)
            for i, row in enumerate(rows):
                expected = log_probs_after(m, sequences[row], [w[i] for w in tails[number]])
                np.testing.assert_allclose(actual[i], expected, atol=1e-10)


def test_keys_and_values_of_media_are_shared(floor):
    _, _, cache = read_prompts(tiny(), prompts(12))
    copied = take_rows(cache, [0, 0])
    for name in ("xattn_0", "xattn_1", "xattn_2"):
        assert copied[name]["k"] is cache[name]["k"] and copied[name]["v"] is cache[name]["v"]


def test_reorder_exchanges_the_tokens_after_the_prompt(floor):
    """Two beams of one prompt: after the exchange each continues the other's tokens."""
    m = tiny()
    sequence = prompts(m.eoc)[2]
    batch, visual, cache = read_prompts(m, [sequence])
    prompt, cache = cached_length(cache), take_rows(cache, [0, 0])
    for words in ([5, 7], [8, 9]):
        _continued(m, cache, batch, visual, [0, 0], words)
    before = copy.deepcopy(cache)
    reorder(cache, [1, 0], prompt)
    for i in range(3):
        for part in ("k", "v"):
            new, old = cache[f"block_{i}"][part], before[f"block_{i}"][part]
            np.testing.assert_array_equal(new[:, :prompt], old[:, :prompt])
            np.testing.assert_array_equal(new[:, prompt : prompt + 2], old[::-1, prompt : prompt + 2])
    actual = _continued(m, cache, batch, visual, [0, 0], [6, 6])
    for log_probs, tail in zip(actual, ([7, 9, 6], [5, 8, 6]), strict=True):
        np.testing.assert_allclose(log_probs, log_probs_after(m, sequence, tail), atol=1e-10)


def test_reorder_can_drop_a_beam(floor):
    m = tiny()
    sequence = prompts(m.eoc)[0]
    batch, visual, cache = read_prompts(m, [sequence])
    prompt, cache = cached_length(cache), take_rows(cache, [0, 0, 0])
    _continued(m, cache, batch, visual, [0, 0, 0], [5, 7, 8])
    reorder(cache, np.array([2, 2, 0]), prompt)
    actual = _continued(m, cache, batch, visual, [0, 0, 0], [6, 9, 6])
    for log_probs, tail in zip(actual, ([8, 6], [8, 9], [5, 6]), strict=True):
        np.testing.assert_allclose(log_probs, log_probs_after(m, sequence, tail), atol=1e-10)
