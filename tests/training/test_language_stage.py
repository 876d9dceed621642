"""Stage two: documents packed into rows, each with its own start, and the tokens that have a loss."""

import dataclasses
import math

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.items import Quiet
from tinyflamingo.model.language_model import language_model
from tinyflamingo.model.tokenizer import BOS, EOS, IMAGE, PAD
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training import language_stage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.losses import shares_of, token_losses
from tinyflamingo.training.presets import get_preset


@pytest.fixture
def stage(rng, tokenizer):
    return LanguageStage(get_preset("smoke"), rng, tokenizer, {})


def with_phases(stage, *phases):
    stage.recipe = dataclasses.replace(stage.recipe, phases=phases)
    return stage


def test_a_batch_has_no_padding(stage, rng):
    for step in range(12):
        tokens, weights, visible_from = stage.batch(rng, step)
        r = stage.recipe
        longer = r.longer if step >= r.long_from and step % r.long_every == r.long_every - 1 else 1
        B, T = r.rows // longer, r.length * longer
        assert tokens.shape == weights.shape == visible_from.shape == (B, T)
        assert weights.dtype == np.float32 and set(np.unique(weights)) <= {0.0, 1.0}
        assert not np.isin(tokens, (PAD, IMAGE, stage.tokenizer.eoc)).any()
        assert (tokens[:, 0] == BOS).all() and (weights[tokens == BOS] == 0).all()


def test_visible_from_is_the_bos_of_a_tokens_own_document(stage, rng):
    for step in range(12):
        tokens, _, visible_from = stage.batch(rng, step)
        for row, places in zip(tokens, visible_from, strict=True):
            expected = np.maximum.accumulate(np.where(row == BOS, np.arange(len(row)), 0))
            np.testing.assert_array_equal(places, expected)
            ends = np.flatnonzero(row == EOS)
            assert (row[np.minimum(ends + 1, len(row) - 1)][ends + 1 < len(row)] == BOS).all()


def test_a_token_sees_its_own_document_only(stage, rng):
    batches = (stage.batch(rng, 6) for _ in range(20))
    rows = ((t[row], s[row]) for t, _, s in batches for row in [s[:, -1].argmax()] if s[row, -1] > 0)
    tokens, visible_from = next(rows)  # a row with several documents
    tokens, visible_from, last = tokens[None], visible_from[None], int(visible_from[-1])
    params = stage.optimiser.params
    before = language_model(params, tokens, stage.config, visible_from)[:, last:]
    other = tokens.copy()
    other[:, :last] = rng.integers(IMAGE + 1, len(stage.tokenizer), size=last)
    np.testing.assert_allclose(language_model(params, other, stage.config, visible_from)[:, last:], before, atol=1e-5)


def test_only_the_repetition_of_random_tokens_has_a_loss(stage, rng):
    with_phases(stage, (math.inf, 1.0, 0.0, 0.0))
    for _ in range(100):
        ids, weights = stage.document(rng, 0)
        half = (len(ids) - 2) // 2
        assert len(ids) == len(weights) and ids[0] == BOS and ids[-1] == EOS
        assert ids[1 : 1 + half] == ids[1 + half : -1]
        assert weights == [0.0] * (1 + half) + [1.0] * (half + 1)
        low, high = stage.recipe.repeat_lengths
        assert low - 1 <= 2 * half < high
        assert all(stage.tokenizer.piece(i) != "<0x41>" and i > IMAGE for i in ids[1:-1])


def test_quiet_text_has_no_loss(stage, rng, monkeypatch):
    with_phases(stage, (math.inf, 0.0, 0.5, 0.0))
    items = [Quiet("a red circle"), "is found in the cave."]
    monkeypatch.setattr(language_stage, "text_document", lambda rng, longer=1: items)
    monkeypatch.setattr(language_stage, "episode", lambda rng, longest=18: items)
    ids, weights = stage.document(rng, 0)
    quiet, learned = (stage.tokenizer.encode(t) for t in ("a red circle", "is found in the cave."))
    assert ids == [BOS, *quiet, *learned, EOS]
    assert weights == [0.0] * (1 + len(quiet)) + [1.0] * (len(learned) + 1)


def test_a_text_ends_with_eos_and_has_no_tag(stage, rng):
    with_phases(stage, (math.inf, 0.0, 0.5, 0.0))
    for _ in range(50):
        ids, weights = stage.document(rng, 0)
        assert ids[0] == BOS and ids[-1] == EOS and len(ids) == len(weights)
        assert weights[0] == 0.0 and weights[-1] == 1.0 and 1.0 in weights[1:-1]
        assert not {BOS, EOS, IMAGE, PAD, stage.tokenizer.eoc} & set(ids[1:-1])


def test_the_curriculum_follows_its_phases(stage, rng, monkeypatch):
    monkeypatch.setattr(language_stage, "episode", lambda rng, longest=18: ["an episode"])
    monkeypatch.setattr(language_stage, "text_task", lambda rng, longer=1: ["a task"])
    with_phases(stage, (10, 1.0, 0.0, 0.0), (20, 0.0, 1.0, 0.0), (30, 0.0, 0.0, 1.0), (math.inf, 0.0, 0.0, 0.0))

    def kind(step):
        ids, _ = stage.document(rng, step)
        half = (len(ids) - 2) // 2
        if ids[1 : 1 + half] == ids[1 + half : -1]:
            return "repeat"
        return {"an episode": "episode", "a task": "task"}.get(stage.tokenizer.decode(ids[1:-1]), "text")

    kinds = ["repeat", "repeat", "episode", "episode", "task", "task", "text", "text"]
    assert [kind(s) for s in (0, 9, 10, 19, 20, 29, 30, 99)] == kinds


def test_pieces_of_random_rows_are_text(stage):
    names = [stage.tokenizer.piece(i) for i in stage.pieces]
    assert len(names) > 200 and not any(n.startswith("<") for n in names)


def test_token_losses_are_cross_entropies_in_their_places(rng, floor):
    logits, targets = rng.standard_normal((2, 3, 5)).astype("f4"), rng.integers(0, 5, (2, 3))
    rows = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(rows, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(token_losses(logits, targets), expected, rtol=1e-5)


def test_shares_turn_a_weighted_mean_into_a_sum(rng):
    weights = np.array([[1, 0, 2], [0, 0.5, 0.5]], "f4")
    np.testing.assert_array_equal(shares_of(weights), weights / 4)
    assert shares_of(weights).dtype == np.float32
    np.testing.assert_array_equal(shares_of(0 * weights), 0)
    tiny = np.full((2, 2), 1e-30, "f4")
    np.testing.assert_allclose(shares_of(tiny), 0.25, rtol=1e-6)


def test_the_loss_is_the_mean_over_the_tokens_that_count(stage, rng, floor):
    tokens, weights, visible_from = stage.batch(rng, 5)
    logits = language_model(stage.optimiser.params, tokens[:, :-1], stage.config, visible_from[:, :-1])
    losses, counted = token_losses(logits, tokens[:, 1:]), weights[:, 1:] > 0
    loss, gradient = stage.loss_and_gradient(tokens, weights, visible_from)
    assert loss == pytest.approx(losses[counted].mean(), rel=1e-5)
    assert gradient.shape == stage.optimiser.vector.shape and gradient.dtype == np.float32 and gradient.any()
    doubled, again = stage.loss_and_gradient(tokens, 2 * weights, visible_from)  # only the ratios of weights matter
    assert doubled == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(again, gradient, atol=1e-6)


def test_neither_prepare_nor_a_gradient_writes_a_parameter(stage):
    before, rng = stage.optimiser.vector.tobytes(), np.random.default_rng(3)
    state = rng.bit_generator.state
    stage.prepare(rng)
    assert rng.bit_generator.state == state
    for step in range(2):
        assert stage.gradient(rng, step)[0].any()
    assert stage.optimiser.vector.tobytes() == before


def test_a_batch_with_all_weights_zero_has_loss_and_gradient_zero(stage, rng):
    tokens, weights, visible_from = stage.batch(rng, 5)
    loss, gradient = stage.loss_and_gradient(tokens, 0 * weights, visible_from)
    assert loss == 0.0 and not gradient.any()


def test_the_number_of_workers_changes_only_rounding(stage, rng):
    batch, results = stage.batch(rng, 5), []
    for n in (1, 2, 3, 9):  # of 4 rows
        with ops.use_workers(n):
            results.append(stage.loss_and_gradient(*batch))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert np.linalg.norm(gradient - results[0][1]) < 1e-5 * np.linalg.norm(results[0][1])


def test_a_few_steps_learn_something_and_the_result_has_half_precision(stage, rng):
    losses = []
    for step in range(60):
        gradient, info = stage.gradient(np.random.default_rng([1, step % 2]), 9)
        stage.optimiser.step(gradient, step, 60)
        losses.append(info["loss"])
    assert losses[-1] < losses[0] - 1.0
    for leaf in named_leaves(stage.result()).values():
        np.testing.assert_array_equal(leaf, leaf.astype("f2").astype("f4"))
