"""Stage three: what trains and what never does, how gates open, and how gradients add up."""

import dataclasses
import hashlib

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import pages
from tinyflamingo.data.tinyworld.pool import Medium
from tinyflamingo.model.interleave import Sequence, phi, phi_next
from tinyflamingo.model.tokenizer import IMAGE, PAD
from tinyflamingo.model.trained import untrained
from tinyflamingo.ops.tree import flatten, named_leaves
from tinyflamingo.training import flamingo_stage
from tinyflamingo.training.flamingo_stage import DATASETS, FlamingoStage, MediaFeatures, batch_loss, cut
from tinyflamingo.training.presets import get_preset


def make_stage(tokenizer, **recipe):
    """A stage over the smoke preset's untrained parts, always the same."""
    rng, smoke = np.random.default_rng(8), get_preset("smoke")
    preset = dataclasses.replace(smoke, flamingo=dataclasses.replace(smoke.flamingo, **recipe))
    return FlamingoStage(preset, rng, tokenizer, untrained(rng, preset.config, tokenizer).frozen)


@pytest.fixture
def stage(tokenizer):
    return make_stage(tokenizer)


def hashes(tree):
    return {name: hashlib.sha256(leaf.tobytes()).hexdigest() for name, leaf in named_leaves(tree).items()}


def walk(stage, steps):
    for step in range(steps):
        gradient, info = stage.gradient(np.random.default_rng([5, step]), step)
        stage.optimiser.step(gradient, step, steps)
    return info


# ---- frozen ----------------------------------------------------------------------------------


def test_no_frozen_bit_changes_and_everything_else_does(stage):
    frozen, params = hashes(stage.frozen), hashes(stage.optimiser.params)
    features = hashlib.sha256(stage.features.pictures.tobytes()).hexdigest()
    walk(stage, 3)
    assert hashes(stage.frozen) == frozen
    assert hashlib.sha256(stage.features.pictures.tobytes()).hexdigest() == features
    changed = {name for name, digest in hashes(stage.optimiser.params).items() if digest != params[name]}
    assert changed == set(params)


def test_what_trains_is_exactly_the_resampler_the_gated_blocks_and_eoc(stage):
    layers = {f"xattn_{i}" for i in stage.config.gated_layers}
    assert set(stage.optimiser.params) == {"resampler", "eoc"} | layers
    assert set(stage.frozen) == {"vision", "feature_mean", "feature_scale", "contrastive", "language"}
    assert set(stage.result()) == {"params"} and stage.result()["params"] is stage.optimiser.params


def test_the_gradient_has_the_trained_parts_alone_as_its_argument(stage, monkeypatch):
    """Frozen means: not an argument of the gradient."""
    seen = []
    real = ops.value_and_grad

    def recording(loss):
        def run(params, *rest):
            value, gradients = real(loss)(params, *rest)
            seen.append((set(named_leaves(params)), set(named_leaves(gradients))))
            return value, gradients

        return run

    monkeypatch.setattr(ops, "value_and_grad", recording)
    walk(stage, 1)
    names = set(named_leaves(stage.optimiser.params))
    assert seen and all(a == g == names for a, g in seen)


def test_gradients_are_float32(stage, rng):
    for dataset in DATASETS:
        _, gradients = stage._loss_and_gradients(rng, stage.batch(rng, dataset))
        assert {leaf.dtype for leaf in named_leaves(gradients).values()} == {np.dtype("f4")}


# ---- gates -----------------------------------------------------------------------------------


def alphas(params):
    return {n: float(leaf) for n, leaf in named_leaves(params).items() if "alpha" in n}


def test_gates_are_exactly_zero_until_the_first_step(stage):
    assert len(alphas(stage.optimiser.params)) == 4
    assert all(value == 0.0 for value in alphas(stage.optimiser.params).values())


def test_at_zero_only_the_gates_and_eoc_have_a_gradient(stage, rng):
    _, gradients = stage._loss_and_gradients(rng, stage.batch(rng, "pages"))
    moving = {name for name, leaf in named_leaves(gradients).items() if np.any(leaf)}
    assert moving == set(alphas(gradients)) | {"eoc"}


def test_the_first_move_of_the_gates_goes_against_their_averaged_gradient(stage):
    total = dict.fromkeys(alphas(stage.optimiser.params), 0.0)
    rng = np.random.default_rng(31)
    for _ in range(stage.recipe.gate_batches):
        for dataset, weight in zip(DATASETS, stage.recipe.weights, strict=True):
            _, gradients = stage._loss_and_gradients(rng, stage.batch(rng, dataset))
            for name, slope in alphas(gradients).items():
                total[name] += weight * slope
    before = {n: v.copy() for n, v in named_leaves(stage.optimiser.params).items() if "alpha" not in n}
    stage.open_gates(np.random.default_rng(31))
    push = stage.recipe.gate_push
    assert alphas(stage.optimiser.params) == {name: -push * np.sign(slope) for name, slope in total.items()}
    for name, leaf in before.items():  # nothing else has moved
        np.testing.assert_array_equal(named_leaves(stage.optimiser.params)[name], leaf)
    # the optimiser's vector saw it: the parameters are views
    assert (np.abs(stage.optimiser.vector) == push).sum() >= len(total)


def test_gates_are_opened_at_step_0_and_never_again(stage, monkeypatch):
    calls = []
    monkeypatch.setattr(stage, "open_gates", lambda rng: calls.append(1))
    walk(stage, 3)
    assert len(calls) == 1


# ---- gradients of several datasets -------------------------------------------------------------


def test_accumulation_is_the_weighted_sum_of_single_gradients(stage):
    stage.open_gates(np.random.default_rng(1))
    together, info = stage.gradient(np.random.default_rng(4), step=1)
    rng, single, losses = np.random.default_rng(4), 0.0, {}
    for dataset, weight in zip(DATASETS, stage.recipe.weights, strict=True):
        losses[dataset], gradients = stage._loss_and_gradients(rng, stage.batch(rng, dataset))
        single = single + np.float32(weight) * flatten(gradients)
    np.testing.assert_array_equal(together, single)
    assert together.dtype == np.float32
    assert {k: info[f"loss_{k}"] for k in DATASETS} == losses
    assert info["loss"] == pytest.approx(sum(losses.values()) / 3)
    assert set(info["gates"]) == set(alphas(stage.optimiser.params))


def test_round_robin_takes_one_dataset_a_step(tokenizer, monkeypatch):
    stage, taken = make_stage(tokenizer, accumulate=False), []
    batch = stage.batch
    monkeypatch.setattr(stage, "batch", lambda rng, name: taken.append(name) or batch(rng, name))
    monkeypatch.setattr(stage, "open_gates", lambda rng: None)
    for step in range(6):
        _, info = stage.gradient(np.random.default_rng(step), step)
        assert [k for k in info if k.startswith("loss_")] == [f"loss_{DATASETS[step % 3]}"]
    assert taken == list(DATASETS) * 2


# ---- batches ---------------------------------------------------------------------------------


def test_media_have_the_features_of_their_own_pixels(stage, rng):
    from tinyflamingo.model.flamingo import encode_media

    media = [Medium("picture", 3), Medium("picture", 0), Medium("picture", 3)]
    expected = encode_media(stage.frozen, stage.pool.pictures[[3, 0, 3]][:, None], stage.config)
    np.testing.assert_allclose(stage.features.of(media), expected, atol=1e-5)
    clips = stage.features.of([Medium("clip", 1)])
    np.testing.assert_allclose(clips, encode_media(stage.frozen, stage.pool.videos[[1]], stage.config), atol=1e-5)
    assert clips.shape[1] == 8 and len(MediaFeatures(stage.frozen, stage.pool, stage.config).of([])) == 0


def test_a_batch_of_text_pages_alone_has_a_loss(stage, rng, monkeypatch):
    monkeypatch.setattr(flamingo_stage, "page", lambda rng, pool: ("text_page", pages.text_page(rng, pool)))
    batch = stage.batch(rng, "pages")
    assert batch.media == [] and not batch.phi.any()
    assert np.isfinite(batch_loss(stage.optimiser.params, stage.frozen, batch, stage.features.of([]), stage.config))


@pytest.mark.parametrize("p_next, mode", [(1.0, phi_next), (0.0, phi)])
def test_web_pages_are_read_in_next_mode_as_often_as_asked(tokenizer, rng, monkeypatch, p_next, mode):
    stage = make_stage(tokenizer, p_next=p_next)
    monkeypatch.setattr(flamingo_stage, "page", lambda rng, pool: ("web_page", pages.web_page(rng, pool)))
    batch, before = stage.batch(rng, "pages"), 0
    for row, seen in zip(batch.tokens, batch.phi, strict=True):
        own = mode(row)
        n = int((row == IMAGE).sum())
        real = row != PAD
        np.testing.assert_array_equal(seen[real], np.where(own > 0, own + before, 0)[real])
        before += n
    assert before == len(batch.media)


def test_other_pages_are_never_read_in_next_mode(tokenizer, rng, monkeypatch):
    stage = make_stage(tokenizer, p_next=1.0)
    for kind in ("album", "episode", "knowledge_page"):
        make = pages.PAGES[kind]
        monkeypatch.setattr(flamingo_stage, "page", lambda rng, pool, k=kind, m=make: (k, m(rng, pool)))
        batch = stage.batch(rng, "pages")
        assert (batch.phi[:, 0] == 0).all()  # <BOS> comes before any image
    for dataset in ("pairs", "videos"):
        batch = stage.batch(rng, dataset)
        real = batch.tokens != PAD
        np.testing.assert_array_equal((batch.phi > 0)[real], (np.cumsum(batch.tokens == IMAGE, axis=1) > 0)[real])


def test_cut_keeps_the_media_whose_tags_are_left():
    whole = Sequence([1, IMAGE, 9, 9, IMAGE, 8, IMAGE], [0.0] * 7, ["a", "b", "c"])
    assert [cut(whole, T).media for T in (1, 2, 4, 5, 6, 7, 99)] == [[], ["a"], ["a"], ["a", "b"], ["a", "b"]] + [
        ["a", "b", "c"]
    ] * 2
    short = cut(whole, 5)
    assert short.tokens == [1, IMAGE, 9, 9, IMAGE] and len(short.weights) == 5
    assert whole.tokens[-1] == IMAGE and len(whole.media) == 3  # untouched


def test_rows_are_no_longer_than_the_recipe_says(stage, rng):
    for dataset, length, rows in zip(DATASETS, stage.recipe.lengths, stage.recipe.rows, strict=True):
        for _ in range(5):
            batch = stage.batch(rng, dataset)
            assert batch.tokens.shape[0] == rows and batch.tokens.shape[1] <= length
            assert len(batch.media) == (batch.tokens == IMAGE).sum()
