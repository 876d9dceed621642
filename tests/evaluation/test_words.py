"""Invented words: prompts that hold all information for their answers, words of no training text, rising curves."""

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import KNOWN, content
from tinyflamingo.data.tinyworld.shapes import UNNAMED
from tinyflamingo.evaluation import words
from tinyflamingo.evaluation.words import CURVES, UNSEEN, Words, episode, measure


def shown(scenes, prompt):
    """The things on a prompt's pictures, by the word that follows each, and the thing of the query."""
    by_word = {}
    for medium, word in zip(prompt[:-1:2], prompt[1::2], strict=True):
        by_word.setdefault(word, []).append(scenes[medium.index].things[0].kind)
    return by_word, scenes[prompt[-1].index].things[0].kind


@pytest.mark.parametrize("name", CURVES)
def test_the_answer_follows_from_the_prompt_alone(name):
    measurement = CURVES[name][0]
    rng, rules = split_rng("validation", 3), measurement.rules
    for _ in range(30):
        scenes = []
        query = episode(rng, measurement, scenes)
        prompt, answer = query.prompt, query.answer
        by_word, query = shown(scenes, prompt)
        assert [len(group) for group in by_word.values()] == [measurement.shots] * measurement.ways
        assert {word.rstrip(".") for word in by_word} <= set(say.NEW_WORDS)
        fits = {word for word, group in by_word.items() if any(fit(query, thing, rules) for thing in group)}
        assert answer in fits and (len(rules) > 1 or fits == {answer})


def fit(query, thing, rules):
    """True if one of the rules puts both things into one class."""
    same = {"shape": query[0] == thing[0], "color": query[1] == thing[1], "thing": query == thing}
    return any(same[rule] for rule in rules)


def test_no_shot_has_the_description_of_the_query():
    """With 32 shots of one thing and 27 descriptions, some shots would have it by chance."""
    for seed in range(5):
        scenes = []
        prompt = episode(np.random.default_rng(seed), Words(2, 32, rules=("thing",)), scenes).prompt
        *shots, query = [content(scenes[medium.index]) for medium in prompt[::2]]
        assert len(shots) == 64 and query not in shots


def test_no_training_stage_draws_unseen_shapes():
    assert {shape for shape, _ in UNSEEN} == set(UNNAMED) and not set(UNSEEN) & set(KNOWN)


def test_a_score_counts_exact_words(monkeypatch):
    decoded = []

    def first_word(model, prompts, features):
        decoded.extend(prompts)
        return [prompt[1] for prompt in prompts]

    monkeypatch.setattr(words, "decode_batch", first_word)
    score = measure(tinyflamingo.load(), Words(ways=2, shots=1), np.random.default_rng(0), 40)
    assert len(decoded) == score["n"] == 40 and 0.2 < score["score"] < 0.8


@pytest.mark.parametrize(
    ("scores", "rises"), [({"1": 0.9, "2": 0.95, "16": 0.945}, True), ({"1": 0.9, "2": 0.95, "16": 0.93}, False)]
)
def test_a_curve_may_fall_by_a_hundredth(scores, rises):
    assert words.means_rise({k: {"score": v} for k, v in scores.items()}) is rises
