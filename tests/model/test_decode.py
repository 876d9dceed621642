"""The compiled step of decoding: what `flamingo` with caches computes, step after step, row after row."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_cases import tiny, tiny_config

from tinyflamingo import ops
from tinyflamingo.model import decode
from tinyflamingo.model.decode import arrange, decode_step
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.generate import beam_search, generate, init_caches, stepper
from tinyflamingo.model.interleave import Sequence, make_batch
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops import kernels

pytest.importorskip("numba")

STEPS = 12
LAST, ALL = tiny_config(xattn={"every": 2}), tiny_config(xattn={"attend": "all_previous"})
BARE, VANILLA = tiny_config(xattn={"gated": False, "start": 1}), tiny_config(xattn={"kind": "vanilla"})


@pytest.fixture(autouse=True)
def on_the_fast_floor():
    with ops.use("fast"):
        yield


def prompts(m, rows):
    """A picture; no picture; two pictures, closed by <EOC>; one that another picture follows. All of unequal length."""
    documents = [
        ([BOS, IMAGE, 6, 5], [0]),
        ([BOS, 5], []),
        ([BOS, 6, m.eoc, IMAGE, 5, 3, m.eoc, IMAGE], [1, 2]),
        ([BOS, IMAGE, 7, m.eoc, IMAGE, 7, m.eoc], [2, 0]),
    ][:rows]
    batch = make_batch([Sequence(tokens, [0.0] * len(tokens), media) for tokens, media in documents], left=True)
    return batch, m.visual[np.array(batch.media, int)]


def begun(m, batch, visual, steps=STEPS):
    """Caches that hold the prompt, with room for more."""
    cache = init_caches(m.params, m.config, len(batch.tokens), batch.tokens.shape[1] + steps, visual)
    flamingo(m.params, m.frozen, batch.tokens, batch.phi, visual, m.config, batch.start, cache, batch.first)
    return cache


def both_ways(m, batch, visual, words):
    """Logits after every column of words (B, n), by the compiled step and by `flamingo`; and both caches."""
    phi, first, start = (x[:, -1] for x in (batch.phi, batch.first, batch.start))
    caches = begun(m, batch, visual, words.shape[1]), begun(m, batch, visual, words.shape[1])
    blocks = arrange(m.params, m.frozen, m.config, caches[0])
    seen_from = first if m.config.xattn.attend == "all_previous" else phi
    steps, expected = [], []
    for tokens in words.T:
        steps.append(decode_step(m.params, m.frozen, tokens, phi, seen_from, start, caches[0], blocks))
        more = start[:, None], caches[1], first[:, None]
        whole = flamingo(m.params, m.frozen, tokens[:, None], phi[:, None], visual, m.config, *more)
        expected.append(whole[:, -1])
    return np.stack(steps), np.stack(expected), caches


def random_words(m, rng, rows, n=STEPS):
    """<EOC> among them, as its own input."""
    words = rng.integers(3, m.eoc, (rows, n))
    words[:, 3::5] = m.eoc
    return words


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 1e-5)])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("config", [LAST, ALL, BARE], ids=["last", "all_previous", "no gates"])
def test_every_step_equals_flamingo_with_caches(rng, config, rows, dtype, atol):
    m = tiny(dtype=dtype, config=config)
    batch, visual = prompts(m, rows)
    found, expected, caches = both_ways(m, batch, visual, random_words(m, rng, rows))
    assert found.shape == (STEPS, rows, m.eoc + 1) and found.dtype == dtype
    np.testing.assert_allclose(found, expected, atol=atol)
    assert caches[0]["length"] == caches[1]["length"] == batch.tokens.shape[1] + STEPS
    for i in range(config.language.layers):
        for part in ("k", "v"):
            np.testing.assert_allclose(*(c[f"block_{i}"][part] for c in caches), atol=atol)


def test_vanilla_cross_attention_is_decoded_without_the_compiled_step(monkeypatch):
    """It stands inside a decoder block, where the kernel does not look."""
    m = tiny(config=VANILLA)
    batch, visual = prompts(m, 2)
    monkeypatch.setattr(decode, "arrange", None)  # would fail if it were called
    words = np.array([[6], [7]])
    grown = np.concatenate([batch.tokens, words], axis=1)
    phi, start = (np.concatenate([x, x[:, -1:]], axis=1) for x in (batch.phi, batch.start))
    logits = flamingo(m.params, m.frozen, grown, phi, visual, m.config, start)[:, -1]
    cache = begun(m, batch, visual)
    step = stepper(m.params, m.frozen, (phi[:, -1:], start[:, -1:], batch.first[:, -1:]), visual, m.config, cache)
    np.testing.assert_allclose(step(words[:, 0]), logits, atol=1e-10)


@pytest.mark.parametrize("gates", [(0, 0), (0.8, 0), (0, -0.6)])
def test_every_step_equals_flamingo_whatever_the_gates(rng, gates):
    m = tiny(config=ALL, gates=gates)
    batch, visual = prompts(m, 3)
    found, expected, _ = both_ways(m, batch, visual, random_words(m, rng, 3))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_every_step_equals_flamingo_without_any_picture(rng):
    m = tiny()
    batch = make_batch([Sequence([BOS, 5, 6], [0.0] * 3, []), Sequence([BOS], [0.0], [])], left=True)
    found, expected, _ = both_ways(m, batch, m.visual[:0], random_words(m, rng, 2))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_every_step_equals_flamingo_in_a_long_continuation(rng):
    m = tiny(config=tiny_config(language={"context": 256}))
    batch, visual = prompts(m, 2)
    found, expected, _ = both_ways(m, batch, visual, random_words(m, rng, 2, 150))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_rows_do_not_meet(rng):
    """The first row alone gives what it gives beside others."""
    m = tiny()
    batch, visual = prompts(m, 3)
    words = random_words(m, rng, 3)
    together = both_ways(m, batch, visual, words)[0]
    one, own = prompts(m, 1)
    np.testing.assert_allclose(both_ways(m, one, own, words[:1])[0][:, 0], together[:, 0], atol=1e-10)


def test_a_full_cache_is_an_error_and_stays_as_it_was():
    m = tiny()
    batch, visual = prompts(m, 2)
    cache = begun(m, batch, visual, steps=1)
    blocks = arrange(m.params, m.frozen, m.config, cache)
    last = batch.phi[:, -1], batch.phi[:, -1], batch.start[:, -1]
    decode_step(m.params, m.frozen, np.array([5, 6]), *last, cache, blocks)
    before = cache["block_0"]["k"].copy()
    with pytest.raises(ValueError, match="the cache holds 5 tokens; 6 are needed"):
        decode_step(m.params, m.frozen, np.array([5, 6]), *last, cache, blocks)
    np.testing.assert_array_equal(cache["block_0"]["k"], before)
    assert cache["length"] == 5


def test_parameters_and_pictures_are_not_written_to(rng):
    m = tiny(dtype=np.float32)
    batch, visual = prompts(m, 2)
    cache = begun(m, batch, visual)
    watched = [m.params["eoc"], m.params["xattn_0"]["w_q"], m.frozen["language"]["embedding"], *cache["media_0"]]
    before = [x.copy() for x in watched]
    both_ways(m, batch, visual, random_words(m, rng, 2))
    for x, copy in zip(watched, before, strict=True):
        np.testing.assert_array_equal(x, copy)


# ---------------------------------------------------------------- who takes the step


def counted(monkeypatch):
    calls, real = [], decode.decode_step
    monkeypatch.setattr(decode, "decode_step", lambda *a: calls.append(1) or real(*a))
    return calls


@pytest.mark.parametrize("config", [LAST, ALL], ids=["last", "all_previous"])
@pytest.mark.parametrize("seed", range(4))
def test_all_floors_say_the_same(seed, config, monkeypatch):
    """The compiled step, the fast floor without Numba, and the reference: greedy and beam."""
    m = tiny(seed, config=config)
    m.frozen["language"]["final_gain"] = 3 * m.frozen["language"]["final_gain"]
    batch, visual = prompts(m, 3)
    one, own = prompts(m, 1)
    calls, found = counted(monkeypatch), []

    def said():
        tokens, scores = generate(m.params, m.frozen, batch, visual, m.config, max_tokens=8)
        (beam,), (score,) = beam_search(m.params, m.frozen, one, own, m.config, width=3, max_tokens=5)
        found.append((tokens, beam, [*np.concatenate(scores), score]))

    said()
    assert calls
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "ENGINE", "numpy")
        said()
    with ops.use("reference"):
        said()
    assert calls == []
    for tokens, beam, scores in found[1:]:
        assert tokens == found[0][0] and beam == found[0][1]
        np.testing.assert_allclose(scores, found[0][2], atol=1e-9)


def test_many_rows_take_the_step_of_matrix_products(monkeypatch):
    m = tiny()
    one, visual = prompts(m, 1)
    calls = counted(monkeypatch)
    for rows in (decode.ROWS, decode.ROWS + 1):
        sequences = [Sequence([BOS, IMAGE, 6], [0.0] * 3, [0]) for _ in range(rows)]
        batch = make_batch(sequences, left=True)
        many = np.repeat(visual, rows, axis=0)
        cache = begun(m, batch, many)
        last = batch.phi[:, -1:], batch.start[:, -1:], batch.first[:, -1:]
        logits = stepper(m.params, m.frozen, last, many, m.config, cache)(np.full(rows, 7))
        np.testing.assert_allclose(logits, np.repeat(logits[:1], rows, axis=0), atol=1e-12)
        assert len(calls) == 1  # of the first round


def test_the_stepper_takes_phi_start_and_first_in_its_order(rng):
    m = tiny(config=ALL)
    batch, visual = prompts(m, 4)
    last = batch.phi[:, -1:], batch.start[:, -1:], batch.first[:, -1:]
    step_on = stepper(m.params, m.frozen, last, visual, m.config, begun(m, batch, visual))
    words = random_words(m, rng, 4)
    found = np.stack([step_on(tokens) for tokens in words.T])
    np.testing.assert_allclose(found, both_ways(m, batch, visual, words)[1], atol=1e-10)


def test_without_jit():
    """The loops as plain Python, for a debugger."""
    here = Path(__file__)
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(here.parents[2])}
    command = [sys.executable, "-m", "pytest", "-k", "equals_flamingo_with_caches and float64", str(here)]
    done = subprocess.run(command, cwd=here.parents[2], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith(8 * "."), done.stdout
