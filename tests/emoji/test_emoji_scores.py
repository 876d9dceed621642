"""Scores on emoji: who is asked, what counts as right, and the simpler answers beside them."""

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.language import NEW_WORDS
from tinyflamingo.emoji import scores
from tinyflamingo.emoji.packages import read_concepts, split
from tinyflamingo.evaluation.run import format_report


@pytest.fixture(scope="module")
def sides(folder):
    return split(read_concepts(folder, 32))


@pytest.fixture(scope="module")
def drawn(start, sides):
    return scores.Drawn(start, sides[1], np.random.default_rng(0))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(scores, "TASKS", {"2-way 1-shot": (2, 1), "3-way 3-shot": (3, 3)})
    monkeypatch.setattr(scores, "OPTIONS", 5)


def test_the_third_artist_is_asked_and_the_two_others_are_the_examples(start, drawn, sides):
    prompt = scores.ask(start, drawn, np.array([3, 1]), np.random.default_rng(0), 3)
    np.testing.assert_array_equal(prompt.queries, sides[1].pictures[[3, 1], 2])
    for way, concept in enumerate((3, 1)):
        two = {sides[1].pictures[concept, a].tobytes() for a in range(2)}
        shown = [picture.tobytes() for picture in prompt.examples[way]]
        assert two == set(shown[:2]) and shown[2] not in two
        assert sides[1].pictures[concept, 2].tobytes() not in shown
    assert prompt.answers.shape == (4, 2) and set(w.rstrip(".") for w in prompt.words) <= set(NEW_WORDS)


def test_every_concept_is_asked_and_enough(start, drawn, monkeypatch):
    asked = []
    whole = scores.ask

    def noted(model, drawn, concepts, rng, shots):
        asked.append(concepts.tolist())
        return whole(model, drawn, concepts, rng, shots)

    monkeypatch.setattr(scores, "ask", noted)
    rows = scores.few_shot_scores(start, drawn, 10)
    assert rows["2-way 1-shot"]["n"] == 16 and rows["3-way 3-shot"]["n"] == 18  # 8 concepts, two rounds
    flat = [c for group in asked for c in group]
    assert set(flat) == set(range(8)) and all(len(set(group)) == len(group) for group in asked)


def test_a_model_that_always_prefers_the_right_word_has_every_point(start, drawn, monkeypatch):
    monkeypatch.setattr(scores, "rank", lambda model, rows, words, *_: [np.eye(len(w))[i] for i, w in enumerate(words)])
    assert all(row["score"] == row["ensemble"] == 1 for row in scores.few_shot_scores(start, drawn, 8).values())
    monkeypatch.setattr(scores, "rank", lambda model, rows, words, *_: [np.arange(len(w)) for w in words])
    assert scores.few_shot_scores(start, drawn, 8)["2-way 1-shot"]["score"] == 0.5


def test_the_ensemble_hears_all_prompts(start, drawn, monkeypatch):
    calls = iter(range(100))

    def first_is_wrong(model, rows, words, *_):
        right = np.eye(len(words))
        return list(-right if next(calls) % scores.ORDERS == 0 else right)

    monkeypatch.setattr(scores, "rank", first_is_wrong)
    with ops.use_workers(1):  # the calls in their order
        row = scores.few_shot_scores(start, drawn, 8)["2-way 1-shot"]
    assert row["score"] == 0 and row["ensemble"] == 1


def test_simpler_answers():
    support = np.array([[[3.0, 0.1]], [[0.1, 0.2]]])
    assert scores._nearest_mean(support, np.array([[1.0, 0.0], [1.0, 2.0]])).tolist() == [0, 1]
    pixels = np.zeros((2, 2, 4, 4, 3), np.uint8)
    pixels[1, 1] = 200
    queries = np.stack([np.full((4, 4, 3), 190, np.uint8), np.full((4, 4, 3), 20, np.uint8)])
    assert scores._nearest_pixels(pixels, queries).tolist() == [1, 0]


def test_names_are_asked_of_known_concepts_by_the_new_artist(start, sides):
    rows = scores.name_scores(start, sides[0], 6)
    assert [row["n"] for row in rows.values()] == [6, 6]
    assert all(0 <= row["score"] <= 1 and "class_means" not in row for row in rows.values())


def test_the_report_prints_each_score_beside_the_others(start, drawn, sides):
    rows = scores.few_shot_scores(start, drawn, 8) | scores.name_scores(start, sides[0], 4)
    lines = format_report({"tasks": {}, "emoji": rows}).splitlines()
    assert "six prompts   class means   raw pixels" in lines[0]
    assert lines[1].startswith("2-way 1-shot") and f"{rows['2-way 1-shot']['class_means']:.3f}" in lines[1]
    assert len(lines) == 5
