"""Sixteen TinyWorld tasks that mirror the paper's sixteen (chapter §5; paper table 6).

A task is a function that samples one example of it; support and query examples are kept apart by what
their scenes are (`side_of`), so the same scene is never on both sides, whatever the seeds. Five tasks
are marked `dev`: all choices are made on them. Not here: prompts and decoding (`evaluation/few_shot.py`),
metrics (`evaluation/metrics.py`), models trained for one task alone (`evaluation/specialists.py`).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    ASKED_SUMS,
    COLOUR_NAMES,
    KNOWN,
    NAMED,
    UNASKED,
    UNASKED_SUMS,
    Clip,
    Scene,
    draw_clip,
    draw_scene,
    pick,
    sample_clip,
    sample_count,
    sample_digit,
    sample_scene,
    sample_single,
    sample_sum,
)

SUPPORT, QUERY = 0, 1
WAYS = 4  # classes of the task of invented words


@dataclass(frozen=True)
class Example:
    """One picture or video with what is asked and what is right.

    asked: the texts that are put to the model one after the other, each but the first after its own
    answer to the one before (visual dialogue; naming first). answers: the right answer to each, of
    which the last is scored. accepted: what counts there (VQA has ten); candidates: what is ranked
    (close-ended tasks), else empty.
    """

    medium: Scene | Clip
    asked: tuple
    answers: tuple
    accepted: tuple
    candidates: tuple = ()


@dataclass(frozen=True)
class Task:
    """sample(rng, side, instance) -> Example, on side SUPPORT or QUERY; instance: numbers that fix its classes."""

    sample: object
    mirrors: str  # the benchmark of the paper
    metric: str  # a name in `evaluation/metrics.py`
    dev: bool = False
    draw: object = None  # (rng, medium) -> pixels; by default as TinyWorld draws
    from_text: bool = False  # its queries ask what only texts told: no example of the support side holds the answer
    ways: int = 0  # classes that take turns among the shots; 0: shots as they come

    def example(self, rng, side, instance=()):
        """A fresh example whose scene belongs to `side`."""
        while True:
            example = self.sample(rng, side, instance)
            if side_of(example.medium) == side:
                return example

    def shots(self, rng, n, instance=()):
        """n examples of the support side; of a task with classes, every class once before any comes again."""
        found = []
        while len(found) < n:
            example = self.example(rng, SUPPORT, instance)
            met = {e.answers for e in found[len(found) - len(found) % self.ways :]} if self.ways else ()
            if example.answers not in met:
                found.append(example)
        return found

    def pixels(self, rng, medium):
        """uint8 (F, Y, X, 3); a picture has one frame."""
        if self.draw:
            return self.draw(rng, medium)
        return draw_clip(rng, medium) if isinstance(medium, Clip) else draw_scene(rng, medium)[None]


def side_of(medium) -> int:
    """SUPPORT or QUERY: a function of what a scene is, coordinates included."""
    return zlib.crc32(repr(medium).encode()) & 1


def _example(medium, asked, answer, candidates=(), first=()):
    """first: (question, answer) pairs that come before the scored one."""
    questions, answers = [q for q, _ in first] + [asked], [a for _, a in first] + [answer]
    return Example(medium, tuple(questions), tuple(answers), (answer,), tuple(candidates))


def _named(scene):
    """The turn in which the model names what it sees."""
    return [("Output:", say.caption(scene))]


# ---- captions --------------------------------------------------------------------------------


def captions(rng, side, instance):
    """One sentence about a picture of any kind."""
    scene = sample_scene(rng)
    return _example(scene, "Output:", say.caption(scene))


def details(rng, side, instance):
    """A single thing with size and place."""
    scene = sample_single(rng)
    return _example(scene, "Details:", say.details(scene))


def video_captions(rng, side, instance):
    """One sentence about a video."""
    clip = sample_clip(rng)
    return _example(clip, "Output:", say.caption(clip))


def change_captions(rng, side, instance):
    """The same where something becomes something else: both colours have to be told."""
    clip = sample_clip(rng, action="turns")
    return _example(clip, "Output:", say.caption(clip))


# ---- questions -------------------------------------------------------------------------------


def questions(rng, side, instance):
    """Colour, shape, number, size and place, with ten answers of which a few are careless."""
    name = pick(rng, ("color", "shape", "number", "size", "position"))
    scene = sample_count(rng) if name == "number" and rng.random() < 0.8 else sample_single(rng)
    answer = say.questions(scene)[name]
    careless = rng.random(10) < 0.15
    ten = tuple(pick(rng, _answers_to(name)) if odd else answer for odd in careless)
    return Example(scene, (say.ask(name),), (answer,), ten if answer in ten else (answer, *ten[1:]))


def _answers_to(name):
    words = {"color": COLOUR_NAMES, "shape": NAMED, "number": say.NUMBERS[1:6]}
    words |= {"size": ("small", "medium", "large"), "position": ("top", "left", "middle", "right", "bottom")}
    return [f"{word}." for word in words[name]]


def poor_questions(rng, side, instance):
    """Colour and shape on pictures that are dark, blurred and noisy."""
    scene = sample_single(rng)
    name = pick(rng, ("color", "shape"))
    return _example(scene, say.ask(name), say.questions(scene)[name])


def draw_poorly(rng, scene):
    """As by a bad camera: half resolution, dim, and with grain."""
    picture = draw_scene(rng, scene)
    small = Image.fromarray(picture).reduce(2).resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
    dim = np.asarray(small, np.float32) * rng.uniform(0.55, 0.85) + rng.normal(0, 8, picture.shape)
    return np.clip(dim, 0, 255).astype(np.uint8)[None]


def knowledge(rng, side, instance):
    """A fact that only texts tell; of the queries' things no picture was ever asked."""
    scene = sample_single(rng, ASKED if side == SUPPORT else tuple(sorted(UNASKED)))
    name, answer = pick(rng, list(say.knowledge(*scene.things[0].kind).items()))
    return _example(scene, say.ask(name), answer, first=_named(scene))


def digits(rng, side, instance):
    """Reading a written digit."""
    scene = sample_digit(rng)
    return _example(scene, say.ask("digit"), say.questions(scene)["digit"])


def sums(rng, side, instance):
    """Adding up two written digits; of the queries' sums no picture was ever asked."""
    scene = sample_sum(rng, ASKED_SUMS if side == SUPPORT else tuple(sorted(UNASKED_SUMS)))
    answer = say.sum_answer(*(thing.shape for thing in scene.things))
    return _example(scene, say.ask("sum"), answer, first=_named(scene))


def matches(rng, side, instance):
    """Does a text agree with the picture? Yes or no."""
    scene = sample_single(rng)
    question, answer = say.check(rng, scene)
    return _example(scene, question, answer, ("yes.", "no."))


def dialogue(rng, side, instance):
    """The third answer of a dialogue, ranked among all that the question can have."""
    scene = sample_single(rng)
    answers = say.questions(scene)
    asked = [list(answers)[i] for i in rng.permutation(len(answers))]
    last = next(name for name in reversed(asked) if name in ("color", "shape"))
    first = [(say.ask(name), answers[name]) for name in asked if name != last][:2]
    return _example(scene, say.ask(last), answers[last], _answers_to(last), first)


# ---- video -----------------------------------------------------------------------------------


def video_questions(rng, side, instance):
    """What happens in a video."""
    clip = sample_clip(rng)
    return _example(clip, say.ask("action"), say.questions(clip)["action"])


def video_things(rng, side, instance):
    """Which shape, or which colour, something in a video has."""
    clip = sample_clip(rng)
    answers = {k: v for k, v in say.questions(clip).items() if k != "action"}
    name = pick(rng, list(answers))
    return _example(clip, say.ask(name), answers[name])


def video_knowledge(rng, side, instance):
    """A fact of the thing in a video. In training no video is ever asked one."""
    clip = sample_clip(rng, ASKED if side == SUPPORT else tuple(sorted(UNASKED)))
    name, answer = pick(rng, list(say.knowledge(*clip.thing.kind).items()))
    return _example(clip, say.ask(name), answer, first=_named(clip))


def choice(rng, side, instance):
    """Which of three things happens."""
    clip = sample_clip(rng)
    question, answer, options = say.choice(rng, clip)
    return _example(clip, question, answer, options)


# ---- classes made up on the spot --------------------------------------------------------------


def new_words(rng, side, instance):
    """Four invented words that no training text holds, each for a shape; the choice is the instance's."""
    chosen = split_rng("test", *instance)
    shapes = [NAMED[i] for i in chosen.permutation(len(NAMED))[:WAYS]]
    words = [f"{w}." for w in chosen.choice(say.NEW_WORDS, size=WAYS, replace=False)]
    way = int(rng.integers(WAYS))
    scene = sample_single(rng, tuple(thing for thing in KNOWN if thing[0] == shapes[way]))
    return _example(scene, "", words[way], words)


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
}
DEV = tuple(name for name, task in TASKS.items() if task.dev)
FROM_TEXT = tuple(name for name, task in TASKS.items() if task.from_text)
