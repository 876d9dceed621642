"""Every form of every part in a whole model: completion with caches, causality, checkpoints, gradients."""

import dataclasses

import autograd.numpy as anp
import numpy as np
import pytest
from completion_cases import (
    batch_of,
    greedy,
    greedy_score,
    log_probs_after,
    prompts,
    random_words,
    read_prompts,
    row_by_row,
    sequence_of,
    sharp_model,
    step_by_step,
)
from model_cases import VARIANTS, assert_float32_inside, check_tree, shaken_flamingo, tiny, with_vocabulary

from tinyflamingo import ops
from tinyflamingo.checkpoint import load_checkpoint, save_checkpoint
from tinyflamingo.decoding.beams import beam_search, score_continuations
from tinyflamingo.decoding.complete import complete
from tinyflamingo.model.flamingo import encode_and_resample, flamingo
from tinyflamingo.model.generate import generate, read_token
from tinyflamingo.model.interleave import Sequence
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.variants.ablations import AllPreviousXattnConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig
from tinyflamingo.variants.registry import parts_of

each = pytest.mark.parametrize("name", VARIANTS)


def _logits(m, params, tokens, visible, visual):
    return flamingo(params, m.frozen, tokens, visible, visual, m.config, parts=m.parts)


def _loss(m, params):
    """Next-token loss over the whole batch, through the resampler."""
    visual = m.parts.resample(params, [m.features], m.config)
    logits = _logits(m, params, m.tokens[:, :-1], m.visible[:, :-1], visual)
    targets = m.tokens[:, 1:].ravel()
    losses = ops.cross_entropy(anp.reshape(logits, (targets.size, -1)), targets)
    return anp.sum(losses) * logits.dtype.type(1 / targets.size)


# ---------------------------------------------------------------- completion


@each
@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_every_step_with_a_cache_equals_the_whole_row(floor, rng, name, dtype, atol):
    m = tiny(dtype=dtype, config=VARIANTS[name])
    sequences, words = prompts(m.eoc), random_words(m, rng, 4)
    actual = step_by_step(m, sequences, words)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, row_by_row(m, sequences, words), atol=atol)


@each
def test_media_are_read_once(floor, name):
    """With the prompt. Later tokens take their keys and values from the cache."""
    m = tiny(config=VARIANTS[name])
    sequences = prompts(m.eoc)
    batch, _, cache = read_prompts(m, sequences)
    media = {n: block for n, block in cache.items() if n.startswith("xattn_")}
    assert list(media) == [f"xattn_{i}" for i in m.config.gated_layers]
    assert all(set(block) == {"k", "v"} for block in media.values())
    actual = read_token(m, np.full(4, 7), batch, None, cache)
    for sequence, log_probs in zip(sequences, actual, strict=True):
        np.testing.assert_allclose(log_probs, log_probs_after(m, sequence, [7]), atol=1e-10)


@each
@pytest.mark.parametrize("seed", range(2))
def test_cached_completion_equals_uncached(floor, name, seed):
    """Greedy, in a batch and alone."""
    m = sharp_model(seed, config=VARIANTS[name])
    sequences = prompts(m.eoc)
    together, scores = generate(m, *batch_of(m, sequences), max_tokens=6)
    for i, sequence in enumerate(sequences):
        expected, expected_scores = greedy(m, sequence, 6)
        (alone,), (own,) = generate(m, *batch_of(m, [sequence]), max_tokens=6)
        assert together[i] == alone == expected
        for actual in (scores[i], own):
            np.testing.assert_allclose(actual, expected_scores, atol=1e-9)


def test_these_models_write_something():
    """Otherwise the test above would compare empty lists."""
    for name, config in VARIANTS.items():
        written = [greedy(m, s, 6)[0] for m in (sharp_model(i, config=config) for i in range(2)) for s in prompts(12)]
        assert sum(map(len, written)) > 8 and len(set(map(tuple, written))) > 2, name


@each
def test_a_beam_of_one_is_greedy(floor, name):
    m = sharp_model(config=VARIANTS[name])
    for sequence in prompts(m.eoc):
        (tokens,), (score,) = beam_search(m, *batch_of(m, [sequence]), width=1, max_tokens=5)
        assert tokens == greedy(m, sequence, 5)[0]
        assert score == pytest.approx(greedy_score(m, sequence, 5), abs=1e-9)


@each
def test_beams_keep_their_own_caches(floor, name):
    """The score of each row equals that of the whole row without a cache."""
    m = sharp_model(config=VARIANTS[name], sharp=0.5)
    sequences = prompts(m.eoc)
    actual, scores = beam_search(m, *batch_of(m, sequences), width=3, max_tokens=6)
    for sequence, tokens, score in zip(sequences, actual, scores, strict=True):
        written = tokens if len(tokens) == 6 else [*tokens, m.eoc]
        total = sum(log_probs_after(m, sequence, written[:i])[t] for i, t in enumerate(written))
        assert score == pytest.approx(total, abs=1e-9)


@each
def test_scores_of_given_continuations(floor, name):
    m = sharp_model(config=VARIANTS[name])
    rows = [([BOS, IMAGE, 6], [5, 7], [0]), ([BOS, 5], [6, 6, 8, m.eoc], []), ([BOS, IMAGE, 6, IMAGE], [9], [2, 1])]
    sequences = [Sequence(p + tail, [0.0] * len(p) + [1.0] * len(tail), media) for p, tail, media in rows]
    scores = score_continuations(m, *batch_of(m, sequences, left=False))
    for (prompt, tail, media), score in zip(rows, scores, strict=True):
        own = sequence_of(prompt, media)
        expected = sum(log_probs_after(m, own, tail[:i])[t] for i, t in enumerate(tail))
        assert score == pytest.approx(expected, abs=1e-9)


@each
def test_a_checkpoint_completes_like_the_saved_model(name, tokenizer, tmp_path):
    model = shaken_flamingo(tokenizer, with_vocabulary(VARIANTS[name], len(tokenizer)))
    save_checkpoint(model, tmp_path)
    again = load_checkpoint(tmp_path)
    assert again.config == model.config
    assert [f.__qualname__ for f in again.parts] == [f.__qualname__ for f in parts_of(model.config)]
    rng = np.random.default_rng(0)
    clip, picture = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((3, 8, 8, 3), (8, 8, 3)))
    prompt = [clip, "a red star.", picture, "Output:"]
    for beams in (1, 2):
        answer = complete(again, prompt, 4, beams=beams)
        assert answer == complete(model, prompt, 4, beams=beams) and answer["log_probs"]
    other = complete(again, [clip, "a red star.", 255 - picture, "Output:"], 4)
    assert other["log_probs"] != complete(again, prompt, 4)["log_probs"]


# ---------------------------------------------------------------- which token sees which medium


@each
@pytest.mark.parametrize("medium", [1, 2, 3])
def test_a_later_image_changes_no_earlier_logit(floor, rng, name, medium):
    m = tiny(config=VARIANTS[name])
    before, visual = _logits(m, m.params, m.tokens, m.visible, m.visual), m.visual.copy()
    visual[medium - 1] = 3 * rng.standard_normal(visual[0].shape)
    after = _logits(m, m.params, m.tokens, m.visible, visual)
    row = 0 if medium < 3 else 1
    first = int(np.argmax(m.phi[row] == medium))
    np.testing.assert_array_equal(after[1 - row], before[1 - row])  # and none of another row
    np.testing.assert_array_equal(after[row, :first], before[row, :first])
    assert np.all(np.abs(after[row, first:] - before[row, first:]).max(axis=-1) > 1e-9)


@each
def test_a_later_token_changes_no_earlier_logit(floor, name):
    m = tiny(config=VARIANTS[name])
    before = _logits(m, m.params, m.tokens, m.visible, m.visual)
    m.tokens[:, 6] = 9
    after = _logits(m, m.params, m.tokens, m.visible, m.visual)
    np.testing.assert_array_equal(after[:, :6], before[:, :6])
    assert np.all(np.abs(after[:, 6:] - before[:, 6:]).max(axis=-1) > 1e-9)


@each
def test_no_media_at_all(floor, name):
    """The logits equal those of tokens that see none of several media."""
    m = tiny(config=VARIANTS[name])
    nothing = m.parts.resample(m.params, [], m.config)
    width = m.config.resampler.output_width
    assert len(nothing) == 0 and nothing.shape[-1] == width
    for empty in (nothing, m.parts.resample(m.params, [m.features[:0]], m.config)):
        actual = _logits(m, m.params, m.tokens, 0 * m.visible, empty)
        expected = _logits(m, m.params, m.tokens, 0 * m.visible, m.visual)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@each
def test_pixels_to_visual_tokens(floor, name, tokenizer):
    """Each medium gives the same tokens alone. If its place has an embedding, only the first one does."""
    model = shaken_flamingo(tokenizer, with_vocabulary(VARIANTS[name], len(tokenizer)))
    rng, config = np.random.default_rng(1), model.config.resampler
    media = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((3, 8, 8, 3), (8, 8, 3), (1, 8, 8, 3))]
    tokens = encode_and_resample(model, media)
    assert tokens.dtype == np.float32 and tokens.shape[::2] == (3, config.output_width)
    np.testing.assert_allclose(encode_and_resample(model, media[:1]), tokens[:1], rtol=1e-4, atol=1e-5)
    second = encode_and_resample(model, media[1:2])[0]
    assert np.allclose(second, tokens[1], rtol=1e-4, atol=1e-5) == (not getattr(config, "places", 0))


# ---------------------------------------------------------------- numbers


@each
def test_floors_agree_on_loss_and_gradients(name):
    m, results = tiny(config=VARIANTS[name]), []
    for floor in ("reference", "fast"):
        with ops.use(floor):
            results.append(ops.value_and_grad(lambda p: _loss(m, p))(m.params))
    (slow_loss, slow), (fast_loss, fast) = results
    assert slow_loss == pytest.approx(fast_loss, rel=1e-10)
    fast = named_leaves(fast)
    for leaf, gradient in named_leaves(slow).items():
        np.testing.assert_allclose(gradient, fast[leaf], rtol=1e-7, atol=1e-11, err_msg=leaf)


@each
def test_float32_inside_backward(floor, name):
    m = tiny(dtype=np.float32, config=VARIANTS[name])
    assert_float32_inside(lambda p: _loss(m, p), m.params)


@each
def test_whole_model_gradient(name):
    """A finite difference for every leaf."""
    m = tiny(config=VARIANTS[name])
    check_tree(lambda p: _loss(m, p), m.params, tol=1e-5)


def test_forms_of_different_parts_work_together(floor, rng):
    """An MLP's visual tokens, as many as a frame has features, under gated blocks that see all previous media."""
    config = VARIANTS["mlp"]
    assert isinstance(config.resampler, MLPConfig)
    config = dataclasses.replace(config, xattn=VARIANTS["all previous"].xattn)
    assert isinstance(config.xattn, AllPreviousXattnConfig)
    m = tiny(config=config)
    assert m.visual.shape == (3, 4, 8)
    sequences, words = prompts(m.eoc), random_words(m, rng, 4)
    np.testing.assert_allclose(step_by_step(m, sequences, words), row_by_row(m, sequences, words), atol=1e-10)
