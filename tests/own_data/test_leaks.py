"""No stage and no score of training touches a record that is held out, however it is held out."""

import json
import shutil

import numpy as np
import pytest
from own_files import lines
from PIL import Image

import tinyflamingo
from tinyflamingo.checkpoint import save_checkpoint
from tinyflamingo.data.held_out import held_out, joined
from tinyflamingo.data.store import Stored, prepare
from tinyflamingo.errors import UserError
from tinyflamingo.own_data.options import FOLDER, TEST, OwnData, OwnSource
from tinyflamingo.own_data.questions import Side, questions, unseen
from tinyflamingo.own_data.scores import own_report, own_sides, run_sides
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

CLASSES, ARTISTS = 30, 6


def noise(i):
    return np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A picture of each of 30 classes by each of 6 artists. Artists 4 and 5 share one picture."""
    root, rows = tmp_path_factory.mktemp("source"), []
    for i in range(CLASSES):
        for a in range(ARTISTS):
            Image.fromarray(noise(1000 if (i, a) in ((0, 4), (1, 5)) else i * ARTISTS + a)).save(root / f"{i}-{a}.png")
            rows.append({"file": f"{i}-{a}.png", "text": f"word{i} by {a}", "class": i, "group": f"artist {a}"})
    lines(root / "captions.jsonl", rows)
    return root


def store_of(source, folder, by):
    return prepare(source, folder / FOLDER, 32, hold_out=by)


@pytest.mark.parametrize("by, share", [("picture", 1 / 20), ("group", 1 / 6), ("class", 5 / 30), ("nothing", 0)])
def test_what_is_held_out_is_held_out_as_a_whole(source, tmp_path, by, share):
    store = store_of(source, tmp_path, by)
    same = store.same_picture
    names = {"picture": same, "group": store.groups, "class": store.classes, "nothing": same}[by]
    held, training = set(names[store.held_out].tolist()), set(names[store.training].tolist())
    assert not held & training
    assert not set(same[store.held_out].tolist()) & set(same[store.training].tolist())
    assert share * len(store) <= len(store.held_out) <= max(2 * share, share + 0.1) * len(store)


def test_groups_that_share_a_picture_stay_together():
    pictures, named = np.array([0, 1, 2, 1, 4]), np.array([7, 7, 8, 8, -1])
    assert len(set(joined(pictures, named)[:4].tolist())) == 1 and joined(pictures, named)[4] == 4
    assert joined(np.arange(4), np.full(4, -1)).tolist() == [0, 1, 2, 3]


def test_too_few_groups_or_classes_are_one_line():
    none = np.full(10, -1)
    with pytest.raises(UserError, match="--hold-out group needs at least two groups"):
        held_out(np.arange(10), none, none, "group")
    with pytest.raises(UserError, match="--hold-out class needs at least 5 classes"):
        held_out(np.arange(10), none, np.arange(10) // 3, "class")


@pytest.mark.parametrize("by", ["picture", "group", "class"])
def test_no_stage_reads_a_record_that_is_held_out(source, tmp_path, monkeypatch, by):
    """Also not for its tokenizer, the standardisation of its features, or the gates."""
    store = store_of(source, tmp_path, by)
    own = OwnSource(OwnData("anywhere", mix=0.5, hold_out=by))
    opened, read = [], type(store).items
    monkeypatch.setattr(type(store), "items", lambda self, number: opened.append(number) or read(self, number))
    preset, tokenizer, stages = own.material(get_preset("smoke"), tmp_path)
    frozen = untrained(np.random.default_rng(0), preset.config, tokenizer).frozen
    for make in stages:
        rng = np.random.default_rng(1)
        stage = make(preset, rng, tokenizer, frozen)
        stage.prepare(rng)
        for step in range(6):
            stage.gradient(rng, step)
        if stage.name == "contrastive":
            stage.sample()
    assert len(set(opened)) > 50 and not set(opened) & set(store.held_out.tolist())


def test_a_test_set_is_asked_without_the_pictures_of_training(source, tmp_path):
    (tmp_path / "test").mkdir()
    Image.fromarray(noise(3)).save(tmp_path / "test/copy.png")  # a picture of training
    Image.fromarray(noise(5000)).save(tmp_path / "test/new.png")
    lines(tmp_path / "test/captions.jsonl", [{"file": f"{n}.png", "text": "word0 by 3"} for n in ("copy", "new")])
    own = OwnSource(OwnData(str(source), test=str(tmp_path / "test")))
    own.prepare(get_preset("smoke"), tmp_path / "run")
    training, asked = run_sides(tmp_path / "run")
    assert len(training.numbers) == CLASSES * ARTISTS and asked.store.folder == tmp_path / "run" / TEST
    assert asked.numbers.tolist() == [0, 1] and unseen(asked, training).numbers.tolist() == [1]
    own.clear(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_data_that_grew_are_asked_without_what_the_run_has_learned(source, tmp_path):
    """With more records others are held out. Those on which the run was trained are left out."""
    own = OwnSource(OwnData(str(source)))
    own.prepare(get_preset("smoke"), tmp_path / "run")
    trained = run_sides(tmp_path / "run")[0]
    grown = tmp_path / "grown"
    shutil.copytree(source, grown)
    rows = [json.loads(line) for line in (grown / "captions.jsonl").read_text().splitlines()]
    for i in range(40):
        Image.fromarray(noise(7000 + i)).save(grown / f"new{i}.png")
        rows.append({"file": f"new{i}.png", "text": f"new {i}"})
    lines(grown / "captions.jsonl", rows)
    model = tinyflamingo.load()
    model.info = {"data": {}}
    save_checkpoint(model, tmp_path / "run/checkpoint")
    with own_sides(model, tmp_path / "run", str(grown), None) as (training, asked, shown):
        fresh = unseen(asked, training, *shown)
        digests = {asked.store.frames(m).tobytes() for n in fresh.numbers for m in asked.store.items(n)[:1]}
        learned = {trained.store.frames(m).tobytes() for n in trained.numbers for m in trained.store.items(n)[:1]}
        assert 0 < len(fresh.numbers) < len(asked.numbers) and not digests & learned
        assert own_report(model, training, asked, shots=(), shown=shown)["left_out"] > 0


def test_questions_merge_the_texts_of_a_picture(tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    lines(tmp_path / "captions.jsonl", [{"file": "a.png", "text": text} for text in ("one.", "two.", "one.")])
    store = prepare(tmp_path, tmp_path / FOLDER, 32)
    (question,) = questions(Side(store, store.training))
    assert question.accepted == ("one.", "two.") and isinstance(question.medium, Stored) and question.asked == "Output:"
