"""Sixteen tasks explained only by examples, and sixteen that are in the training mixture (chapter §5; paper table 6).

The first sixteen are the held-out families of `data/tinyworld/tasks.py`: their prompts have no question, and training
has no such task in any stage. The others mirror the benchmarks of the paper; training has their prompts and questions.

A task is a function that samples one example. What its answer depends on decides whether the example belongs to the
support side or to the query side (`Task.side_of`), so the two sides never share it, whatever the seeds. All choices are
made on the five tasks of each sixteen that are marked `dev`.

Not here: prompts and decoding (`evaluation/few_shot.py`), metrics (`evaluation/metrics.py`), models trained for one
task alone (`evaluation/specialists.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from PIL import Image

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import scenes
from tinyflamingo.data.tinyworld import tasks as grammar
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.task_documents import sampler
from tinyflamingo.ops.types import Array

SUPPORT, QUERY = 0, 1
WAYS = 4  # classes of the task of invented words


@dataclass(frozen=True)
class Example:
    """One picture or video with questions and right answers. The last answer is scored."""

    medium: scenes.Scene | scenes.Clip
    asked: tuple  # texts for the model, each after the model's own answer to the text before (dialogue; naming first)
    answers: tuple  # the right answer to each text
    accepted: tuple  # the last answers that count (VQA has ten)
    candidates: tuple = ()  # the answers that are ranked in a close-ended task


@dataclass(frozen=True)
class Task:
    """One task of the suite."""

    sample: Callable  # (rng, side, key) -> Example; side: SUPPORT or QUERY; key: numbers that fix its classes
    mirrors: str  # the benchmark of the paper; of a task explained only by examples, its level
    metric: str  # a name in `evaluation/metrics.py`, or "ROC AUC"
    dev: bool = False
    draw: Callable | None = None  # (rng, medium, side) -> pixels; by default as TinyWorld draws
    from_text: bool = False  # its queries ask for facts that only texts state: no example of the support side has them
    ways: int = 0  # classes that take turns among the shots; 0: shots in random order
    level: int = 0  # 1 to 5: only examples explain the task (`grammar.FAMILIES`), and the key fixes it; 0: trained

    def example(self, rng: np.random.Generator, side: int, key: tuple = ()) -> Example:
        """A fresh example that belongs to `side`."""
        while self.side_of(example := self.sample(rng, side, key)) != side:
            pass
        return example

    def side_of(self, example: Example) -> int:
        """SUPPORT or QUERY: a hash of the scene's content without coordinates; in a task of sentences, of the sentence.

        So a query never has the description of a shot. A shorter answer, such as a colour, can be on both sides.
        """
        decides = example.answers if self.metric == "CIDEr-D" else scenes.content(example.medium)
        return hashlib.sha256(repr(decides).encode()).digest()[0] & 1

    def shots(self, rng: np.random.Generator, n: int, key: tuple = ()) -> list[Example]:
        """n examples of the support side. With classes: every class occurs once before any class occurs again."""
        shots: list[Example] = []
        while len(shots) < n:
            example = self.example(rng, SUPPORT, key)
            this_round = {e.answers for e in shots[len(shots) - len(shots) % self.ways :]} if self.ways else ()
            if example.answers not in this_round:
                shots.append(example)
        return shots

    def pixels(self, rng: np.random.Generator, medium: scenes.Scene | scenes.Clip, side: int = scenes.SIDE) -> Array:
        """uint8 (F, side, side, 3); a picture has one frame."""
        if self.draw:
            return self.draw(rng, medium, side)
        if isinstance(medium, scenes.Clip):
            return scenes.draw_clip(rng, medium, side=side)
        return scenes.draw_scene(rng, medium, side)[None]


def _example(medium, asked, answer, candidates=(), first=()):
    """first: pairs (question, answer) before the scored pair."""
    questions, answers = [q for q, _ in first] + [asked], [a for _, a in first] + [answer]
    return Example(medium, tuple(questions), tuple(answers), (answer,), tuple(candidates))


def _named(scene):
    """The turn in which the model names the thing."""
    return [("Output:", say.caption(scene))]


# ---- captions --------------------------------------------------------------------------------


def captions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """One sentence about a picture of any kind."""
    scene = scenes.sample_scene(rng)
    return _example(scene, "Output:", say.caption(scene))


def details(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """A single thing with size and place."""
    scene = scenes.sample_single(rng)
    return _example(scene, "Details:", say.details(scene))


def video_captions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """One sentence about a video."""
    clip = scenes.sample_clip(rng)
    return _example(clip, "Output:", say.caption(clip))


def change_captions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """One sentence about a video in which a thing changes its colour: the sentence must have both colours."""
    clip = scenes.sample_clip(rng, action="turns")
    return _example(clip, "Output:", say.caption(clip))


# ---- questions -------------------------------------------------------------------------------


def questions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Colour, shape, number, size and position, with ten answers; some of them are careless."""
    name = scenes.pick(rng, ("color", "shape", "number", "size", "position"))
    scene = scenes.sample_count(rng) if name == "number" and rng.random() < 0.8 else scenes.sample_single(rng)
    answer = say.questions(scene)[name]
    careless = rng.random(10) < 0.15
    ten = tuple(scenes.pick(rng, _answers_to(name)) if wrong else answer for wrong in careless)
    return Example(scene, (say.ask(name),), (answer,), ten if answer in ten else (answer, *ten[1:]))


def _answers_to(name):
    words = {"color": scenes.COLOUR_NAMES, "shape": scenes.NAMED, "number": say.NUMBERS[1:6]}
    words |= {"size": ("small", "medium", "large"), "position": ("top", "left", "middle", "right", "bottom")}
    return [f"{word}." for word in words[name]]


def poor_questions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Colour and shape of things on pictures that are dark, blurred and noisy."""
    scene = scenes.sample_single(rng)
    name = scenes.pick(rng, ("color", "shape"))
    return _example(scene, say.ask(name), say.questions(scene)[name])


def draw_poorly(rng: np.random.Generator, scene: scenes.Scene, side: int) -> Array:
    """A picture as a bad camera takes it: half resolution, dark, noisy. uint8 (1, side, side, 3)"""
    picture = scenes.draw_scene(rng, scene, side)
    small = Image.fromarray(picture).reduce(2).resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
    dim = np.asarray(small, np.float32) * rng.uniform(0.55, 0.85) + rng.normal(0, 8, picture.shape)
    return np.clip(dim, 0, 255).astype(np.uint8)[None]


def knowledge(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """A fact that only texts state. Training never asks about the queries' things with a picture."""
    scene = scenes.sample_single(rng, scenes.ASKED if side == SUPPORT else tuple(sorted(scenes.UNASKED)))
    name, answer = scenes.pick(rng, list(say.knowledge(*scene.things[0].kind).items()))
    return _example(scene, say.ask(name), answer, first=_named(scene))


def digits(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Read a written digit."""
    scene = scenes.sample_digit(rng)
    return _example(scene, say.ask("digit"), say.questions(scene)["digit"])


def sums(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Add two written digits. Training never asks for the queries' sums with a picture."""
    scene = scenes.sample_sum(rng, scenes.ASKED_SUMS if side == SUPPORT else tuple(sorted(scenes.UNASKED_SUMS)))
    answer = say.sum_answer(*(thing.shape for thing in scene.things))
    return _example(scene, say.ask("sum"), answer, first=_named(scene))


def matches(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Does a text agree with the picture: yes or no?"""
    scene = scenes.sample_single(rng)
    question, answer = say.check(rng, scene)
    return _example(scene, question, answer, ("yes.", "no."))


def dialogue(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """The third answer of a dialogue, ranked among all answers that the question can have."""
    scene = scenes.sample_single(rng)
    answers = say.questions(scene)
    names = scenes.pick_some(rng, list(answers))
    last = next(name for name in reversed(names) if name in ("color", "shape"))
    first = [(say.ask(name), answers[name]) for name in names if name != last][:2]
    return _example(scene, say.ask(last), answers[last], _answers_to(last), first)


# ---- video -----------------------------------------------------------------------------------


def video_questions(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """What happens in a video."""
    clip = scenes.sample_clip(rng)
    return _example(clip, say.ask("action"), say.questions(clip)["action"])


def video_things(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """The shape or the colour of the thing in a video."""
    clip = scenes.sample_clip(rng)
    answers = {k: v for k, v in say.questions(clip).items() if k != "action"}
    name = scenes.pick(rng, list(answers))
    return _example(clip, say.ask(name), answers[name])


def video_knowledge(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """A fact about the thing in a video. Training never asks for facts with a video."""
    clip = scenes.sample_clip(rng, scenes.ASKED if side == SUPPORT else tuple(sorted(scenes.UNASKED)))
    name, answer = scenes.pick(rng, list(say.knowledge(*clip.thing.kind).items()))
    return _example(clip, say.ask(name), answer, first=_named(clip))


def choice(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Which of three actions happens."""
    clip = scenes.sample_clip(rng)
    question, answer, options = say.choice(rng, clip)
    return _example(clip, question, answer, options)


# ---- invented classes --------------------------------------------------------------------------


def new_words(rng: np.random.Generator, side: int, key: tuple) -> Example:
    """Four invented words that no training text has, each for a shape. The key fixes words and shapes."""
    chosen = split_rng("test", *key)
    shapes = scenes.pick_some(chosen, scenes.NAMED, WAYS)
    words = [f"{w}." for w in chosen.choice(say.NEW_WORDS, size=WAYS, replace=False)]
    way = int(rng.integers(WAYS))
    scene = scenes.sample_single(rng, tuple(thing for thing in scenes.KNOWN if thing[0] == shapes[way]))
    return _example(scene, "", words[way], words)


# ---- tasks explained only by examples -------------------------------------------------------------


def by_examples(rng: np.random.Generator, side: int, key: tuple, family: str) -> Example:
    """A scene and its answer by one task of a held-out family."""
    task = task_of(family, key)
    while not (words := grammar.answer(task, scene := sampler(task)(rng))):
        pass
    return _example(scene, "", words)


@cache
def task_of(family: str, key: tuple) -> grammar.Task:
    """The task that a key fixes. Only level 4 has words around the slots, only level 5 a table."""
    rng, level = split_rng("test", *key, list(grammar.FAMILIES).index(family)), grammar.FAMILIES[family].level
    while True:
        task = grammar.draw_task(rng, family)
        if bool(task.words) == (level == 4) and bool(task.table) == (level == 5):
            return task


TASKS = {
    "captions": Task(captions, "COCO", "CIDEr-D", dev=True),
    "questions": Task(questions, "VQAv2", "VQA accuracy", dev=True),
    "knowledge": Task(knowledge, "OKVQA", "exact match", dev=True, from_text=True),
    "details": Task(details, "Flickr30k", "CIDEr-D"),
    "poor_questions": Task(poor_questions, "VizWiz", "exact match", draw=draw_poorly),
    "digits": Task(digits, "TextVQA", "exact match"),
    "dialogue": Task(dialogue, "VisDial", "exact match"),
    "matches": Task(matches, "HatefulMemes", "ROC AUC"),
    "video_captions": Task(video_captions, "VATEX", "CIDEr-D", dev=True),
    "video_questions": Task(video_questions, "MSVDQA", "exact match", dev=True),
    "change_captions": Task(change_captions, "YouCook2", "CIDEr-D"),
    "video_things": Task(video_things, "MSRVTTQA", "exact match"),
    "video_knowledge": Task(video_knowledge, "iVQA", "exact match", from_text=True),
    "new_words": Task(new_words, "RareAct", "exact match", ways=WAYS),
    "sums": Task(sums, "NextQA", "exact match", from_text=True),
    "choice": Task(choice, "STAR", "exact match"),
} | {
    name: Task(partial(by_examples, family=name), f"level {f.level}", "exact match", f.dev, level=f.level)
    for name, f in grammar.FAMILIES.items()
}
FROM_TEXT = tuple(name for name, task in TASKS.items() if task.from_text)
NEW_CLASSES = tuple(name for name, task in TASKS.items() if task.ways)  # of no kind that training has
