"""Stage one: batches of whole families, the gradient of a loss over all rows, clipping, and the result."""

import dataclasses

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.scenes import KNOWN, WRITTEN
from tinyflamingo.model.contrastive import MAX_LOGIT_SCALE, contrastive_loss, embed_captions, embed_pictures
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.model.tokenizer import PAD
from tinyflamingo.ops.tree import flatten, named_leaves, view_tree
from tinyflamingo.training.contrastive_stage import FAMILY, ContrastiveStage, _other_thing, pad_captions
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.vit import ViTConfig, encode_with_vit


def make_stage(tokenizer, agc=0.08, vision=None):
    smoke = get_preset("smoke")
    smoke = dataclasses.replace(smoke, config=dataclasses.replace(smoke.config, vision=vision or smoke.config.vision))
    optimiser = dataclasses.replace(smoke.contrastive.optimiser, agc=agc)
    preset = dataclasses.replace(smoke, contrastive=dataclasses.replace(smoke.contrastive, optimiser=optimiser))
    stage = ContrastiveStage(preset, np.random.default_rng(8), tokenizer, {})
    for name, leaf in named_leaves(stage.optimiser.params).items():
        if "skip_init" in name:
            leaf[...] = 0.3  # as after some steps: at 0 most of the encoder has no gradient
    return stage


@pytest.fixture
def stage(tokenizer):
    return make_stage(tokenizer)


def test_a_batch_has_different_whole_families(stage, rng):
    pictures, captions = stage.batch(rng)
    assert pictures.dtype == np.uint8 and len(pictures) == len(captions) == stage.recipe.batch
    families = [stage.captions.index(captions[i : i + FAMILY]) for i in range(0, len(captions), FAMILY)]
    assert len(set(families)) == len(families)
    for i, family in enumerate(families):
        np.testing.assert_array_equal(pictures[FAMILY * i : FAMILY * (i + 1)], stage.of_families(np.array([family])))


def test_captions_are_padded_on_the_right():
    tokens, mask = pad_captions([[5, 6], [7], [8, 9, 4]])
    np.testing.assert_array_equal(tokens, [[5, 6, PAD], [7, PAD, PAD], [8, 9, 4]])
    np.testing.assert_array_equal(mask, [[1, 1, 0], [1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_gradient_is_that_of_the_whole_batch(stage, rng, n):
    pictures, captions = stage.batch(rng)
    captions[5] = captions[1]  # the same caption in another family and another shard
    tokens, mask = pad_captions(captions)
    ids = [captions.index(c) for c in captions]

    def whole(params):
        picture_vectors = embed_pictures(params, pictures, stage.config)
        caption_vectors = embed_captions(params, tokens, mask, stage.config)
        return contrastive_loss(picture_vectors, caption_vectors, params["log_scale"], np.array(ids))

    loss, gradients = ops.value_and_grad(whole)(stage.optimiser.params)
    with ops.use_workers(n):
        sharded_loss, gradient = stage.loss_and_gradient(pictures, captions)
    assert sharded_loss == pytest.approx(loss, rel=1e-5)
    expected = flatten(gradients)
    assert gradient.dtype == np.float32
    assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected)
    assert view_tree(gradient, stage.optimiser.params)["log_scale"] == pytest.approx(gradients["log_scale"], rel=1e-3)


def test_only_the_gradient_of_the_encoder_is_clipped_in_place(stage, rng):
    _, gradient = stage.loss_and_gradient(*stage.batch(rng))
    before = gradient.copy()
    assert stage.clip(gradient) is None
    old, new = (view_tree(g, stage.optimiser.params) for g in (before, gradient))
    for name in set(old) - {"vision"}:
        np.testing.assert_array_equal(*(flatten({name: tree[name]}) for tree in (old, new)))
    sizes = [np.linalg.norm(flatten(tree["vision"])) for tree in (old, new)]
    assert sizes[1] < sizes[0]


def test_without_adaptive_clipping_nothing_is_clipped(tokenizer, rng):
    stage = make_stage(tokenizer, agc=0.0)
    gradient = np.full_like(stage.optimiser.vector, 5.0)
    stage.clip(gradient)
    assert np.all(gradient == 5.0)


def test_neither_prepare_nor_a_gradient_writes_a_parameter(stage):
    before, vector = flatten(stage.optimiser.params).tobytes(), stage.optimiser.vector.tobytes()
    rng = np.random.default_rng(3)
    state = rng.bit_generator.state
    stage.prepare(rng)
    assert rng.bit_generator.state == state
    for step in range(2):
        assert stage.gradient(rng, step)[0].any()
    assert flatten(stage.optimiser.params).tobytes() == before and stage.optimiser.vector.tobytes() == vector


def test_a_stage_uses_the_encoder_of_its_configuration(tokenizer):
    """In the loss and in the result. The encoder of a ResNet would fail in both."""
    stage = make_stage(tokenizer, vision=ViTConfig(patch=8, width=32, layers=1, heads=2))
    assert stage.encode is encode_with_vit
    kept = stage.result()
    features, _ = encode_with_vit(kept["vision"], stage.sample(), stage.config.vision)
    scaled = (features - kept["feature_mean"]) * kept["feature_scale"]
    np.testing.assert_allclose(scaled.reshape(-1, 32).std(axis=0), 1, atol=0.1)


def test_a_step_reports_the_loss_before_clipping_and_the_scale(stage):
    gradient, info = stage.gradient(np.random.default_rng(3), 0)
    loss, raw = stage.loss_and_gradient(*stage.batch(np.random.default_rng(3)))
    assert info["loss"] == loss and set(info) == {"loss", "scale"}
    assert info["scale"] == pytest.approx(1 / 0.07, rel=1e-5)
    stage.clip(raw)
    np.testing.assert_array_equal(gradient, raw)


def test_a_temperature_above_its_limit_returns_to_it(stage):
    log_scale = stage.optimiser.params["log_scale"]
    before = log_scale.copy()
    log_scale[...] = 6.0
    _, info = stage.gradient(np.random.default_rng(3), 0)
    assert info["scale"] == pytest.approx(MAX_LOGIT_SCALE) and log_scale == np.float32(np.log(MAX_LOGIT_SCALE))
    log_scale[...] = before


@pytest.mark.parametrize("vision", [None, ViTConfig(patch=8, width=32, layers=1, heads=2)], ids=["resnet", "vit"])
def test_a_few_steps_learn_something(tokenizer, vision):
    stage, losses = make_stage(tokenizer, vision=vision), []
    for step in range(40):
        gradient, info = stage.gradient(np.random.default_rng([2, step % 2]), step)
        stage.optimiser.step(gradient, step + 80, 200)
        losses.append(info["loss"])
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 1.0


def test_the_result_standardises_the_features_and_has_half_precision(stage):
    kept = stage.result()
    assert set(kept) == {"vision", "feature_mean", "feature_scale", "contrastive"}
    assert set(kept["contrastive"]) == set(stage.optimiser.params) - {"vision"}
    for leaf in named_leaves(kept).values():
        np.testing.assert_array_equal(leaf, leaf.astype("f2").astype("f4"))
    pictures = stage.of_families(np.arange(len(stage.captions)))[:, None]
    features = encode_media(kept, pictures, stage.config).reshape(-1, stage.config.vision.width)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=0.1)


@pytest.mark.parametrize("known", [KNOWN, WRITTEN])
def test_another_thing_shares_its_shape_or_its_colour(rng, known):
    shared = [
        tuple(a == b for a, b in zip(known[5], _other_thing(rng, known[5], known), strict=True)) for _ in range(60)
    ]
    assert set(shared) == {(True, False), (False, True)}
