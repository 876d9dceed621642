"""Invented words: prompts that can be answered from themselves, names that no training text holds, curves that rise."""

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import KNOWN
from tinyflamingo.data.tinyworld.shapes import UNNAMED
from tinyflamingo.evaluation import words
from tinyflamingo.evaluation.words import CURVE, UNSEEN, Words, _episode, measure


def shown(scenes, prompt):
    """Things of a prompt's pictures, by the word that follows them, and the thing of the query."""
    by_word = {}
    for medium, word in zip(prompt[:-1:2], prompt[1::2], strict=True):
        by_word.setdefault(word, []).append(scenes[medium.index].things[0].kind)
    return by_word, scenes[prompt[-1].index].things[0].kind


@pytest.mark.parametrize("name", CURVE)
def test_the_answer_follows_from_the_prompt_alone(name):
    ways, things, rules, shots = CURVE[name]
    rng = split_rng("validation", 3)
    for _ in range(30):
        scenes = []
        prompt, answer = _episode(rng, Words(ways, shots[0], things, rules), scenes)
        by_word, query = shown(scenes, prompt)
        assert len(by_word) == ways and all(len(group) == shots[0] for group in by_word.values())
        assert {word.rstrip(".") for word in by_word} <= set(say.NEW_WORDS)
        fits = {word for word, group in by_word.items() if any(fit(query, thing, rules) for thing in group)}
        assert answer in fits and (len(rules) > 1 or fits == {answer})


def fit(query, thing, rules):
    """Are two things of one class, by one of the rules?"""
    same = {"shape": query[0] == thing[0], "color": query[1] == thing[1], "thing": query == thing}
    return any(same[rule] for rule in rules)


def test_unseen_shapes_are_drawn_by_no_training_stage():
    assert {shape for shape, _ in UNSEEN} == set(UNNAMED) and not set(UNSEEN) & set(KNOWN)


def test_a_score_counts_exact_words(monkeypatch):
    told = []

    def say_the_first(model, prompts, features):
        told.extend(prompts)
        return [prompt[1] for prompt in prompts]

    monkeypatch.setattr(words, "decode_batch", say_the_first)
    score = measure(tinyflamingo.load(), Words(ways=2, shots=1), np.random.default_rng(0), 40)
    assert len(told) == score["n"] == 40 and 0.2 < score["score"] < 0.8


@pytest.mark.parametrize(
    ("scores", "rises"), [({"1": 0.9, "2": 0.95, "16": 0.945}, True), ({"1": 0.9, "2": 0.95, "16": 0.93}, False)]
)
def test_a_curve_may_fall_by_a_hundredth(scores, rises):
    assert words.means_rise({k: {"score": v} for k, v in scores.items()}) is rises
