"""Stage three: trained and frozen parts, the first move of the gates, sums of gradients, documents in shards."""

import dataclasses
import hashlib

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import pages
from tinyflamingo.data.tinyworld.pool import Medium
from tinyflamingo.model.config import XattnConfig
from tinyflamingo.model.flamingo import encode_media, resample
from tinyflamingo.model.interleave import Sequence, phi, phi_next
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD
from tinyflamingo.ops.tree import named_leaves, view_tree
from tinyflamingo.training import flamingo_stage
from tinyflamingo.training.flamingo_stage import FlamingoStage, cut
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.ablations import AllPreviousXattnConfig, UngatedXattnConfig
from tinyflamingo.variants.registry import in_form, parts_of, untrained

DATASETS = get_preset("smoke").flamingo.datasets
NAMES = tuple(dataset.name for dataset in DATASETS)


def make_stage(tokenizer, **recipe):
    """A stage over the smoke preset's untrained parts, always the same."""
    rng, smoke = np.random.default_rng(8), get_preset("smoke")
    preset = dataclasses.replace(smoke, flamingo=dataclasses.replace(smoke.flamingo, **recipe))
    return FlamingoStage(preset, rng, tokenizer, untrained(rng, preset.config, tokenizer).frozen)


def with_other(field, *values):
    """The data sets of the smoke preset. Each gets its own value of one field."""
    return tuple(dataclasses.replace(d, **{field: value}) for d, value in zip(DATASETS, values, strict=True))


@pytest.fixture
def stage(tokenizer):
    return make_stage(tokenizer)


@pytest.fixture
def noiseless(tokenizer):
    """A stage without noise and with half-open gates, so that gradients of the same documents can be compared."""
    stage = make_stage(tokenizer, feature_noise=0.0)
    for name, leaf in named_leaves(stage.optimiser.params).items():
        if "alpha" in name:
            leaf[...] = 0.5
    return stage


def learn(stage, rng, documents):
    return stage.losses_and_gradient(stage.shards(rng, documents))


def gradients(stage, rng, *datasets):
    """The tree of gradients of fresh documents."""
    return view_tree(learn(stage, rng, stage.documents(rng, datasets))[1], stage.optimiser.params)


def close(actual, expected, rtol=1e-5):
    return np.linalg.norm(actual - expected) <= rtol * np.linalg.norm(expected)


def hashes(tree):
    return {name: hashlib.sha256(leaf.tobytes()).hexdigest() for name, leaf in named_leaves(tree).items()}


def walk(stage, steps):
    for step in range(steps):
        rng = np.random.default_rng([5, step])
        if step == 0:
            stage.prepare(rng)
        gradient, info = stage.gradient(rng, step)
        stage.optimiser.step(gradient, step, steps)
    return info


# ---- frozen ----------------------------------------------------------------------------------


def test_no_frozen_bit_changes_and_every_other_parameter_does(stage):
    frozen, params = hashes(stage.frozen), hashes(stage.optimiser.params)
    features = hashes(vars(stage.features))
    walk(stage, 3)
    assert hashes(stage.frozen) == frozen
    assert hashes(vars(stage.features)) == features and len(features) == 2
    changed = {name for name, digest in hashes(stage.optimiser.params).items() if digest != params[name]}
    assert changed == set(params)


def test_exactly_the_resampler_the_gated_blocks_and_eoc_train(stage):
    layers = {f"xattn_{i}" for i in stage.config.gated_layers}
    assert set(stage.optimiser.params) == {"resampler", "eoc"} | layers
    assert set(stage.frozen) == {"vision", "feature_mean", "feature_scale", "contrastive", "language"}
    result = stage.result()
    assert set(result) == {"params"} and result["params"].keys() == stage.optimiser.params.keys()
    assert all(result["params"][name] is leaf for name, leaf in stage.optimiser.params.items())


def test_only_the_trained_parts_are_arguments_of_the_gradient(stage, monkeypatch):
    """Frozen means: not an argument of the gradient."""
    calls = []
    real = ops.value_and_grad

    def recording(loss):
        def run(params, *rest):
            value, gradient = real(loss)(params, *rest)
            calls.append((set(named_leaves(params)), set(named_leaves(gradient))))
            return value, gradient

        return run

    monkeypatch.setattr(ops, "value_and_grad", recording)
    walk(stage, 1)
    names = set(named_leaves(stage.optimiser.params))
    assert calls and all(a == g == names for a, g in calls)


@pytest.mark.parametrize("dataset", DATASETS, ids=NAMES)
def test_gradients_are_float32(stage, rng, dataset):
    losses, gradient = learn(stage, rng, stage.documents(rng, [dataset]))
    assert gradient.dtype == np.float32 and gradient.shape == stage.optimiser.vector.shape
    shards = stage.shards(rng, stage.documents(rng, (dataset,)))
    assert all(shard.shares.dtype == np.float32 for shard in shards)
    arguments = (shards[0], stage.frozen, (1.0,) * 3, stage.config)
    assert flamingo_stage.shard_loss(stage.optimiser.params, *arguments)[0].dtype == np.float32
    assert {name for name, loss in losses.items() if loss > 0} == {dataset.name}


@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_part_can_train_too(tokenizer, part):
    """The paper's ablation: this part changes, the other does not, and the result holds the new values."""
    stage = make_stage(tokenizer, trained=(part,))
    before = {name: hashes(stage.frozen[name]) for name in ("vision", "language")}
    walk(stage, 2)
    result = stage.result()
    assert set(result) == {"params", part} and part not in result["params"]
    assert {name: hashes(stage.frozen[name]) for name in before} == before  # other runs may use them
    moved = hashes(result[part])
    assert moved.keys() == before[part].keys()
    assert sum(moved[n] != before[part][n] for n in moved) > len(moved) // 2


def test_media_can_be_shared(tokenizer):
    one = make_stage(tokenizer)
    two = FlamingoStage(
        dataclasses.replace(get_preset("smoke")),
        np.random.default_rng(1),
        tokenizer,
        one.frozen,
        (one.pool, one.features),
    )
    assert two.pool is one.pool and two.features is one.features


# ---- gates -----------------------------------------------------------------------------------


def alphas(params):
    return {n: float(leaf) for n, leaf in named_leaves(params).items() if "alpha" in n}


def test_gates_are_exactly_zero_until_the_first_step(stage):
    assert len(alphas(stage.optimiser.params)) == 4
    assert all(value == 0.0 for value in alphas(stage.optimiser.params).values())


def test_at_zero_only_the_gates_and_eoc_have_a_gradient(stage, rng):
    gradient = gradients(stage, rng)
    nonzero = {name for name, leaf in named_leaves(gradient).items() if np.any(leaf)}
    assert nonzero == set(alphas(gradient)) | {"eoc"}


def test_the_first_move_of_the_gates_goes_against_their_averaged_gradient(tokenizer):
    """The data sets one by one, with weights by hand, against all data sets at once."""
    stage = make_stage(tokenizer, feature_noise=0.0, datasets=with_other("weight", 1.0, 1.0, 1.0))
    total, rng = dict.fromkeys(alphas(stage.optimiser.params), 0.0), np.random.default_rng(31)
    weights = (1.0, 0.4, 3.0)
    for _ in range(stage.recipe.gate_batches):
        documents = stage.documents(rng)
        stage.shards(rng, documents)  # only for the generators that it takes
        for i, weight in enumerate(weights):
            own = learn(stage, np.random.default_rng(0), [d for d in documents if d.dataset == i])[1]
            for name, slope in alphas(view_tree(own, stage.optimiser.params)).items():
                total[name] += weight * slope
    before = {n: v.copy() for n, v in named_leaves(stage.optimiser.params).items() if "alpha" not in n}
    stage.recipe = dataclasses.replace(stage.recipe, datasets=with_other("weight", *weights))
    stage.prepare(np.random.default_rng(31))
    push = stage.recipe.gate_push
    assert alphas(stage.optimiser.params) == {name: -push * np.sign(slope) for name, slope in total.items()}
    for name, leaf in before.items():  # no other parameter has changed
        np.testing.assert_array_equal(named_leaves(stage.optimiser.params)[name], leaf)
    # the optimiser's vector has changed too: the parameters are views into it
    assert (np.abs(stage.optimiser.vector) == push).sum() >= len(total)


def test_only_prepare_opens_the_gates(tokenizer):
    """It uses the generator of the first step; the gradient of this step continues with it after `prepare`."""
    one, other = make_stage(tokenizer), make_stage(tokenizer)
    rng, again = np.random.default_rng(4), np.random.default_rng(4)
    one.prepare(rng)
    assert {abs(value) for value in alphas(one.optimiser.params).values()} == {one.recipe.gate_push}
    for _ in range(other.recipe.gate_batches):
        other.shards(again, other.documents(again))
    for name, value in alphas(one.optimiser.params).items():
        named_leaves(other.optimiser.params)[name][...] = value
    np.testing.assert_array_equal(one.gradient(rng, 0)[0], other.gradient(again, 0)[0])


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("trained", [(), ("vision", "language")])
def test_a_gradient_writes_no_parameter(tokenizer, accumulate, trained):
    """Also in the first step, when the gates are closed."""
    stage = make_stage(tokenizer, accumulate=accumulate, trained=trained)
    before, frozen = hashes(stage.optimiser.params), hashes(stage.frozen)
    vectors = [getattr(stage.optimiser, name).tobytes() for name in ("vector", "m", "v")]
    for step in range(2):
        gradient, info = stage.gradient(np.random.default_rng(step), step)
        assert gradient.any() and set(info["gates"].values()) == {0.0}
    assert hashes(stage.optimiser.params) == before and hashes(stage.frozen) == frozen
    assert [getattr(stage.optimiser, name).tobytes() for name in ("vector", "m", "v")] == vectors


def test_a_form_without_gates_has_nothing_to_prepare(tokenizer, rng):
    smoke = get_preset("smoke")
    config = dataclasses.replace(smoke.config, xattn=in_form(smoke.config.xattn, UngatedXattnConfig))
    frozen = untrained(rng, config, tokenizer).frozen
    stage = FlamingoStage(dataclasses.replace(smoke, config=config), rng, tokenizer, frozen)
    before, state = hashes(stage.optimiser.params), rng.bit_generator.state
    stage.prepare(rng)
    assert hashes(stage.optimiser.params) == before and rng.bit_generator.state == state


# ---- gradients of several data sets ----------------------------------------------------------


def test_accumulation_is_the_weighted_sum_of_single_gradients(noiseless, rng):
    documents = noiseless.documents(rng)
    losses, together = learn(noiseless, rng, documents)
    datasets = noiseless.recipe.datasets
    assert len({dataset.weight for dataset in datasets}) > 1
    noiseless.recipe = dataclasses.replace(noiseless.recipe, datasets=with_other("weight", 1.0, 1.0, 1.0))
    total = 0.0
    for i, dataset in enumerate(datasets):
        single, gradient = learn(noiseless, rng, [d for d in documents if d.dataset == i])
        assert single[dataset.name] == pytest.approx(losses[dataset.name], rel=1e-5)
        total = total + np.float32(dataset.weight) * gradient
    assert close(together, total)


def test_a_step_reports_the_loss_of_every_dataset_and_the_gates(noiseless):
    gradient, info = noiseless.gradient(np.random.default_rng(4), step=1)
    rng = np.random.default_rng(4)
    losses, expected = learn(noiseless, rng, noiseless.documents(rng))
    np.testing.assert_array_equal(gradient, expected)
    assert {k: info[f"loss_{k}"] for k in NAMES} == losses
    assert info["loss"] == pytest.approx(sum(losses.values()) / 3)
    assert set(info["gates"]) == set(alphas(noiseless.optimiser.params))


def test_round_robin_takes_one_dataset_in_each_step(tokenizer, monkeypatch):
    stage, taken = make_stage(tokenizer, accumulate=False), []
    documents = stage.documents
    monkeypatch.setattr(stage, "documents", lambda rng, chosen, longer: taken.extend(chosen) or documents(rng, chosen))
    for step in range(6):
        _, info = stage.gradient(np.random.default_rng(step), step)
        assert [k for k in info if k.startswith("loss_")] == [f"loss_{NAMES[step % 3]}"]
        assert info["loss"] == info[f"loss_{NAMES[step % 3]}"] > 0
    assert taken == list(DATASETS) * 2


def test_the_loss_is_the_mean_over_the_tokens_of_a_dataset(noiseless, rng, floor):
    """Against single documents, each with the mean loss over its own tokens."""
    documents = noiseless.documents(rng)
    losses, _ = learn(noiseless, rng, documents)
    for i, name in enumerate(NAMES):
        own = [d for d in documents if d.dataset == i]
        sizes = [sum(d.sequence.weights) for d in own]
        means = [learn(noiseless, rng, [d])[0][name] for d in own]
        assert losses[name] == pytest.approx(np.average(means, weights=sizes), rel=1e-4)


# ---- workers ---------------------------------------------------------------------------------


def in_other_form(stage, form):
    """Give the gated blocks of a stage another form with the same parameters."""
    stage.config = dataclasses.replace(stage.config, xattn=in_form(stage.config.xattn, form))
    stage.parts = parts_of(stage.config)


@pytest.mark.parametrize("form", [XattnConfig, AllPreviousXattnConfig])
def test_the_number_of_workers_changes_only_rounding(noiseless, form):
    in_other_form(noiseless, form)
    results = []
    for n in (1, 2, 3, 50):
        with ops.use_workers(n):
            gradient, info = noiseless.gradient(np.random.default_rng(6), step=1)
        results.append((info["loss"], gradient))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert close(gradient, results[0][1])


def test_a_stage_trains_the_form_of_its_configuration(noiseless, rng):
    """With all previous media the loss of pages changes. The loss of pairs does not: a pair has one medium."""
    shards, losses = noiseless.shards(rng, noiseless.documents(rng)), []
    for form in (XattnConfig, AllPreviousXattnConfig):
        in_other_form(noiseless, form)
        losses.append(noiseless.losses_and_gradient(shards)[0])
    assert losses[1]["pages"] != pytest.approx(losses[0]["pages"], rel=1e-4)
    assert losses[1]["pairs"] == pytest.approx(losses[0]["pairs"], rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_same_generator_and_number_of_workers_give_the_same_bits(stage, n):
    with ops.use_workers(n):
        bits = [stage.gradient(np.random.default_rng(6), step=1)[0].tobytes() for _ in range(3)]
    assert len(set(bits)) == 1


def test_the_assignment_of_shards_to_workers_changes_no_bit(noiseless, rng):
    with ops.use_workers(2):
        shards = noiseless.shards(rng, noiseless.documents(rng))
        two = noiseless.losses_and_gradient(shards)
    with ops.use_workers(1):
        one = noiseless.losses_and_gradient(shards)
    assert len(shards) == 2 and one[0] == two[0]
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("n", [1, 3, 50])
def test_every_document_is_in_one_shard_and_every_dataset_counts_once(noiseless, rng, n):
    documents = noiseless.documents(rng)
    with ops.use_workers(n):
        shards = noiseless.shards(rng, documents)
    assert len(shards) == min(n, len(documents))
    in_shards = []
    for shard in shards:
        batch = shard.batch
        for i in range(batch.owner.max() + 1):
            own = batch.owner == i
            (dataset,) = set(shard.datasets[own].tolist())
            in_shards.append((dataset, batch.tokens[own].tolist()))
        assert not shard.shares[batch.owner < 0].any() and (shard.datasets[batch.owner < 0] == -1).all()
    assert sorted(in_shards) == sorted((d.dataset, d.sequence.tokens) for d in documents)
    for i in range(len(NAMES)):
        assert sum(s.shares[s.datasets == i].sum() for s in shards) == pytest.approx(1, rel=1e-5)


def test_the_documents_do_not_depend_on_the_number_of_workers(stage):
    drawn = []
    for n in (1, 4):
        with ops.use_workers(n):
            drawn.append(stage.documents(np.random.default_rng(3)))
    assert drawn[0] == drawn[1]


# ---- media -----------------------------------------------------------------------------------


def test_media_have_the_features_of_their_own_pixels(stage):
    media = [Medium("picture", 3), Medium("picture", 0), Medium("picture", 3), Medium("clip", 1)]
    pictures, clips = stage.features.of(media)
    expected = encode_media(stage.frozen, stage.pool.pictures[[3, 0, 3]][:, None], stage.config)
    np.testing.assert_allclose(pictures, expected, atol=1e-5)
    expected = encode_media(stage.frozen, stage.pool.videos[[1]], stage.config)
    np.testing.assert_allclose(clips, expected, atol=1e-5)
    assert clips.shape[1] == 8 and pictures.shape[1] == 1
    (alone,) = stage.features.of(media[3:])
    np.testing.assert_array_equal(alone, clips)
    assert stage.features.of([]) == []


def test_a_shard_has_the_features_of_its_media_in_their_order(noiseless, rng):
    with ops.use_workers(2):
        shards = noiseless.shards(rng, noiseless.documents(rng)[::-1])
    for shard in shards:
        kinds = [medium.kind for medium in shard.batch.media]
        assert kinds == sorted(kinds, reverse=True) and len(shard.features) <= 2  # pictures, then clips
        assert len(kinds) == (shard.batch.tokens == IMAGE).sum() == sum(map(len, shard.features))
        rows = [row for table in shard.features for row in table]
        for medium, row in zip(shard.batch.media, rows, strict=True):
            np.testing.assert_array_equal(row, noiseless.features.of([medium])[0][0])


def test_noise_has_the_size_of_the_recipe_and_is_new_every_time(stage, rng):
    documents, differences = stage.documents(rng), []
    for _ in range(2):
        with ops.use_workers(2):
            for shard in stage.shards(rng, documents):
                clean = stage.features.of(shard.batch.media)
                differences += [np.ravel(noisy - table) for noisy, table in zip(shard.features, clean, strict=True)]
    noise = np.concatenate(differences)
    assert noise.std() == pytest.approx(stage.recipe.feature_noise, rel=0.05)
    assert abs(noise.mean()) < 0.01 and noise.dtype == np.float32
    half = len(differences) // 2
    assert not any(np.array_equal(a, b) for a in differences[:half] for b in differences[half:])


def test_pictures_and_videos_are_resampled_one_after_the_other(stage, rng):
    params, config = stage.optimiser.params, stage.config
    pictures, clips = stage.features.of([Medium("picture", 1), Medium("picture", 2), Medium("clip", 0)])
    both = resample(params, [pictures, clips], config)
    np.testing.assert_array_equal(both[:2], resample(params, [pictures], config))
    np.testing.assert_array_equal(both[2:], resample(params, [clips], config))
    empty = resample(params, [], config)
    assert empty.shape == (0, *both.shape[1:]) and empty.dtype == np.float32


def test_pages_without_pictures_have_a_loss(tokenizer, rng, monkeypatch):
    stage = make_stage(tokenizer, tasks=0.0)
    monkeypatch.setattr(
        flamingo_stage, "page", lambda rng, pool, mixture, length: ("text_page", pages.text_page(rng, pool))
    )
    shards = stage.shards(rng, stage.documents(rng, stage.recipe.datasets[:1]))
    assert all(s.features == [] and s.batch.media == [] and not s.batch.phi.any() for s in shards)
    losses, gradient = stage.losses_and_gradient(shards)
    assert losses["pages"] > 0 and np.all(np.isfinite(gradient)) and gradient.any()


# ---- documents -------------------------------------------------------------------------------


@pytest.mark.parametrize("p_next, mode", [(1.0, phi_next), (0.0, phi)])
def test_web_pages_are_read_in_next_mode_with_probability_p_next(tokenizer, rng, monkeypatch, p_next, mode):
    stage = make_stage(tokenizer, tasks=0.0, p_next=p_next, datasets=with_other("rows", 6, 1, 1))
    monkeypatch.setattr(
        flamingo_stage, "page", lambda rng, pool, mixture, length: ("web_page", pages.web_page(rng, pool))
    )
    documents = stage.documents(rng, stage.recipe.datasets[:1])
    assert {d.phi_of for d in documents} == {mode}
    with ops.use_workers(1):
        (shard,) = stage.shards(rng, documents)
    batch, before = shard.batch, 0
    for i, document in enumerate(documents):
        own = mode(document.sequence.tokens)
        np.testing.assert_array_equal(batch.phi[batch.owner == i], np.where(own > 0, own + before, 0))
        before += len(document.sequence.media)
    assert before == len(batch.media) > 0


def test_half_of_the_web_pages_look_ahead(tokenizer, rng, monkeypatch):
    stage = make_stage(tokenizer, tasks=0.0, p_next=0.5, datasets=with_other("rows", 200, 1, 1))
    monkeypatch.setattr(
        flamingo_stage, "page", lambda rng, pool, mixture, length: ("web_page", pages.web_page(rng, pool))
    )
    ahead = [d.phi_of is phi_next for d in stage.documents(rng, stage.recipe.datasets[:1])]
    assert 65 < sum(ahead) < 135  # five standard errors


@pytest.mark.parametrize("kind", ["album", "episodes", "knowledge_page"])
def test_other_pages_are_never_read_in_next_mode(tokenizer, rng, monkeypatch, kind):
    stage = make_stage(tokenizer, p_next=1.0)
    monkeypatch.setattr(flamingo_stage, "page", lambda rng, pool, mixture, length: (kind, pages.PAGES[kind](rng, pool)))
    assert {d.phi_of for d in stage.documents(rng)} == {phi}  # pairs and videos too


def test_the_recipe_sets_the_share_of_pages_with_tasks(tokenizer, rng):
    for share, low, high in ((0.0, 0, 0), (0.28, 60, 110), (1.0, 300, 300)):
        stage = make_stage(tokenizer, tasks=share)
        kinds = [stage._draw(rng, "pages", 1, 0)[0] for _ in range(300)]
        assert low <= kinds.count("tasks") <= high
        assert "tasks" not in {stage._draw(rng, name, 1, 0)[0] for name in ("pairs", "videos")}


def test_the_recipe_sets_the_shares_of_the_kinds_of_pages(tokenizer, rng):
    stage = make_stage(tokenizer, tasks=0.0, mixture=(("album", 0.5), ("web_page", 0.5)))
    kinds = [stage._draw(rng, "pages", longer, 0)[0] for longer in (1, 2) for _ in range(20)]
    assert set(kinds) == {"album", "web_page"}


def test_cut_keeps_the_media_whose_tags_are_left():
    whole = Sequence([1, IMAGE, 9, 9, IMAGE, 8, IMAGE], [0.0] * 7, ["a", "b", "c"])
    assert [cut(whole, T).media for T in (1, 2, 4, 5, 6, 7, 99)] == [[], ["a"], ["a"], ["a", "b"], ["a", "b"]] + [
        ["a", "b", "c"]
    ] * 2
    short = cut(whole, 5)
    assert short.tokens == [1, IMAGE, 9, 9, IMAGE] and len(short.weights) == 5
    assert whole.tokens[-1] == IMAGE and len(whole.media) == 3  # unchanged


def test_a_step_has_the_documents_of_the_recipe_and_none_is_too_long(stage, rng):
    for _ in range(5):
        documents = stage.documents(rng)
        assert [sum(d.dataset == i for d in documents) for i in range(3)] == [dataset.rows for dataset in DATASETS]
        for document in documents:
            tokens = document.sequence.tokens
            assert tokens[0] == BOS and PAD not in tokens
            assert len(tokens) <= DATASETS[document.dataset].length
            assert len(document.sequence.media) == tokens.count(IMAGE)
        for shard in stage.shards(rng, documents):
            assert np.mean(shard.batch.owner < 0) < 0.1  # little padding
