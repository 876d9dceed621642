"""Tasks explained only by examples: several scenes, each with its answer, and no question (chapter §5).

A task is drawn from a grammar: a template with slots, and sometimes a table that renames the value of its slot.

    Task("single", ("color",), "see {color}.")
        a red star.  see red.     a blue ring.  see blue.     a pink star.  see pink.
    Task("single", ("color",), "{color}.", {"red": "owl", "blue": "dax", "pink": "red"})
        a red star   owl.         a blue ring   dax.          a pink star   red.
    Task("count", ("number",), "{number}.", {"two": "three", "three": "four", ...})
        two red stars.  three.    four blue rings.  five.

A slot is a property that a picture shows or a description says (`properties`). The words of a template and of a table
can be any words. `held_out` keeps sixteen families of tasks out of all training; `evaluation/suite.py` asks for them.

Not here: documents of tasks (`task_documents.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.glyphs import DIGITS
from tinyflamingo.data.tinyworld.scenes import (
    ACTIONS,
    COLOUR_NAMES,
    HELD_OUT,
    NAMED,
    POSITIONS,
    SIZES,
    Clip,
    Scene,
    pick,
    pick_some,
)
from tinyflamingo.data.tinyworld.shapes import UNNAMED


@dataclass(frozen=True)
class Task:
    """How every scene of a prompt gets its answer. See the top of the file."""

    kind: str  # of its scenes and clips
    slots: tuple[str, ...]  # names of properties (`properties`), in the order of the answer
    template: str
    table: dict[str, str] = field(default_factory=dict)  # {value of the only slot: what the answer says instead}

    @property
    def words(self) -> list[str]:
        """The words of the template around its slots."""
        return [word for word in self.template.rstrip(".").split() if "{" not in word]


def properties(scene: Scene | Clip) -> dict[str, str]:
    """{property: value} of a scene. color2 and shape2 are of the second thing of a pair; a sum has two digits."""
    if isinstance(scene, Clip):
        known = {"shape": scene.thing.shape, "action": say.action_phrase(scene)}
        return known if scene.new_colour else {**known, "color": scene.thing.colour}
    if scene.kind == "sum":
        first, second = scene.digits
        ordered = (first, second, max(first, second), min(first, second))
        return {name: DIGITS[digit] for name, digit in zip(SLOTS["sum"], ordered, strict=True)}
    thing, last = scene.things[0], scene.things[-1]
    if scene.kind == "digit":
        return {"color": thing.colour, "digit": thing.shape}
    known = {"color": thing.colour, "shape": thing.shape}
    if scene.kind == "count":
        return {**known, "number": say.NUMBERS[len(scene.things)]}
    if scene.kind == "pair":
        return {**known, "relation": scene.relation, "color2": last.colour, "shape2": last.shape}
    return {**known, "size": thing.size, "position": thing.position}


def answer(task: Task, scene: Scene | Clip) -> str:
    """The answer to a scene; "" if the task has none, or if it would name a held-out thing."""
    values = properties(scene)
    if task.table:
        slot = task.slots[0]
        values = {slot: task.table[values[slot]]} if values.get(slot) in task.table else {}
    if not values.keys() >= set(task.slots):
        return ""
    words = task.template.format_map(values)
    mixed = task.kind == "pair"  # a colour and a shape of two things can join in the answer
    return "" if mixed and any(pair[::-1] in HELD_OUT for pair in pairwise(words.rstrip(".").split())) else words


# ---- the grammar -----------------------------------------------------------------------------

# Properties of each kind of scene, and kinds; each entry has equal probability.
SLOTS = {
    "single": ("color", "shape", "size", "position"),
    "pair": ("color", "shape", "relation", "color2", "shape2"),
    "count": ("color", "shape", "number", "number"),
    "digit": ("color", "digit", "digit"),
    "sum": ("first", "second", "larger", "smaller"),
    "clip": ("color", "shape", "action"),
}
KINDS = (*["single"] * 6, *["pair"] * 4, *["count"] * 2, "digit", *["sum"] * 2, "clip")
LENGTHS, PAIR_LENGTHS = (1, 1, 1, 2, 2, 3), (1, 1, 1, 2)  # numbers of slots; two things are hard to tell apart
VALUES = {
    "color": COLOUR_NAMES,
    "shape": NAMED,
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
    "number": say.NUMBERS[2:6],
    "digit": DIGITS,
    "action": tuple(action for action in ACTIONS if action != "turns"),
}  # of the properties that a table can rename
RENAMED, PAIR_RENAMED = 0.4, 0.13  # shares of the tasks with a table
PLAIN, BARE = 0.6, 0.95  # shares of places beside a slot without a word, in tasks without a table and with one
ONE_MORE = dict(zip(VALUES["number"], say.NUMBERS[3:], strict=False))
OPPOSITES = (
    {"small": "large", "medium": "medium", "large": "small"},
    dict(zip(POSITIONS, reversed(POSITIONS), strict=True)),
)
FUNCTIONS = dict(zip(("number", "size", "position"), (ONE_MORE, *OPPOSITES), strict=True))
COMMON = ("it", "is", "the", "a", "and", "with", "see", "this", "one", "no", "yes", *say.ANIMALS, *say.PLACES)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HELD_OUT_LETTERS = "qx"
NEVER_SPELLED = frozenset((*say.NEW_WORDS, *say.TEXT_WORDS, *UNNAMED, *NAMED, *COLOUR_NAMES))


def draw_task(rng: np.random.Generator, family: str | None = None) -> Task:
    """A task of the grammar. family None: one that training can have; otherwise one of this held-out family alone."""
    wanted = (family,) if family else ()
    while held_out(task := _any_task(rng)) != wanted:
        pass
    return task


def _any_task(rng):
    kind, table = pick(rng, KINDS), {}
    lengths, renamed = (PAIR_LENGTHS, PAIR_RENAMED) if kind == "pair" else (LENGTHS, RENAMED)
    slots = tuple(pick(rng, SLOTS[kind]) for _ in range(pick(rng, lengths)))
    if slots[0] in VALUES and rng.random() < renamed:
        slots, table = slots[:1], _table(rng, slots[0])
    words = [word for slot in slots for word in (*_some_words(rng, table), f"{{{slot}}}")]
    return Task(kind, slots, " ".join([*words, *_some_words(rng, table)]) + ".", table)


def _some_words(rng, table):
    """Mostly none, sometimes one or two words: common, invented, or spelled with any letters.

    A new name is mostly alone: binding is learned from names that follow their keys at once.
    """
    if rng.random() < (BARE if table else PLAIN):
        return ()
    return tuple(_words(rng, pick(rng, (_common, _invented, _spelled, _spelled)), pick(rng, (1, 1, 2))))


def _table(rng, slot):
    """A function of the values, two words for all of them, or a word for each of some."""
    values = VALUES[slot]
    if slot in FUNCTIONS and rng.random() < 0.2:
        return FUNCTIONS[slot]
    some = pick_some(rng, values, int(rng.integers(2, min(8, len(values)) + 1)))
    if len(some) > 2 and rng.random() < 0.2:
        yes_no = ("yes", "no") if rng.random() < 0.4 else _words(rng, pick(rng, NAMING), 2)
        yes = int(rng.integers(1, len(some)))
        return {value: yes_no[i >= yes] for i, value in enumerate(some)}
    if rng.random() < 0.3:
        return dict(zip(some, pick_some(rng, values), strict=False))
    return dict(zip(some, _words(rng, pick(rng, NAMING), len(some)), strict=True))


def _words(rng, draw, count):
    """`count` different words."""
    words = {}
    while len(words) < count:
        words[draw(rng)] = None
    return list(words)


def _common(rng):
    return pick(rng, COMMON)


def _invented(rng):
    return pick(rng, say.PICTURE_WORDS)


def _spelled(rng, letters=LETTERS):
    """Two to five letters that mean nothing."""
    while True:
        places = rng.integers(len(letters), size=pick(rng, (2, 3, 4, 5)))
        word = "".join(letters[i] for i in places.tolist())
        if word not in NEVER_SPELLED:
            return word


def _spelled_name(rng):
    return _spelled(rng, "".join(c for c in LETTERS if c not in HELD_OUT_LETTERS))


NAMING = (_common, _invented, _spelled_name)  # the words of a table

# ---- held out --------------------------------------------------------------------------------


class Family(NamedTuple):
    """Tasks that no training has."""

    level: int  # 1: one property, 2: several joined, 3: videos, 4: new words around them, 5: renamed
    rule: Callable  # (task) -> whether it belongs to the family
    dev: bool = False  # choices are made on these; the other families are for reports


FAMILIES = {
    "size": Family(1, lambda t: t.slots == ("size",) and not _opposite(t)),
    "position": Family(1, lambda t: t.slots == ("position",) and not t.table),
    "second_color": Family(1, lambda t: t.slots == ("color2",), dev=True),
    "position_first": Family(2, lambda t: len(t.slots) > 1 and t.slots[0] == "position"),
    "shape_before_size": Family(2, lambda t: "size" in t.slots[t.slots.index("shape") :] if "shape" in t.slots else 0),
    "twice": Family(2, lambda t: len(set(t.slots)) < len(t.slots)),
    "number_last": Family(2, lambda t: len(t.slots) > 1 and t.slots[-1] == "number", dev=True),
    "clip_action": Family(3, lambda t: t.kind == "clip" and "action" in t.slots),
    "clip_look": Family(3, lambda t: t.kind == "clip" and "action" not in t.slots, dev=True),
    "letter_q": Family(4, lambda t: any("q" in word for word in t.words)),
    "letter_x": Family(4, lambda t: any("x" in word for word in t.words), dev=True),
    "position_renamed": Family(5, lambda t: _from(t, "position")),
    "shape_by_shape": Family(5, lambda t: _from(t, "shape", "shape2") and not set(NAMED).isdisjoint(t.table.values())),
    "predicate_by_shape": Family(
        5, lambda t: _from(t, "shape", "shape2") and len(set(t.table.values())) < len(t.table)
    ),
    "opposite": Family(5, lambda t: _opposite(t)),
    "digit_by_digit": Family(5, lambda t: _from(t, "digit") and not set(DIGITS).isdisjoint(t.table.values()), dev=True),
}


def _from(task, *slots):
    return task.table and task.slots[0] in slots


def _opposite(task):
    return task.table and any(task.table.items() <= opposite.items() for opposite in OPPOSITES)


def held_out(task: Task) -> tuple[str, ...]:
    """The families that a task belongs to. Training, in all its stages, has only tasks of none."""
    return tuple(name for name, family in FAMILIES.items() if family.rule(task))
