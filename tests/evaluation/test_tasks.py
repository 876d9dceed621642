"""Every task has well-formed queries whose right answers agree with the pictures."""

import numpy as np
import pytest

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import Medium, split_rng
from tinyflamingo.data.tinyworld.scenes import ASKED, HELD_OUT, KNOWN, UNASKED, content
from tinyflamingo.evaluation import run
from tinyflamingo.evaluation.tasks import TASKS

N = 40


@pytest.fixture(params=TASKS)
def task(request):
    pool, queries = TASKS[request.param](np.random.default_rng(6), N)
    return request.param, pool, queries


def last_medium(query):
    return [item for item in query.prompt if isinstance(item, Medium)][-1]


def test_there_are_n_well_formed_queries(task):
    name, pool, queries = task
    assert len(queries) == (2 * N if name == "image_swap" else N)
    for query in queries:
        media = [item for item in query.prompt if isinstance(item, Medium)]
        assert media and query.prompt[0] == media[0]
        assert all(0 <= m.index < len(pool.clips if m.kind == "clip" else pool.scenes) for m in media)
        assert all(isinstance(item, Medium | str) for item in query.prompt)
        assert query.answer.endswith(".") and query.answer == query.answer.strip().lower()
        assert all(turn.startswith("Question: ") and turn.endswith(" Answer:") for turn in query.turns)
        text = " ".join(item for item in query.prompt if isinstance(item, str))
        assert query.answer not in text or name.startswith("few_shot")  # the prompt does not contain the answer
    assert len({len(q.turns) for q in queries}) == 1


def asked(words):
    """The name of a question; "" for the prompt of a caption."""
    return next((name for name in say.QUESTIONS if words == say.ask(name)), "")


def test_answers_agree_with_the_drawn_scene(task):
    name, pool, queries = task
    if name.startswith("few_shot"):
        return  # the answers are invented words; the next test checks them
    for query in queries:
        scene = pool.what(last_medium(query))
        if name == "yes_no":
            thing = say.thing_phrase(*scene.things[0].kind).split()
            claim = query.prompt[-1].removeprefix("Question: is it ").removesuffix("? Answer:").split()
            assert (query.answer == "yes.") == ({*claim} - {"a", "an"} <= {*thing}) and query.answer in ("yes.", "no.")
            continue
        question = asked([*query.prompt, *query.turns][-1])
        if not question:
            assert query.prompt[-1] == "Output:" and query.answer == say.caption(scene)
        elif question in ("place", "animal"):
            assert query.answer == say.knowledge(*scene.things[0].kind)[question]
        else:
            assert query.answer == say.questions(scene)[question]


@pytest.mark.parametrize("name", ["few_shot_2way", "few_shot_new_words"])
def test_few_shot_prompts_have_support_for_their_answer(name):
    pool, queries = TASKS[name](np.random.default_rng(6), N)
    words = say.TEXT_WORDS if name == "few_shot_2way" else say.NEW_WORDS
    for query in queries:
        *support, target = query.prompt
        shown = [pool.what(m).things[0].kind for m in support[::2]]
        named = [w.removesuffix(".") for w in support[1::2]]
        assert len(shown) == len(named) == 8 and sorted(named.count(w) for w in set(named)) == [4, 4]
        assert set(named) <= set(words) and query.answer.removesuffix(".") in named
        assert content(pool.what(target)) not in {content(pool.what(m)) for m in support[::2]}
        kind = pool.what(target).things[0].kind
        same = {k for k, w in zip(shown, named, strict=True) if f"{w}." == query.answer}
        other = {k for k, w in zip(shown, named, strict=True) if f"{w}." != query.answer}
        rules = [i for i in (0, 1) if len({k[i] for k in same}) == len({k[i] for k in other}) == 1]
        rules = [i for i in rules if {k[i] for k in same} != {k[i] for k in other}]
        assert rules and any({k[i] for k in same} == {kind[i]} for i in rules)
        assert {*shown, kind} <= set(KNOWN)


@pytest.mark.parametrize(
    "name, things",
    [
        ("caption", set(KNOWN)),
        ("caption_heldout", HELD_OUT),
        ("knowledge", set(ASKED)),
        ("knowledge_heldout", UNASKED),
        ("knowledge_direct", UNASKED),
    ],
)
def test_tasks_are_about_the_things_they_are_named_after(name, things):
    pool, _ = TASKS[name](np.random.default_rng(6), 200)
    assert {scene.things[0].kind for scene in pool.scenes} <= things
    assert len({scene.things[0].kind for scene in pool.scenes}) > 0.6 * min(len(things), 84)


def test_knowledge_heldout_names_the_thing_first_and_knowledge_direct_does_not():
    _, first = TASKS["knowledge_heldout"](np.random.default_rng(6), 5)
    _, direct = TASKS["knowledge_direct"](np.random.default_rng(6), 5)
    assert all(q.prompt[1:] == ["Output:"] and len(q.turns) == 1 for q in first)
    assert all(asked(q.prompt[1]) in ("place", "animal") and not q.turns for q in direct)


def test_vqa_asks_everything_evenly():
    pool, queries = TASKS["vqa"](np.random.default_rng(6), 300)
    names = [asked(q.prompt[-1]) for q in queries]
    assert {n: names.count(n) for n in names} == dict.fromkeys(("color", "shape", "number", "size", "position"), 60)
    numbers = [q.answer for q, n in zip(queries, names, strict=True) if n == "number"]
    assert set(numbers) == {"one.", "two.", "three.", "four.", "five."}


def test_image_swap_asks_one_question_of_two_pictures_with_two_answers():
    _, queries = TASKS["image_swap"](np.random.default_rng(6), N)
    for one, other in zip(queries[::2], queries[1::2], strict=True):
        assert one.prompt[1:] == other.prompt[1:] and one.prompt[0] != other.prompt[0]
        assert one.answer != other.answer


def test_a_dialogue_asks_three_different_questions():
    _, queries = TASKS["dialogue"](np.random.default_rng(6), N)
    for query in queries:
        assert len({query.prompt[-1], *query.turns}) == 3


def test_the_same_stream_gives_the_same_queries_and_another_stream_or_split_gives_others():
    def pictures(*numbers):
        return TASKS["caption"](split_rng(*numbers), 6)[0].pictures

    np.testing.assert_array_equal(pictures("test", run.STREAM, 0, 1), pictures("test", run.STREAM, 0, 1))
    others = [("test", run.STREAM, 1, 1), ("train", run.STREAM, 0, 1), ("validation", run.STREAM, 0, 1)]
    pixels = [p.tobytes() for numbers in (("test", run.STREAM, 0, 1), *others) for p in pictures(*numbers)]
    assert len(set(pixels)) == len(pixels)
