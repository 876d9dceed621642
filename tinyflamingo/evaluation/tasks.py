"""The tasks of the end-to-end evaluation: queries, each with a prompt and its right answer (chapter §5).

Every task draws fresh pictures from a random stream of the test split, which no training stage draws from
(`split_rng` in `data/tinyworld/pool.py`). A task is a function of a Generator, the number of queries, and the side of
the pictures in pixels.

Not here: running and scoring them (`evaluation/run.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import Medium, Pool, draw_pool
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    HELD_OUT,
    KNOWN,
    SIDE,
    UNASKED,
    pick,
    sample_clip,
    sample_count,
    sample_other,
    sample_pair,
    sample_single,
)
from tinyflamingo.data.tinyworld.text import RULES, sample_classes, shot_order


@dataclass(frozen=True)
class Query:
    """A prompt (items of `data/items.py`) and its right answer.

    turns: further texts, each asked after the model's own answer to the text before. The last answer is scored.
    """

    prompt: list
    answer: str
    turns: tuple = ()


def captions(rng: np.random.Generator, n: int, sample: Callable, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """The captions of sampled scenes, word for word."""
    pool = draw_pool(rng, [sample(rng) for _ in range(n)], side=side)
    return pool, [Query([Medium("picture", i), "Output:"], say.caption(s)) for i, s in enumerate(pool.scenes)]


def vqa(rng: np.random.Generator, n: int, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """Questions for colour, shape, number, size and position in turn."""
    names = ("color", "shape", "number", "size", "position")
    pool = draw_pool(rng, [_scene_for(rng, names[i % 5]) for i in range(n)], side=side)
    asked = [(i, names[i % 5]) for i in range(n)]
    return pool, [_question(i, name, say.questions(pool.scenes[i])[name]) for i, name in asked]


def _scene_for(rng, name):
    """Questions for a number get 1 to 5 things with equal probability; all others get a single thing."""
    if name == "number":
        number = int(rng.integers(1, 6))
        return sample_single(rng) if number == 1 else sample_count(rng, number=number)
    return sample_single(rng)


def _question(index, name, answer, kind="picture"):
    return Query([Medium(kind, index), say.ask(name)], answer)


def yes_no(rng: np.random.Generator, n: int, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """Whether a colour, a shape or both are those of a single thing: "yes." and "no." have equal probability."""
    pool = draw_pool(rng, [sample_single(rng) for _ in range(n)], side=side)
    asked = [say.check(rng, scene) for scene in pool.scenes]
    return pool, [Query([Medium("picture", i), question], answer) for i, (question, answer) in enumerate(asked)]


def video_action(rng: np.random.Generator, n: int, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """What happens in a clip."""
    pool = draw_pool(rng, [], [sample_clip(rng) for _ in range(n)], side=side)
    return pool, [_question(i, "action", say.questions(c)["action"], "clip") for i, c in enumerate(pool.clips)]


def dialogue(rng: np.random.Generator, n: int, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """The third turn of a dialogue, after the model's own answers to the first two."""
    pool = draw_pool(rng, [sample_single(rng) for _ in range(n)], side=side)
    queries = []
    for i, scene in enumerate(pool.scenes):
        answers = say.questions(scene)
        first, second, third = (list(answers)[j] for j in rng.permutation(len(answers))[:3])
        turns = (say.ask(second), say.ask(third))
        queries.append(Query([Medium("picture", i), say.ask(first)], answers[third], turns))
    return pool, queries


def facts(
    rng: np.random.Generator, n: int, things: tuple, named_first: bool = False, side: int = SIDE
) -> tuple[Pool, list[Query]]:
    """A fact that only texts state, asked about a picture: at once, or after the model has named the thing."""
    pool = draw_pool(rng, [sample_single(rng, things) for _ in range(n)], side=side)
    queries = []
    for i, scene in enumerate(pool.scenes):
        name, answer = pick(rng, list(say.knowledge(*scene.things[0].kind).items()))
        prompt, turns = (["Output:"], (say.ask(name),)) if named_first else ([say.ask(name)], ())
        queries.append(Query([Medium("picture", i), *prompt], answer, turns))
    return pool, queries


def few_shot(
    rng: np.random.Generator, n: int, words: tuple, ways: int = 2, shots: int = 4, side: int = SIDE
) -> tuple[Pool, list[Query]]:
    """Invented words, each bound to a colour, a shape or a thing by `shots` shots. No shot has the query's content."""
    scenes: list = []
    queries = [word_episode(rng, scenes, words, ways, shots) for _ in range(n)]
    return draw_pool(rng, scenes, side=side), queries


def word_episode(
    rng: np.random.Generator,
    scenes: list,
    words: tuple,
    ways: int,
    shots: int,
    things: tuple = KNOWN,
    rules: tuple = RULES,
) -> Query:
    """`shots` pictures of each of `ways` classes with their words, then a query; the scenes are appended to `scenes`.

    The classes differ by one of the rules. No shot has the content of the query.
    """
    classes = sample_classes(rng, ways, things, rules)[1]
    names = [f"{word}." for word in rng.choice(words, size=ways, replace=False)]
    prompt, target = [], int(rng.integers(ways))
    query = sample_single(rng, classes[target])
    for way in shot_order(rng, ways, ways * shots):
        scenes.append(sample_other(rng, classes[way], query))
        prompt += [Medium("picture", len(scenes) - 1), names[way]]
    scenes.append(query)
    return Query([*prompt, Medium("picture", len(scenes) - 1)], names[target])


def image_swap(rng: np.random.Generator, n: int, side: int = SIDE) -> tuple[Pool, list[Query]]:
    """One question about two pictures with different answers. A pair counts only if both are right."""
    names = ("color", "shape", "size", "position")
    scenes: list = []
    queries: list = []
    while len(queries) < 2 * n:
        name = pick(rng, names)
        first, second = sample_single(rng), sample_single(rng)
        answers = [say.questions(s)[name] for s in (first, second)]
        if answers[0] == answers[1]:
            continue
        for scene, answer in zip((first, second), answers, strict=True):
            scenes.append(scene)
            queries.append(_question(len(scenes) - 1, name, answer))
    return draw_pool(rng, scenes, side=side), queries


knowledge = partial(facts, things=ASKED)
knowledge_heldout = partial(facts, things=tuple(sorted(UNASKED)), named_first=True)
knowledge_direct = partial(facts, things=tuple(sorted(UNASKED)))
TASKS: dict[str, Callable] = {
    "caption": partial(captions, sample=sample_single),
    "caption_relation": partial(captions, sample=sample_pair),
    # Shapes and colours that never occur together in training.
    "caption_heldout": partial(captions, sample=lambda rng: sample_single(rng, tuple(sorted(HELD_OUT)))),
    "vqa": vqa,
    "video_action": video_action,
    "dialogue": dialogue,
    "knowledge": knowledge,  # about things of which training asks such questions with pictures
    "knowledge_heldout": knowledge_heldout,  # about things of which training never asks with pictures
    "knowledge_direct": knowledge_direct,  # the same, without naming the thing first
    "few_shot_2way": partial(few_shot, words=say.TEXT_WORDS),  # words of training texts, never beside a picture
    "few_shot_new_words": partial(few_shot, words=say.NEW_WORDS),  # words of no training text
    "image_swap": image_swap,
    "yes_no": yes_no,
}
