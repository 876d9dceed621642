"""The stages on emoji: batches, no asked concept, no drawing of the asked artist, and a whole run."""

import dataclasses
import json
import math

import numpy as np
import pytest
from emoji_files import FILES, codes_of, members_of, write_packages, write_tgz
from killed_runs import killed_in_step

from tinyflamingo.checkpoint import load_checkpoint
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld.pool import Medium
from tinyflamingo.emoji import scores
from tinyflamingo.emoji import stages as emoji_stages
from tinyflamingo.emoji.packages import NAMES, read_concepts, split
from tinyflamingo.emoji.scores import evaluator, language_of
from tinyflamingo.emoji.stages import Emoji, name_text
from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import BOS, EOS
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.training import presets
from tinyflamingo.training.run import TINYWORLD, train
from tinyflamingo.training.state import STATE, read_log


@pytest.fixture(scope="module")
def concepts(folder, preset):
    return read_concepts(folder, preset.config.vision.side)


@pytest.fixture(scope="module")
def makers(preset, folder):
    return Emoji(folder).material(preset, None)[2]


@pytest.fixture
def stage_of(makers, preset, start):
    return lambda number: makers[number](preset, np.random.default_rng(0), start.tokenizer, start.frozen)


@pytest.fixture
def _unchanged(monkeypatch):
    """No random changes, so that a test recognises the drawings."""
    for name in ("augmented", "disguised"):
        monkeypatch.setattr(emoji_stages, name, lambda rng, pictures: pictures)


def numbers_of(pictures, concepts):
    """(concept, artist) of each picture, (-1, -1) if it is no drawing."""
    places = {concepts.pictures[i, a].tobytes(): (i, a) for i in range(len(concepts.codes)) for a in range(3)}
    return [places.get(picture.tobytes(), (-1, -1)) for picture in pictures]


@pytest.mark.usefixtures("_unchanged")
def test_a_batch_has_two_drawings_of_each_concept_then_tinyworld(stage_of, preset, concepts, start):
    stage = stage_of(0)
    pictures, captions = stage.batch(np.random.default_rng(1))
    n, rows = preset.emoji.concepts, preset.contrastive.batch
    shown = numbers_of(pictures, concepts)
    assert [c for c, _ in shown[:n]] == [c for c, _ in shown[n : 2 * n]] and len({c for c, _ in shown[:n]}) == n
    assert all({a, b} == {0, 1} for (_, a), (_, b) in zip(shown[:n], shown[n : 2 * n], strict=True))
    assert shown[2 * n :] == [(-1, -1)] * rows and len(captions) == 2 * n + rows
    for (concept, _), ids in zip(shown[: 2 * n], captions, strict=False):
        assert start.tokenizer.decode(ids) == name_text(concepts.names[concept])


@pytest.mark.usefixtures("_unchanged")
def test_no_stage_sees_an_asked_concept_or_the_asked_artist(stage_of, concepts, start):
    known, asked = split(concepts)
    allowed = {concepts.codes.index(c) for c in known.codes}
    first, second, third = (stage_of(number) for number in range(3))
    pictures = [first.batch(np.random.default_rng(i))[0] for i in range(20)]
    shown = {n for batch in [*pictures, third.pool.pictures] for n in numbers_of(batch, concepts)}
    drawn = shown - {(-1, -1)}
    assert {c for c, _ in drawn} == allowed and {a for _, a in drawn} == {0, 1}

    names = {name_text(name) for name in asked.names} - {name_text(name) for name in known.names}
    texts = [start.tokenizer.decode(second.document(np.random.default_rng(i), 0)[0]) for i in range(200)]
    texts += [str(third._draw(np.random.default_rng(i), "emoji names", 1, 0)[1][-1]) for i in range(200)]
    assert names and not any(name in text for name in names for text in texts)
    assert any(name_text(known.names[0]) in text for text in texts)


@pytest.mark.usefixtures("_unchanged")
def test_the_leak_test_notices_a_leak(monkeypatch, preset, folder, concepts, start):
    monkeypatch.setattr(emoji_stages, "split", lambda concepts: (concepts, None))
    stage = Emoji(folder).material(preset, None)[2][2](preset, np.random.default_rng(0), start.tokenizer, start.frozen)
    asked = {concepts.codes.index(c) for c in split(concepts)[1].codes}
    assert asked <= {c for c, _ in numbers_of(stage.pool.pictures, concepts)}


def test_stage_one_learns(stage_of):
    stage = stage_of(0)

    def loss():
        """The mean over the same batches, none of which it trains on."""
        return np.mean([stage.gradient(np.random.default_rng([2, i]), 0)[1]["loss"] for i in range(4)])

    before = loss()
    for step in range(12):
        stage.optimiser.step(stage.gradient(np.random.default_rng([1, step]), step)[0], step + 60, 200)
    assert loss() < before - 0.3


def test_the_features_of_tinyworld_are_compared_with_those_of_the_start(stage_of, preset, start):
    stage = stage_of(0)
    pictures, _ = stage.batch(np.random.default_rng(1))
    drawings = 2 * preset.emoji.concepts
    old = np.arange(len(pictures)) >= drawings
    features, _ = stage.encode(stage.optimiser.params["vision"], pictures, stage.config.vision)
    assert (stage.moved(features, pictures, old) == 0).all()
    moved = stage.moved(features + 2 / start.frozen["feature_scale"], pictures, old)
    np.testing.assert_allclose(moved[:, 0], np.where(old, 4, 0), rtol=1e-3)
    few = slice(drawings - 2, drawings)  # a shard without TinyWorld
    assert stage.moved(features[few], pictures[few], old[few]).tolist() == [[0], [0]]
    for name in ("feature_mean", "feature_scale"):
        np.testing.assert_array_equal(stage.result()[name], start.frozen[name])


def test_every_stage_goes_on_from_the_checkpoint_and_a_gradient_writes_no_parameter(stage_of, start):
    kept = start.frozen["vision"], start.frozen["language"], start.params["resampler"]
    for number, (name, before) in enumerate(zip(("vision", None, "resampler"), kept, strict=True)):
        stage = stage_of(number)
        params = stage.optimiser.params[name] if name else stage.optimiser.params
        assert _bytes(params) == _bytes(before)
        vector = stage.optimiser.vector.tobytes()
        assert stage.gradient(np.random.default_rng(0), 0)[0].any()
        assert stage.optimiser.vector.tobytes() == vector


def _bytes(tree):
    return {k: _bytes(v) for k, v in tree.items()} if isinstance(tree, dict) else np.asarray(tree, np.float32).tobytes()


@pytest.mark.parametrize("moved", [0.0, 0.25, 1.0])
def test_the_result_lies_between_the_start_and_the_trained_parameters(stage_of, preset, start, moved):
    stage = stage_of(2)
    stage.emoji = dataclasses.replace(preset.emoji, moved=moved)
    stage.optimiser.vector += np.float32(0.5)
    before, after = named_leaves(start.params), named_leaves(stage.result()["params"])
    assert list(after) == list(before)
    for name, leaf in after.items():
        np.testing.assert_allclose(leaf, before[name] + 0.5 * moved, atol=1e-6)
        assert leaf.dtype == np.float32 and leaf.shape == before[name].shape


def test_documents_of_stage_two(stage_of, start, preset):
    stage = stage_of(1)
    stage.emoji = dataclasses.replace(preset.emoji, texts=1.0)
    ids, weights = stage.document(np.random.default_rng(0), 0)
    assert ids[0] == BOS and ids[-1] == EOS and len(ids) == len(weights)
    learned = start.tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w and i > EOS])
    assert learned.strip().startswith("thing ")


def test_chinese_names_are_captions_in_all_stages(preset, folder, start):
    preset = dataclasses.replace(preset, emoji=dataclasses.replace(preset.emoji, language="zh", texts=1.0))
    makers = Emoji(folder).material(preset, None)[2]
    first, second, third = (make(preset, np.random.default_rng(0), start.tokenizer, start.frozen) for make in makers)
    captions = first.batch(np.random.default_rng(0))[1][: 2 * preset.emoji.concepts]
    texts = [*captions, second.document(np.random.default_rng(0), 0)[0]]
    name = third._draw(np.random.default_rng(0), "emoji names", 1, 0)[1][-1]
    assert all("东西" in start.tokenizer.decode(ids) for ids in texts) and "东西" in name


def test_the_language_of_the_names_belongs_to_the_preset(start):
    said = {name: language_of(dataclasses.replace(start, info={"preset": name})) for name in ("emoji", "emoji-zh")}
    assert said == {"emoji": "en", "emoji-zh": "zh"} and language_of(start) == "en"


def test_an_episode_shows_each_concept_before_it_asks(stage_of, preset):
    stage, e = stage_of(2), preset.emoji
    for seed in range(40):
        items = stage.episode(np.random.default_rng(seed))
        media, words = items[::2], items[1::2]
        assert all(isinstance(m, Medium) and m.index >= stage.first for m in media)
        concepts = [(m.index - stage.first) // (2 * e.views) for m in media]
        artists = [(m.index - stage.first) // e.views % 2 for m in media]
        texts = [w.text if isinstance(w, Quiet) else w for w in words]
        assert len({*zip(concepts, texts, strict=True)}) == len(set(concepts)) == len(set(texts))  # one word for each
        first = [texts.index(t) == i for i, t in enumerate(texts)]
        assert first == [isinstance(w, Quiet) for w in words]
        ways = len(set(concepts))
        shots = (len(media) - e.queries) // ways
        assert e.ways[0] <= ways <= e.ways[1] and e.shots[0] <= shots <= e.shots[1]
        if shots == 1:  # the other artist is asked
            support = dict(zip(concepts[:ways], artists[:ways], strict=True))
            assert all(support[c] != a for c, a in zip(concepts[ways:], artists[ways:], strict=True))


def test_a_run_from_packages_to_scores(preset, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, preset.name, preset)
    monkeypatch.setattr(scores, "TASKS", {"2-way 1-shot": (2, 1), "5-way 3-shot": (5, 3)})
    monkeypatch.setattr(scores, "OPTIONS", 5)
    out = tmp_path / "run"
    model = train(preset.name, out, evaluate=evaluator(folder, out), source=Emoji(folder))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tasks"]["caption"]["n"] == preset.test_queries
    assert set(metrics["emoji"]) == {"2-way 1-shot", "5-way 3-shot", "name of a known concept", "name among 5"}
    assert model.info["command"] == "python -m tinyflamingo train --preset smoke-emoji --data DIR"
    assert {r["stage"] for r in read_log(out)} == {"contrastive", "language", "flamingo"}
    assert all(math.isfinite(r["loss"]) for r in read_log(out))
    assert (out / "emoji.png").read_bytes().startswith(b"\x89PNG")
    assert load_checkpoint(out / "checkpoint").info["preset"] == preset.name


def test_a_run_goes_on_with_the_files_of_its_start_alone(preset, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, preset.name, preset)
    folder, out = write_packages(tmp_path), tmp_path / "run"
    with killed_in_step(monkeypatch, 1):
        train(preset.name, out, source=Emoji(folder))
    state, names = ((path / name).read_bytes() for path, name in ((out, STATE), (folder, FILES[NAMES])))
    write_tgz(folder / FILES[NAMES], members_of(NAMES, codes_of(39)))
    for source in (Emoji(folder), TINYWORLD):  # other files, and no --data
        with pytest.raises(UserError, match="holds a run that read other files: give the folder of its start"):
            train(preset.name, out, resume=True, source=source)
    assert (out / STATE).read_bytes() == state
    (folder / FILES[NAMES]).write_bytes(names)
    assert train(preset.name, out, resume=True, source=Emoji(folder)).info["preset"] == preset.name


def test_data_and_preset_belong_together(preset, folder, tmp_path):
    with pytest.raises(UserError, match="'emoji' learns from emoji: give the folder with the packages with --data"):
        TINYWORLD.material(presets.get_preset("emoji"), None)
    for name, source, message in (
        ("smoke", Emoji(folder), "'smoke' does not learn from emoji: choose --preset emoji"),
        ("emoji", Emoji(tmp_path), "has no package emoji-datasource-google"),
    ):
        with pytest.raises(UserError, match=message):
            train(name, tmp_path / "out", source=source)
        assert not (tmp_path / "out").exists()
