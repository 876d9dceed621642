"""Specialists: each learns simple questions from few examples, and says what it could not know honestly."""

import dataclasses

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, draw_clip, draw_scene, sample_clip, sample_single
from tinyflamingo.evaluation import specialists
from tinyflamingo.evaluation.metrics import auc, exact_match
from tinyflamingo.evaluation.slots import Slots, question_words
from tinyflamingo.evaluation.specialists import SPECIALISTS, Examples
from tinyflamingo.model.flamingo import encode_media

SMALL = dataclasses.replace(specialists.SHOTS, head_steps=80, frames=256)


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(specialists, "WHOLE", SMALL)
    monkeypatch.setattr(specialists.finetuned, "__defaults__", (SMALL,))


def pictures(model, seed, n, questions, scenes=None):
    """Single things, and the questions in turn; "" asks for the caption."""
    rng = np.random.default_rng(seed)
    scenes = scenes or [sample_single(rng) for _ in range(n)]
    names = [questions[i % len(questions)] for i in range(n)]
    pixels = np.stack([draw_scene(rng, scene) for scene in scenes])[:, None]
    answers = [say.questions(s)[q] if q else say.caption(s) for s, q in zip(scenes, names, strict=True)]
    asked = [say.QUESTIONS.get(name, "") for name in names]
    return Examples(encode_media(model.frozen, pixels, model.config), asked, answers, pixels)


def run(name, train, test, model, candidates=None):
    candidates = candidates or [()] * len(test.answers)
    return SPECIALISTS[name](np.random.default_rng(5), train, test, candidates, model)


def hits(predictions, test):
    return exact_match(predictions, [(a,) for a in test.answers]).mean()


@pytest.mark.parametrize("name", SPECIALISTS)
def test_each_learns_the_colour_from_32_pictures(model, name):
    train, test = pictures(model, 1, 32, ["color"]), pictures(model, 2, 100, ["color"])
    found = run(name, train, test, model)
    assert hits(found.predictions, test) > 0.22  # chance is 1/8
    assert found.scores == [[]] * 100 and all(type(p) is str for p in found.predictions)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_each_tells_apart_what_is_asked(model, name):
    train = pictures(model, 1, 48, ["color", "position"])
    test = pictures(model, 2, 80, ["color", "position"])
    found = run(name, train, test, model).predictions
    colours = {f"{c}." for c in COLOUR_NAMES}
    assert (
        np.mean([(p in colours) == (q == say.QUESTIONS["color"]) for p, q in zip(found, test.questions, strict=True)])
        > 0.9
    )
    assert hits(found, test) > 0.22  # the best guess without looking is right once in eight


@pytest.mark.parametrize("name", SPECIALISTS)
def test_candidates_are_ranked_and_their_scores_make_a_curve(model, name):
    rng = np.random.default_rng(3)
    scenes = [sample_single(rng, ((("circle", "red"),), (("star", "blue"),))[i % 2]) for i in range(60)]
    both = pictures(model, 4, 60, [""], scenes)
    labels = np.arange(60) % 2 == 0
    texts = ["yes." if x else "no." for x in labels]
    train, test = ([x[part] for x in both[:2]] for part in (slice(0, 20), slice(20, 60)))
    train = Examples(both.features[:20], both.questions[:20], texts[:20], both.pixels[:20])
    test = Examples(both.features[20:], both.questions[20:], texts[20:], both.pixels[20:])
    found = run(name, train, test, model, [("yes.", "no.", "perhaps so.")] * 40)
    scores = np.array(found.scores)
    assert hits(found.predictions, test) > 0.7 and scores.shape == (40, 3)
    assert (scores[:, 2] < scores[:, :2].max(axis=1)).all()  # no example ever said it
    assert auc(scores[:, 0] - scores[:, 1], labels[20:]) > 0.85


@pytest.mark.parametrize("name", ["linear", "finetuned", "whole"])
def test_captions_that_no_example_had_are_put_together(model, name):
    train, test = pictures(model, 1, 96, [""]), pictures(model, 2, 150, [""])
    found = run(name, train, test, model).predictions
    new = [i for i, a in enumerate(test.answers) if a not in train.answers]
    assert any(found[i] == test.answers[i] for i in new)


def test_videos_too(model):
    rng = np.random.default_rng(1)
    clips = [sample_clip(rng, action=("grows", "moves left")[i % 2]) for i in range(48)]
    pixels = np.stack([draw_clip(rng, clip) for clip in clips])
    features = encode_media(model.frozen, pixels, model.config)
    answers = [say.questions(c)["action"] for c in clips]
    train, test = (
        Examples(features[part], [""] * 24, answers[part], pixels[part]) for part in (slice(0, 24), slice(24, 48))
    )
    for name in ("prototype", "linear", "finetuned"):
        assert hits(run(name, train, test, model).predictions, test) > 0.7, name


def test_fine_tuning_leaves_the_models_own_encoder_alone_and_is_the_same_twice(model):
    before = {k: v.copy() for k, v in model.frozen["vision"]["final"].items()}
    train, test = pictures(model, 1, 16, ["shape"]), pictures(model, 2, 10, ["shape"])
    one, two = (run("finetuned", train, test, model) for _ in range(2))
    assert one == two
    assert all((model.frozen["vision"]["final"][k] == v).all() for k, v in before.items())
    with pytest.raises(ValueError, match="need pixels"):
        run("finetuned", train._replace(pixels=None), test, model)


def test_slots():
    slots = Slots(["a red circle.", "two stars."])
    assert slots.length == 4 and slots.words[0] == ""
    numbers = slots.targets(["two stars.", "a red circle."])
    assert [[slots.words[i] for i in row] for row in numbers] == [
        ["two", "stars.", "", ""],
        ["a", "red", "circle.", ""],
    ]
    log_probs = np.log(np.full((4, len(slots.words)), 1e-3))
    log_probs[np.arange(4), numbers[0]] = -0.1
    assert slots.text(log_probs) == "two stars."
    assert slots.score(log_probs, "two stars.") == pytest.approx(-0.4)
    long = "two stars. and a moon with a hat."
    assert slots.score(log_probs, "two moons.") < slots.score(log_probs, "a stars.") < -0.4
    assert slots.score(log_probs, long) < slots.score(log_probs, "two stars. and")


def test_question_words_have_length_1_and_leave_out_what_all_share():
    train = ["what color is it?", "what shape is it?", "what size is it?"]
    table = question_words(train, [*train, "what is love?", ""])
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-6)
    likeness = table @ table.T
    assert (likeness[:3, :3][~np.eye(3, dtype=bool)] < 0.3).all()
    np.testing.assert_array_equal(table[3], table[4])  # nothing that would tell the training questions apart
    assert question_words(["", ""], ["", "x"]).shape == (2, 1)
