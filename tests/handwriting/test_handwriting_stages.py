"""The stages on handwriting: the contents of batches, no held-out alphabet, and a whole run."""

import dataclasses
import json
import math

import numpy as np
import pytest
from omniglot_files import make_characters, write_background

from tinyflamingo.checkpoint import load_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.handwriting.omniglot import DRAWERS, read_runs
from tinyflamingo.handwriting.one_shot import validator
from tinyflamingo.handwriting.stages import Handwriting
from tinyflamingo.training import presets
from tinyflamingo.training.presets import Dataset, HandwritingRecipe, get_preset
from tinyflamingo.training.run import TINYWORLD, train
from tinyflamingo.training.state import read_log
from tinyflamingo.variants.registry import untrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(6)
    first, second = make_characters(rng, "Aleph", 3), make_characters(rng, "Beth", 4)
    return write_background(tmp_path_factory.mktemp("omniglot"), first, second + make_characters(rng, "Gimel", 20))


@pytest.fixture(scope="module")
def preset():
    """The smoke preset on handwriting, with one alphabet held out."""
    smoke = get_preset("smoke")
    return dataclasses.replace(
        smoke,
        name="smoke-omniglot",
        contrastive=dataclasses.replace(smoke.contrastive, steps=3),
        language=dataclasses.replace(smoke.language, steps=3),
        flamingo=dataclasses.replace(smoke.flamingo, steps=3, datasets=(Dataset("pages", 3, 96, 1.0),)),
        handwriting=HandwritingRecipe(held_out=("Gimel",), ways=(2, 4), queries=3),
        test_queries=20,
    )


@pytest.fixture(scope="module")
def stages(preset, folder):
    return Handwriting(folder).material(preset, None)[2]


def test_two_people_draw_every_class_of_a_batch(stages, preset, tokenizer):
    stage = stages[0](preset, np.random.default_rng(0), tokenizer, {})
    pictures, classes = stage.batch(np.random.default_rng(1))
    n, side = preset.contrastive.batch // 2, preset.config.vision.side
    assert pictures.shape == (2, n, side, side, 3) and pictures.dtype == np.uint8
    assert len(set(classes)) == n and classes.max() < 7 * 8
    assert not (pictures[0] == pictures[1]).all(axis=(1, 2, 3)).any()


def test_stage_one_learns(stages, preset, tokenizer):
    stage = stages[0](preset, np.random.default_rng(0), tokenizer, {})
    losses = []
    for step in range(30):
        gradient, info = stage.gradient(np.random.default_rng([1, step]), step)
        stage.optimiser.step(gradient, step + 80, 200)
        losses.append(info["loss"])
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert set(stage.result()) == {"vision", "feature_mean", "feature_scale", "contrastive"}


def test_a_gradient_writes_no_parameter(stages, preset, tokenizer):
    rng = np.random.default_rng(0)
    frozen = untrained(rng, preset.config, tokenizer).frozen
    for make in stages:
        stage = make(preset, rng, tokenizer, frozen)
        before = stage.optimiser.vector.tobytes()
        for step in range(2):
            assert stage.gradient(np.random.default_rng(step), step)[0].any()
        assert stage.optimiser.vector.tobytes() == before


def test_a_pool_holds_every_drawing_in_every_turn(stages, preset, tokenizer):
    rng = np.random.default_rng(0)
    stage = stages[2](preset, rng, tokenizer, untrained(rng, preset.config, tokenizer).frozen)
    assert len(stage.pool.pictures) == len(stage.features.pictures) == 7 * 8 * DRAWERS
    first = stage.pool.pictures[:DRAWERS].astype(int).mean(axis=0)  # one character, upright
    other = stage.pool.pictures[DRAWERS : 2 * DRAWERS].astype(int).mean(axis=0)  # turned by a quarter
    smallest = min(np.abs(first - np.rot90(other, k)).mean() for k in (1, 3))
    assert smallest < 0.7 * np.abs(first - other).mean()


def test_an_episode_is_about_one_alphabet_in_one_turn(stages, preset, tokenizer):
    rng = np.random.default_rng(0)
    stage = stages[2](preset, rng, tokenizer, untrained(rng, preset.config, tokenizer).frozen)
    stage.episodes = dataclasses.replace(stage.episodes, mixed=0.0)
    for ways in (2, 3, 4):
        classes = stage.classes(rng, ways)
        assert len(set(classes % 8)) == 1 and len(classes) >= ways
        assert set(classes // 8) in ({0, 1, 2}, {3, 4, 5, 6})
    assert len(stage.classes(rng, 5)) == 7 * 8  # no alphabet has 5 characters


def test_a_run_from_files_to_validation(preset, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, preset.name, preset)
    out = tmp_path / "run"
    evaluate = validator(preset.handwriting, folder, out)
    model = train(preset.name, out, evaluate=evaluate, source=Handwriting(folder))
    task = json.loads((out / "metrics.json").read_text())["tasks"]["omniglot"]
    assert task["n"] == 20 and 0 <= task["ci95"][0] <= task["score"] <= task["ci95"][1] <= 1
    assert model.info["command"] == "python -m tinyflamingo train --preset smoke-omniglot --data DIR"
    assert {r["stage"] for r in read_log(out)} == {"contrastive", "language", "flamingo"}
    assert all(math.isfinite(r["loss"]) for r in read_log(out))
    assert [len(run.support) for run in read_runs(out / "validation_runs.zip")] == [20]
    assert load_checkpoint(out / "checkpoint").info["preset"] == preset.name


def test_without_held_out_alphabets_the_report_is_empty(folder, tmp_path):
    report = validator(HandwritingRecipe(), folder, tmp_path)(None, 20, 0)
    assert report == {"tasks": {}} and not any(tmp_path.iterdir())


def test_data_and_preset_belong_together(preset, folder, tmp_path):
    with pytest.raises(UserError, match="--data"):
        TINYWORLD.material(preset, None)
    for name, source, message in (
        ("omniglot", TINYWORLD, "'omniglot' learns from Omniglot: give the folder of Omniglot with --data"),
        ("smoke", Handwriting(folder), "'smoke' does not learn from Omniglot: choose --preset omniglot"),
        ("omniglot", Handwriting(tmp_path), "cannot find .*download"),
    ):
        with pytest.raises(UserError, match=message):
            train(name, tmp_path / "out", source=source)
        assert not (tmp_path / "out").exists()
