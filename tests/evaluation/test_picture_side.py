"""Evaluations draw pictures with the side of the model; models without TinyWorld get no score."""

from dataclasses import replace

import numpy as np
import pytest

from tinyflamingo import demo
from tinyflamingo.data.tinyworld import scenes
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation import run, suite, suite_run, words
from tinyflamingo.evaluation.few_shot import draw_instance
from tinyflamingo.studies import ablations, attention, quadratic
from tinyflamingo.studies.ablation_rows import rows_of
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

SIDE = 48


@pytest.fixture
def model(tokenizer):
    preset = get_preset("smoke")
    made = untrained(
        np.random.default_rng(0), replace(preset.config, vision=replace(preset.config.vision, side=SIDE)), tokenizer
    )
    made.info = {"preset": "smoke"}
    return made


@pytest.fixture
def drawn(monkeypatch):
    """The sides of all pictures and frames that TinyWorld draws."""
    sides, draw = set(), scenes.draw
    monkeypatch.setattr(
        scenes, "draw", lambda marks, background, rng, side: sides.add(side) or draw(marks, background, rng, side)
    )
    return sides


def suite_specialist(model):
    task = suite.TASKS["captions"]
    instance = draw_instance(model, task, np.random.default_rng(0), (0,), 1, 1)
    suite_run.whole_data(model, task, [instance], (0,), np.random.default_rng(0))


EVALUATIONS = {
    "evaluate": lambda model, path: run.evaluate(model, 1),
    "suite": lambda model, path: [
        draw_instance(model, task, np.random.default_rng(0), (0, 0, 0), 1, 1) for task in suite.TASKS.values()
    ],
    "words": lambda model, path: words.measure(model, words.Words(2, 1), np.random.default_rng(0), 2),
    "specialist": lambda model, path: suite_specialist(model),
    "demo": lambda model, path: demo.run_demo(model, path / "demo.png"),
    "attention": lambda model, path: attention.attention(model, path / "a.json"),
    "quadratic": lambda model, path: quadratic.labelled_clips(model, np.random.default_rng(0), 2, 2),
    "ablations": lambda model, path: ablations.score(model, 0, 1),
    "ablations, fresh encoder": lambda model, path: ablations.frozen_parts(
        replace(rows_of(model.config)["baseline"], fresh=("vision",)), model, ablations.preset_of(model), 0, 1
    ),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_pictures_have_the_side_of_the_model(model, drawn, tmp_path, monkeypatch, name):
    monkeypatch.setattr(suite_run, "WHOLE_SET", 4)
    monkeypatch.setattr(
        suite_run, "whole", lambda rng, train, test, model: suite_run.prototype(rng, train, test, model)
    )
    EVALUATIONS[name](model, tmp_path)
    assert drawn == {SIDE}


OWN = {"data": {"path": "my/flags", "mix": 1.0}, "preset": "smoke"}
ELSEWHERE = [
    (OWN, "trained on my/flags alone.*held-out records are in metrics.json.*--mix below 1"),
    ({"preset": "omniglot"}, "trained on handwriting.*evaluate --task omniglot --runs ZIP"),
]


@pytest.mark.parametrize("info, message", ELSEWHERE)
@pytest.mark.parametrize("name", ["evaluate", "run_suite", "demo"])
def test_a_model_that_never_saw_tinyworld_is_refused(model, tmp_path, info, message, name):
    model.info = info
    commands = {
        "evaluate": lambda: run.evaluate(model, 1),
        "run_suite": lambda: suite_run.run_suite(model, quick=True),
        "demo": lambda: demo.run_demo(model, tmp_path / "demo.png"),
    }
    with pytest.raises(UserError, match=message) as error:
        commands[name]()
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "info", [{}, {"preset": "smoke"}, {"preset": "of my own"}, {"data": {"path": "a", "mix": 0.9}}]
)
def test_a_model_that_may_have_seen_tinyworld_is_scored(model, info):
    model.info = info
    assert set(run.evaluate(model, 1, only=["caption"])["tasks"]) == {"caption"}
