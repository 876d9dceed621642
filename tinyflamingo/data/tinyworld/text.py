"""Text-only documents: the language model reads them before it sees any picture (chapter §4).

Facts, questions about a description, and few-shot episodes with invented words. The topic of a text is
random and cannot be predicted, so it is `Quiet`; if the model learned it, the model would learn that the
held-out things do not exist. In-context learning appears because of `random_repeat`: random tokens, then
the same tokens again (see docs/deviations.md).

Not here: documents with pictures (`pages.py`), and tokenization.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflamingo.data.items import Quiet, text_of
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import (
    HELD_OUT,
    KNOWN,
    NAMED,
    SUMS,
    Clip,
    Kind,
    Scene,
    pick,
    pick_some,
    sample_clip,
    sample_count,
    sample_digit,
    sample_scene,
    sample_single,
    sample_sum,
)

if TYPE_CHECKING:
    from tinyflamingo.model.tokenizer import Tokenizer

# Share of each kind of document, by the name of its function. The training stage adds the episodes; its
# curriculum sets their share.
TEXT_MIXTURE = {"facts": 0.14, "fact_questions": 0.32, "reading": 0.22, "sums": 0.12, "quiz": 0.20}

WAYS = (2, 2, 3, 4, 5, 5, 8, 8)  # numbers of classes in an episode; each entry has equal probability
# The properties that can define the classes of an episode; TAUGHT: with the frequencies in language pretraining.
RULES = ("color", "shape", "thing")
TAUGHT = ("color", "color", "shape", "shape", "thing")


class Topics(NamedTuple):
    """What a text can be about."""

    things: Sequence[Kind] = KNOWN
    sums: Sequence[tuple[int, int]] = SUMS


EVERYTHING = Topics()


def elsewhere(scenes: Sequence[Scene]) -> Topics:
    """The topics of texts on a page with these scenes: neither their things nor their sums.

    Some facts and sums are only in text, so that a test can ask a picture for them. They must not be beside it.
    """
    things = {thing.kind for scene in scenes for thing in scene.things}
    added = {scene.digits for scene in scenes if scene.kind == "sum"}
    return Topics([kind for kind in KNOWN if kind not in things], [pair for pair in SUMS if pair not in added])


def text_document(rng: np.random.Generator, topics: Topics | None = None, longer: int = 1) -> list:
    """One document of the text corpus, without few-shot episodes: a list of str and `Quiet`.

    topics: what it can be about; None: everything. longer: a quiz has up to about this many times the usual length.
    """
    names, topics = list(TEXT_MIXTURE), topics or EVERYTHING
    name = names[int(rng.choice(len(names), p=list(TEXT_MIXTURE.values())))]
    return quiz(rng, topics, longer) if name == "quiz" else DOCUMENTS[name](rng, topics)


def facts(rng: np.random.Generator, topics: Topics) -> list:
    """Three facts."""
    return [part for _ in range(3) for part in _fact(rng, topics.things)]


def _fact(rng, things) -> list:
    if rng.random() < 0.1:
        shape = pick(rng, NAMED)
        number = say.NUMBERS[say.SIDES[shape]]
        return [Quiet(f"{say.article(shape)} {shape}"), f"has {number} sides."]
    thing = pick(rng, things)
    return [Quiet(say.thing_phrase(*thing)), pick(rng, say.facts(*thing))]


def fact_questions(rng: np.random.Generator, topics: Topics) -> list:
    """A description of a thing, then questions about its facts, sometimes with one about its look between them."""
    scene = sample_single(rng, topics.things)
    shape, colour = scene.things[0].kind
    answers = list(say.knowledge(shape, colour).items()) + [("sides", say.sides_answer(shape))]
    visible = list(say.questions(scene).items())[:2]
    asked = [pick(rng, answers[:2]), pick(rng, answers if rng.random() < 0.2 else answers[:2])]
    if rng.random() < 0.4:
        asked.insert(int(rng.integers(3)), pick(rng, visible))
    return [_opening(rng, scene, rng.random() < 0.4), *_turns(asked)]


def _opening(rng, scene, detailed) -> Quiet:
    """The description at the start of a text, with or without its prompt."""
    prompt, text = ("Details:", say.details(scene)) if detailed else ("Output:", say.caption(scene))
    return Quiet(f"{prompt} {text}" if rng.random() < 0.4 else text)


def _turns(asked) -> list:
    return [part for name, answer in asked for part in (Quiet(say.ask(name)), answer)]


def reading(rng: np.random.Generator, topics: Topics) -> list:
    """A description, and questions that it answers."""
    scene: Scene | Clip
    if rng.random() < 0.1:
        scene = sample_digit(rng)
    else:
        sample = sample_clip if rng.random() < 0.25 else pick(rng, (sample_single, sample_single, sample_count))
        scene = sample(rng, topics.things)
    detailed = scene.kind == "single" and rng.random() < 0.7
    answers = list(say.questions(scene).items())
    if scene.kind == "single" and not detailed:
        answers = answers[:3]
    asked = pick_some(rng, answers, int(rng.integers(1, 4)))
    return [_opening(rng, scene, detailed), *_turns(asked), *riddle(rng, scene)]


def riddle(rng: np.random.Generator, scene: Scene | Clip) -> list:
    """At random: a yes/no question, a question with options, or nothing."""
    draw = rng.random()
    if isinstance(scene, Scene) and not (scene.kind == "single" and scene.things[0].colour):
        return []
    if isinstance(scene, Scene) and draw < 0.45:
        question, answer = say.check(rng, scene)
    elif draw < 0.6:
        question, answer, _ = say.choice(rng, scene)
    else:
        return []
    return [Quiet(question), answer]


def quiz(rng: np.random.Generator, topics: Topics, longer: int = 1) -> list:
    """Several descriptions, each with a question about it alone: few-shot prompts in words."""
    kinds = pick(rng, QUIZZES)
    return [part for _ in range(int(rng.integers(3, 3 + 4 * longer))) for part in QUIZ[pick(rng, kinds)](rng, topics)]


def _fact_asked(rng, topics):
    scene = (sample_clip if rng.random() < 0.25 else sample_single)(rng, topics.things)
    thing = scene.thing if scene.kind == "clip" else scene.things[0]
    return [_opening(rng, scene, False), *_turns([pick(rng, list(say.knowledge(*thing.kind).items()))])]


def _visible_asked(rng, topics):
    scene = pick(rng, (sample_single, sample_clip, sample_count))(rng, topics.things)
    return [_opening(rng, scene, scene.kind == "single"), *_turns([pick(rng, list(say.questions(scene).items()))])]


def _check_asked(rng, topics):
    scene = sample_single(rng, topics.things)
    question, answer = say.check(rng, scene) if rng.random() < 0.7 else say.choice(rng, scene)[:2]
    return [_opening(rng, scene, False), Quiet(question), answer]


def _sum_asked(rng, topics):
    scene = sample_sum(rng, topics.sums)
    answer = say.sum_answer(*(thing.shape for thing in scene.things))
    return [_opening(rng, scene, False), *_turns([("sum", answer)])]


# The kinds of questions in a quiz: mostly one kind for all descriptions.
QUIZZES = (*[("fact",)] * 2, ("fact", "visible", "check", "sum"), ("visible",), *[("check",)] * 5, ("sum",))
QUIZ = {"fact": _fact_asked, "visible": _visible_asked, "check": _check_asked, "sum": _sum_asked}


def sums(rng: np.random.Generator, topics: Topics) -> list:
    """Three sums of two digits, each a statement or a question."""
    items = []
    for _ in range(3):
        first, second = (thing.shape for thing in sample_sum(rng, (pick(rng, topics.sums),)).things)
        phrase, answer = say.sum_phrase(first, second), say.sum_answer(first, second)
        if rng.random() < 0.5:
            items += [Quiet(phrase), f"is {answer}"]
        else:
            items += [Quiet(f"{phrase}. {say.ask('sum')}"), answer]
    return items


def episode(rng: np.random.Generator, longest: int = 18) -> list:
    """A few-shot episode in words: "a red circle lofa. a blue star dimu. ...". A label follows its key."""
    ways = pick(rng, WAYS)
    words = pick_some(rng, say.ANIMALS + say.PLACES if rng.random() < 0.2 else say.PICTURE_WORDS + say.TEXT_WORDS, ways)
    rule, classes = sample_classes(rng, ways, rules=TAUGHT)
    style, items, met = rng.random(), [], set()
    members = [in_rounds(rng, things) for things in classes]
    for i in shot_order(rng, ways, int(rng.integers(max(8, ways + 2), longest))):
        label = f"{words[i]}."
        items += [Quiet(key(rule, style, *next(members[i]))), label if i in met else Quiet(label)]
        met.add(i)
    return items


def key(rule, style, shape, colour) -> str:
    """The name of a thing in an episode: only the word of the rule, two words, or the phrase of captions."""
    if style < 0.2 and rule != "thing":
        return colour if rule == "color" else shape
    return f"{colour} {shape}" if style < 0.4 else say.thing_phrase(shape, colour)


def sample_classes(
    rng: np.random.Generator, ways: int, things: Sequence[Kind] = KNOWN, rules: Sequence[str] = RULES
) -> tuple[str, list[list[Kind]]]:
    """One of the rules, and the things of each class."""
    rule = pick(rng, rules)
    if rule == "thing":
        return rule, [[thing] for thing in pick_some(rng, things, ways)]
    index = 1 if rule == "color" else 0
    values = sorted({t[index] for t in things})
    return rule, [[t for t in things if t[index] == value] for value in pick_some(rng, values, ways)]


def shot_order(rng: np.random.Generator, ways: int, shots: int) -> list[int]:
    """The class of each shot. A round contains all classes in a random order."""
    order: list[int] = []
    while len(order) < shots:
        order += [int(i) for i in rng.permutation(ways)]
    return order[:shots]


def in_rounds(rng: np.random.Generator, things: Sequence[Kind]) -> Iterator[Kind]:
    """Endless rounds over all things. No thing returns early, so the model must learn what a class has in common."""
    while True:
        yield from pick_some(rng, things)


def random_repeat(rng: np.random.Generator, pieces: np.ndarray, length: int, tokenizer: Tokenizer) -> list[int]:
    """Token ids: a random row of `length // 2` pieces, twice. A row that spells a held-out thing is drawn again."""
    while True:
        row = [int(i) for i in rng.choice(pieces, size=max(2, length // 2))]
        if not HELD_OUT_TEXT.search(tokenizer.decode(row + row)):
            return row + row


def _held_out_text():
    """A pattern of all held-out things and of the words that no text may contain."""
    things = [f"{colour} (?:{shape}|{say.plural(shape)})" for shape, colour in sorted(HELD_OUT)]
    return re.compile("|".join((*things, *say.NEW_WORDS)), re.IGNORECASE)


HELD_OUT_TEXT = _held_out_text()


def tokenizer_lines(rng: np.random.Generator, count: int = 8000) -> Iterator[str]:
    """Training text of the tokenizer: the text corpus, with few invented words and many of their syllables.

    There are no quizzes. They have no new words, and with them the tokenizer merged a whole invented word.
    """
    for _ in range(count):
        items = pick(rng, (facts, fact_questions, reading, sums))(rng, EVERYTHING)
        yield " ".join(map(text_of, items))
        yield say.caption(sample_scene(rng))
    for word in say.PICTURE_WORDS + say.TEXT_WORDS:
        yield from [word] * 2  # rare enough that the tokenizer merges syllables, but no whole word
    for syllable in say.ONSETS:
        yield from [syllable] * 3000


DOCUMENTS = {"facts": facts, "fact_questions": fact_questions, "reading": reading, "sums": sums}
