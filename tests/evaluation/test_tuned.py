"""Flamingo itself, fine-tuned on the shots of a task."""

import dataclasses

import numpy as np
import pytest

import tinyflamingo
from tinyflamingo.evaluation import few_shot
from tinyflamingo.evaluation import tuned as tuned_module
from tinyflamingo.evaluation.suite import SUPPORT, TASKS
from tinyflamingo.evaluation.tuned import Recipe, tuned
from tinyflamingo.ops.tree import flatten

SMALL = Recipe(steps=40)


@pytest.fixture(scope="module")
def model():
    return tinyflamingo.load()


@pytest.fixture(scope="module")
def instance(model):
    """32 shots and 16 queries of a task that training has no document of: three names for ten digits."""
    instance = few_shot.draw_instance(model, TASKS["digits"], np.random.default_rng(3), (), 32, 16)
    return dataclasses.replace(instance, **{part: _renamed(getattr(instance, part)) for part in ("shots", "queries")})


def _renamed(examples):
    names = {"zero.": "owl.", "one.": "bear."}
    texts = [names.get(e.answers[0], "pond.") for e in examples]
    return [dataclasses.replace(e, asked=("",), answers=(text,)) for e, text in zip(examples, texts, strict=True)]


def share_right(answers, instance):
    return np.mean([text == e.answers[0] for (text, _), e in zip(answers, instance.queries, strict=True)])


def test_it_learns_the_task_from_its_shots(model, instance):
    before = flatten(model.params).copy()
    untaught = few_shot.answer(model, instance.queries, [], instance.visual[:0], instance.query_visual)
    answers = tuned(model, instance, np.random.default_rng(0), SMALL)
    assert share_right(answers, instance) > 0.7 > share_right(untaught, instance)
    assert np.array_equal(flatten(model.params), before), "the model itself was changed"


def test_the_same_generator_gives_the_same_answers(model, instance):
    runs = [tuned(model, instance, np.random.default_rng(1), Recipe(steps=3)) for _ in range(2)]
    assert runs[0] == runs[1]


def test_no_query_is_learned(model, instance):
    """Other queries change nothing: the answers to the first queries stay."""
    fewer = dataclasses.replace(
        instance,
        queries=instance.queries[:4],
        **{name: getattr(instance, name)[:36] for name in ("pixels", "features", "visual")},
    )
    all_answers, first = (tuned(model, i, np.random.default_rng(2), Recipe(steps=3)) for i in (instance, fewer))
    assert [text for text, _ in first] == [text for text, _ in all_answers[:4]]


def test_questions_are_not_learned(model):
    """As in training: only answers have a loss."""
    shot = few_shot.draw_instance(model, TASKS["dialogue"], np.random.default_rng(1), (), 1, 1).shots[0]
    items = tuned_module.document(shot, 7)
    assert items[0] == 7 and [item.text for item in items[1::2]] == list(shot.asked)
    assert items[2::2] == list(shot.answers) and len(shot.asked) > 1


def test_candidates_are_ranked(model):
    task = TASKS["choice"]
    rng = np.random.default_rng(5)
    instance = few_shot.draw_instance(model, task, rng, (), 4, 2)
    for (text, scores), query in zip(tuned(model, instance, rng, Recipe(steps=1)), instance.queries, strict=True):
        assert text in query.candidates and len(scores) == len(query.candidates)
    assert task.side_of(instance.shots[0]) == SUPPORT
