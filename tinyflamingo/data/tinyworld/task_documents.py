"""Documents of tasks explained only by examples: in words, and with pictures (chapter §4 and §5).

In words, a scene is a short key as in episodes ("a red square") or a whole description. On a page it is a picture, and
sometimes its description. Nobody can know the first answer of a task, or a new name of a value: they have no loss.

Not here: the tasks (`tasks.py`), all other documents (`text.py`, `pages.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import scenes
from tinyflamingo.data.tinyworld.pool import Pool, scene_pool
from tinyflamingo.data.tinyworld.scenes import KNOWN, UNASKED, WRITTEN, Kind, Scene, pick
from tinyflamingo.data.tinyworld.tasks import FUNCTIONS, Task, answer, draw_task, properties
from tinyflamingo.data.tinyworld.text import key

SAMPLERS: dict[str, Callable] = {
    "single": scenes.sample_single,
    "pair": scenes.sample_pair,
    "count": scenes.sample_count,
    "digit": scenes.sample_digit,
    "sum": scenes.sample_sum,
    "clip": scenes.sample_clip,
}
SHORT = frozenset(("color", "shape", "digit"))  # a short key gives these properties
SHORT_KEYS, SHORT_PLAIN = 0.95, 0.3  # shares of short keys in tasks with a table, and in others
SPOKEN = 0.3  # share of a page's scenes that are descriptions
MOST = 36  # examples of a task
TRIES = 30  # scenes that are drawn for each example; a small pool may have none that fits


def text_task(rng: np.random.Generator, longer: int = 1) -> list:
    """One task in words. longer: factor on the usual number of examples."""
    task = draw_task(rng)
    describe, draw, items = describer(rng, task), _media(rng, task, _scenes_of_texts()), []
    for scene, _, words in examples(task, draw, _count(rng, task, longer)):
        items += [Quiet(describe(scene)), words]
    return items


def task_page(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """One task on a page of more than 96 tokens; on a page `length` times as long, tasks of up to MOST examples.

    With few examples of each task, scores fell when a prompt had many (docs/deviations.md).
    """
    items: list = []
    while (room := 24 * length - len(items) // 2) > 0:
        task = draw_task(rng)
        describe, draw = describer(rng, task), _media(rng, task, pool)
        for scene, medium, words in examples(task, draw, min(room, MOST), _allowed):
            items += [EOC, Quiet(describe(scene))] if rng.random() < SPOKEN else [medium]
            items.append(words)
    return items


def examples(task: Task, draw: Callable, count: int, allowed: Callable = lambda *_: True) -> Iterator[tuple]:
    """Up to `count` times (scene, medium, answer); the answer is `Quiet` if nobody can know it.

    draw: () -> (scene, medium); allowed: (scene, answer) -> whether a document may have both.
    """
    named = task.table and task.table not in FUNCTIONS.values()
    met: set[str] = set()
    for _ in range(TRIES * count):
        scene, medium = draw()
        words = answer(task, scene)
        if not words or not allowed(scene, words):
            continue
        value = properties(scene)[task.slots[0]] if named else ""
        yield scene, medium, words if value in met else Quiet(words)
        met.add(value)
        count -= 1
        if not count:
            return


def sampler(task: Task) -> Callable:
    """(rng) -> a scene or clip; most have an answer."""
    sample = SAMPLERS[task.kind]
    return sample if task.kind == "sum" else partial(sample, things=_things(task))


def describer(rng: np.random.Generator, task: Task) -> Callable:
    """(scene) -> its key in the texts of one document."""
    short = rng.random() < (SHORT_KEYS if task.table else SHORT_PLAIN)
    if short and task.kind in ("single", "digit") and SHORT.issuperset(task.slots):
        rule, style = task.slots[0] if task.table else "thing", rng.random()
        return lambda scene: key(rule, style, *scene.things[0].kind)
    return say.details if task.kind == "single" else say.caption


def _things(task) -> list[Kind]:
    """The things to sample from: all, or those that the table names."""
    things = WRITTEN if task.kind == "digit" else KNOWN
    if not task.table or task.slots[0] not in SHORT:
        return list(things)
    index = 1 if task.slots[0] == "color" else 0
    return [thing for thing in things if thing[index] in task.table]


def _media(rng, task, pool) -> Callable[[], tuple[Scene, Any]]:
    """() -> a scene of the pool, and the medium that refers to it."""
    things = pool.shown(_things(task)) if task.kind in ("single", "digit") else []

    def draw():
        medium = pool.picture_of(rng, pick(rng, things)) if things else pool.any_picture(rng, task.kind)
        return pool.what(medium), medium

    return draw


@cache
def _scenes_of_texts() -> Pool:
    """Scenes without pixels: a text samples none, because that takes longer than all the rest."""
    rng = np.random.default_rng(2022)
    looks = [(thing, size, position) for thing in KNOWN for size in scenes.SIZES for position in scenes.POSITIONS]
    made = [scenes.sample_single(rng, (thing,), size, position) for thing, size, position in looks]
    made += [scenes.sample_count(rng, (thing,), number) for thing in KNOWN for number in range(2, 6)]
    made += [scenes.sample_digit(rng, (thing,)) for thing in WRITTEN]
    made += [scenes.sample_sum(rng, (pair,)) for pair in scenes.SUMS]
    return scene_pool(made + [scenes.sample_pair(rng) for _ in range(4000)])


def _count(rng, task, longer):
    """The number of examples. Names need more of them."""
    return min(MOST, int(rng.integers(3, 5 + 8 * longer)) * (2 if task.table else 1))


def _allowed(scene, words):
    """On a page no answer may state a fact of a thing of UNASKED, not even by chance."""
    facts = [fact for thing in scene.things if thing.kind in UNASKED for fact in say.FACTS[thing.kind]]
    return not facts or set(facts).isdisjoint(words.rstrip(".").split())
