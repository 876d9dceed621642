"""Specialists: each learns simple questions from few examples, and gives unknown answers a low score."""

import dataclasses

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, draw_clip, draw_scene, sample_clip, sample_single
from tinyflamingo.evaluation import specialists
from tinyflamingo.evaluation.metrics import auc, exact_match
from tinyflamingo.evaluation.slots import Slots, log_softmax, question_words
from tinyflamingo.evaluation.specialists import Examples
from tinyflamingo.model.flamingo import encode_media

SPECIALISTS = ("prototype", "linear", "finetuned", "whole")
SMALL = dataclasses.replace(specialists.SHOTS, head_steps=80, frames=256)


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(specialists, "SHOTS", SMALL)
    monkeypatch.setattr(specialists, "WHOLE", SMALL)


def pictures(model, seed, n, questions, scenes=None):
    """Pictures of single things with the questions in turn; "" asks for the caption."""
    rng = np.random.default_rng(seed)
    scenes = scenes or [sample_single(rng) for _ in range(n)]
    names = [questions[i % len(questions)] for i in range(n)]
    pixels = np.stack([draw_scene(rng, scene) for scene in scenes])[:, None]
    answers = [say.questions(s)[q] if q else say.caption(s) for s, q in zip(scenes, names, strict=True)]
    asked = [say.QUESTIONS.get(name, "") for name in names]
    return Examples(encode_media(model.frozen, pixels, model.config), asked, answers, [()] * n, pixels)


def run(name, train, test, model):
    return getattr(specialists, name)(np.random.default_rng(5), train, test, model)


def hits(predictions, test):
    return exact_match(predictions, [(a,) for a in test.answers]).mean()


@pytest.mark.parametrize("name", SPECIALISTS)
def test_each_learns_the_colour_from_32_pictures(model, name):
    train, test = pictures(model, 1, 32, ["color"]), pictures(model, 2, 100, ["color"])
    answers = run(name, train, test, model)
    assert hits(answers.predictions, test) > 0.22  # chance is 1/8
    assert answers.scores == [[]] * 100 and all(type(p) is str for p in answers.predictions)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_each_distinguishes_two_questions(model, name):
    train = pictures(model, 1, 48, ["color", "position"])
    test = pictures(model, 2, 80, ["color", "position"])
    predictions = run(name, train, test, model).predictions
    colours = {f"{c}." for c in COLOUR_NAMES}
    pairs = zip(predictions, test.questions, strict=True)
    assert np.mean([(p in colours) == (q == say.QUESTIONS["color"]) for p, q in pairs]) > 0.9
    assert hits(predictions, test) > 0.22  # the best guess without the picture is right once in eight


@pytest.mark.parametrize("name", SPECIALISTS)
def test_candidates_are_ranked_and_their_scores_give_an_auc(model, name):
    rng = np.random.default_rng(3)
    scenes = [sample_single(rng, ((("circle", "red"),), (("star", "blue"),))[i % 2]) for i in range(60)]
    both = pictures(model, 4, 60, [""], scenes)
    labels = np.arange(60) % 2 == 0
    texts = ["yes." if x else "no." for x in labels]
    both = both._replace(answers=texts, candidates=[("yes.", "no.", "perhaps so.")] * 60)
    train, test = (Examples(*(x[part] for x in both)) for part in (slice(0, 20), slice(20, 60)))
    answers = run(name, train, test, model)
    scores = np.array(answers.scores)
    assert hits(answers.predictions, test) > 0.7 and scores.shape == (40, 3)
    assert (scores[:, 2] < scores[:, :2].max(axis=1)).all()  # no example has this answer
    assert auc(scores[:, 0] - scores[:, 1], labels[20:]) > 0.85


@pytest.mark.parametrize("name", ["linear", "finetuned", "whole"])
def test_captions_that_no_example_had_are_put_together(model, name):
    train, test = pictures(model, 1, 96, [""]), pictures(model, 2, 150, [""])
    predictions = run(name, train, test, model).predictions
    new = [i for i, a in enumerate(test.answers) if a not in train.answers]
    assert any(predictions[i] == test.answers[i] for i in new)


def test_videos_too(model):
    rng = np.random.default_rng(1)
    clips = [sample_clip(rng, action=("grows", "moves left")[i % 2]) for i in range(48)]
    pixels = np.stack([draw_clip(rng, clip) for clip in clips])
    features = encode_media(model.frozen, pixels, model.config)
    answers = [say.questions(c)["action"] for c in clips]
    halves = slice(0, 24), slice(24, 48)
    train, test = (Examples(features[i], [""] * 24, answers[i], [()] * 24, pixels[i]) for i in halves)
    for name in ("prototype", "linear", "finetuned"):
        assert hits(run(name, train, test, model).predictions, test) > 0.7, name


def test_fine_tuning_does_not_change_the_model_and_is_the_same_twice(model):
    before = {k: v.copy() for k, v in model.frozen["vision"]["final"].items()}
    train, test = pictures(model, 1, 16, ["shape"]), pictures(model, 2, 10, ["shape"])
    one, two = (run("finetuned", train, test, model) for _ in range(2))
    assert one == two
    assert all((model.frozen["vision"]["final"][k] == v).all() for k, v in before.items())
    with pytest.raises(ValueError, match="need pixels"):
        run("finetuned", train._replace(pixels=None), test, model)


def test_log_softmax_of_large_logits():
    np.testing.assert_allclose(log_softmax(np.array([[1000.0, 0.0], [2.0, 2.0]])), [[0, -1000], [-np.log(2)] * 2])


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


def test_question_words_have_length_1_and_omit_the_words_that_all_questions_share():
    train = ["what color is it?", "what shape is it?", "what size is it?"]
    table = question_words(train, [*train, "what is love?", ""])
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-6)
    similarity = table @ table.T
    assert (similarity[:3, :3][~np.eye(3, dtype=bool)] < 0.3).all()
    np.testing.assert_array_equal(table[3], table[4])  # no word that distinguishes the training questions
    assert question_words(["", ""], ["", "x"]).shape == (2, 1)


def test_the_columns_of_question_words_are_in_the_order_of_the_training_questions():
    """Not in that of a set, which differs between two runs: the columns meet random weights."""
    table = question_words(["a b", "c d"], ["a", "b", "c", "d"])
    assert table[:, :-1].argmax(axis=1).tolist() == [0, 1, 4, 5]  # after a, b: the pair, and the whole question


def test_coordinates_have_as_many_dimensions_as_different_examples(rng):
    """Equal examples give eigenvalues of 0 but for rounding; those must not become coordinates, at any scale."""
    different, asked = rng.standard_normal((3, 20)).astype(np.float32), np.ones((9, 1), np.float32)
    for scale in (1e-3, 1.0, 1e3):
        features = np.float32(scale) * different[np.arange(9) % 3]
        x, queries = specialists.coordinates((features, asked), (features[:4], asked[:4]))
        assert np.count_nonzero(np.abs(x).max(axis=0)) == 3
        np.testing.assert_allclose(x @ x.T, features @ features.T, rtol=1e-3, atol=1e-3 * scale**2)
        np.testing.assert_allclose(queries, x[:4], rtol=1e-3, atol=1e-3 * scale)
