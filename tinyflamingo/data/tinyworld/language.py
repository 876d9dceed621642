"""The words of TinyWorld: captions, questions and answers, facts, and invented words.

Serves the text of chapter §4 and §5. Each sentence is in lower case and ends with a full stop. Prompts use
the words of the paper: "Output:", "Question:", "Answer:". A table fixes the facts ("a red circle is found
in the garden"). Facts are only in text, never with a picture.

Not here: whole documents (`text.py`, `pages.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.data.tinyworld.glyphs import DIGITS, WILD
from tinyflamingo.data.tinyworld.scenes import ACTIONS, COLOUR_NAMES, KNOWN, NAMED, Clip, Kind, Scene, pick, pick_some

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")
SUM_WORDS = ("zero", *NUMBERS[1:], *TEENS)
PLACES = (
    "garden",
    "kitchen",
    "forest",
    "river",
    "cave",
    "tower",
    "market",
    "desert",
    "meadow",
    "harbor",
    "attic",
    "stable",
)
ANIMALS = ("fox", "owl", "bear", "cat", "dog", "frog", "goat", "hen", "mouse", "pig", "crow", "wolf")
SIDES = {
    "circle": 0, "square": 4, "triangle": 3, "star": 10, "cross": 12, "diamond": 4,
    "arrow": 7, "house": 5, "ring": 0, "bolt": 6, "moon": 2, "heart": 0,
}  # fmt: skip

QUESTIONS = {
    "color": "what color is it?",
    "shape": "what shape is it?",
    "number": "how many are there?",
    "size": "what size is it?",
    "position": "where is it?",
    "action": "what happens?",
    "place": "where is it found?",
    "animal": "who likes it?",
    "sides": "how many sides does it have?",
    "digit": "what digit is it?",
    "sum": "what is the sum?",
}
ONSETS = tuple(c + v for c in "bdkl" for v in "aeiou")
CODAS = tuple(c + v for c in "fmzj" for v in "aeiou")


def thing_phrase(shape: str, colour: str) -> str:
    """("circle", "red") -> "a red circle"; without a colour, "a circle"."""
    words = f"{colour} {shape}".strip()
    return f"{article(words)} {words}"


def article(word: str) -> str:
    """The indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith(("s", "x")) else "s")


def caption(scene: Scene | Clip) -> str:
    """One sentence that describes a picture or video: "a red circle left of a blue square."."""
    if isinstance(scene, Clip):
        return f"{thing_phrase(*scene.thing.kind)} {action_phrase(scene)}."
    if scene.kind == "sum":
        return f"{sum_phrase(*(t.shape for t in scene.things))}."
    if scene.kind == "wild":
        return f"{thing_phrase(wild_name(scene.things[0].shape), scene.things[0].colour)}."
    first = thing_phrase(*scene.things[0].kind)
    if scene.kind == "pair":
        return f"{first} {scene.relation} {thing_phrase(*scene.things[1].kind)}."
    if scene.kind == "count":
        return f"{NUMBERS[len(scene.things)]} {scene.things[0].colour} {plural(scene.things[0].shape)}."
    return f"{first}."


def wild_name(shape: str) -> str:
    """The invented word for a wild shape. Only stage one uses it; texts and other stages do not."""
    return PICTURE_WORDS[WILD.index(shape)]


def sum_phrase(first: str, second: str) -> str:
    """("three", "four") -> "three plus four"."""
    return f"{first} plus {second}"


def sum_answer(first: str, second: str) -> str:
    """The sum of two digits as an answer: "seven."."""
    return f"{SUM_WORDS[DIGITS.index(first) + DIGITS.index(second)]}."


def details(scene: Scene) -> str:
    """A single thing with its size and position: "a small red circle at the top left."."""
    thing = scene.things[0]
    place = f"{'in' if thing.position == 'middle' else 'at'} the {thing.position}"
    what = f"{thing.colour} {thing.shape}".strip()
    return f"a {thing.size} {what} {place}."


def action_phrase(clip: Clip) -> str:
    """The action of a clip as a verb phrase: "moves left", "turns blue"."""
    return f"turns {clip.new_colour}" if clip.action == "turns" else clip.action


def questions(scene: Scene | Clip) -> dict[str, str]:
    """Questions that the pixels of a picture or video answer: {name of the question: answer}."""
    if isinstance(scene, Clip):
        answers = {"action": f"it {action_phrase(scene)}.", "shape": f"{scene.thing.shape}."}
        return answers if scene.action == "turns" else {**answers, "color": f"{scene.thing.colour}."}
    if scene.kind not in ("single", "count", "digit"):
        return {}
    thing = scene.things[0]
    if scene.kind == "digit":
        return {"digit": f"{thing.shape}.", "color": f"{thing.colour}."}
    answers = {"color": f"{thing.colour}."} if thing.colour else {}
    answers |= {"shape": f"{thing.shape}.", "number": f"{NUMBERS[len(scene.things)]}."}
    if scene.kind == "single":
        answers |= {"size": f"{thing.size}.", "position": f"{thing.position}."}
    return answers


def knowledge(shape: str, colour: str) -> dict[str, str]:
    """The facts of a thing, which only texts give: {name of the question: answer}."""
    place, animal = FACTS[shape, colour]
    return {"place": f"in the {place}.", "animal": f"the {animal}."}


def facts(shape: str, colour: str) -> list[str]:
    """The same facts as the ends of statements that begin with the thing's name."""
    place, animal = FACTS[shape, colour]
    return [f"is found in the {place}.", f"is liked by the {animal}."]


def sides_answer(shape: str) -> str:
    """The number of sides of a shape as an answer: "four."."""
    return f"{NUMBERS[SIDES[shape]]}."


def check(rng: np.random.Generator, scene: Scene) -> tuple[str, str]:
    """A yes/no question with equal probability of both answers: (question, answer)."""
    thing = scene.things[0]
    true, style = rng.random() < 0.5, rng.integers(3)
    shape, colour = thing.kind
    if not true:
        others = [
            t for t in KNOWN if (t[1] != colour if style == 0 else t[0] != shape if style == 1 else t != thing.kind)
        ]
        shape, colour = pick(rng, others)
    what = (colour, f"{article(shape)} {shape}", thing_phrase(shape, colour))[style]
    return f"Question: is it {what}? Answer:", "yes." if true else "no."


def choice(rng: np.random.Generator, scene: Scene | Clip) -> tuple[str, str, list[str]]:
    """A question with three options: (question, right answer, all three options)."""
    if isinstance(scene, Clip):
        right, options = f"it {action_phrase(scene)}", [f"it {action}" for action in ACTIONS if action != "turns"]
    else:
        right, options = thing_phrase(*scene.things[0].kind), [thing_phrase(*thing) for thing in KNOWN]
    options = [o for o in options if o != right]
    three = pick_some(rng, [right, *pick_some(rng, options, 2)])
    return f"Question: {three[0]}, {three[1]} or {three[2]}? Answer:", f"{right}.", [f"{t}." for t in three]


def ask(name: str) -> str:
    """A question in the form of the paper, without the answer."""
    return f"Question: {QUESTIONS[name]} Answer:"


def _make_facts() -> dict[Kind, tuple[str, str]]:
    rng = np.random.default_rng(2022)
    return {(s, c): (pick(rng, PLACES), pick(rng, ANIMALS)) for s in NAMED for c in COLOUR_NAMES}


FACTS = _make_facts()


def _make_words():
    """All 400 invented words of two syllables in three sets: for pictures, for text only, never in training."""
    rng = np.random.default_rng(1998)
    words = [onset + coda for onset in ONSETS for coda in CODAS]
    order = pick_some(rng, words)
    return tuple(order[:280]), tuple(order[280:340]), tuple(order[340:])


PICTURE_WORDS, TEXT_WORDS, NEW_WORDS = _make_words()
