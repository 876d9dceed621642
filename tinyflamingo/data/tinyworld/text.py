"""Text-only documents: what the language model reads before it ever meets a picture (chapter §4).

Facts, questions about a description, and few-shot episodes with invented words. What a text is
about, nobody can know beforehand: that part is `Quiet` (learned, it would teach the model that the
held-out things do not exist). `random_repeat` is the document that makes in-context learning
appear: random tokens, then the same again (docs/deviations.md tells the story).

Not here: documents with pictures (`pages.py`), and tokenization.
"""

from __future__ import annotations

import re

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import (
    HELD_OUT,
    KNOWN,
    NAMED,
    SUMS,
    pick,
    sample_clip,
    sample_count,
    sample_digit,
    sample_scene,
    sample_single,
    sample_sum,
)

# Shares of each kind of document, by name of its function below; episodes are mixed in by the training
# stage, whose curriculum decides how many.
TEXT_MIXTURE = {"facts": 0.14, "fact_questions": 0.32, "reading": 0.22, "sums": 0.12, "quiz": 0.20}

WAYS = (2, 2, 3, 4, 5, 5, 8, 8)  # classes of an episode, as often as they stand here
# What may tell the classes of an episode apart; and the same as often as language pretraining has them.
RULES = ("color", "shape", "thing")
TAUGHT = ("color", "color", "shape", "shape", "thing")


def text_document(rng, things=None, longer=1) -> list:
    """One document of the text corpus, few-shot episodes aside: a list of str and `Quiet`.

    things: the (shape, colour) pairs that it may be about; by default all that are known. longer: how many times as
    long as usual a quiz may be.
    """
    names = list(TEXT_MIXTURE)
    name = names[int(rng.choice(len(names), p=list(TEXT_MIXTURE.values())))]
    return quiz(rng, things or KNOWN, longer) if name == "quiz" else DOCUMENTS[name](rng, things or KNOWN)


def facts(rng, things) -> list:
    """Three facts in a row."""
    return [part for _ in range(3) for part in _fact(rng, things)]


def _fact(rng, things) -> list:
    if rng.random() < 0.1:
        shape = pick(rng, NAMED)
        number = say.NUMBERS[say.SIDES[shape]]
        return [Quiet(f"{say.article(shape)} {shape}"), f"has {number} side{'' if number == 'one' else 's'}."]
    thing = pick(rng, things)
    return [Quiet(say.thing_phrase(*thing)), pick(rng, say.facts(*thing))]


def fact_questions(rng, things) -> list:
    """A thing is named, in one of several ways; then knowledge is asked for, looks in between."""
    scene = sample_single(rng, things)
    shape, colour = scene.things[0].kind
    answers = list(say.knowledge(shape, colour).items()) + [("sides", say.sides_answer(shape))]
    seen = list(say.questions(scene).items())[:2]
    asked = [pick(rng, answers[:2]), pick(rng, answers if rng.random() < 0.2 else answers[:2])]
    if rng.random() < 0.4:
        asked.insert(int(rng.integers(3)), pick(rng, seen))
    return [_opening(rng, scene, rng.random() < 0.4), *_turns(asked)]


def _opening(rng, scene, detailed) -> Quiet:
    """What a text is about, with or without the prompt that asks for it."""
    prompt, text = ("Details:", say.details(scene)) if detailed else ("Output:", say.caption(scene))
    return Quiet(f"{prompt} {text}" if rng.random() < 0.4 else text)


def _turns(asked) -> list:
    return [part for name, answer in asked for part in (Quiet(say.ask(name)), answer)]


def reading(rng, things) -> list:
    """A description and questions that reading it answers."""
    if rng.random() < 0.1:
        scene = sample_digit(rng)
    else:
        sample = sample_clip if rng.random() < 0.25 else pick(rng, (sample_single, sample_single, sample_count))
        scene = sample(rng, things)
    detailed = scene.kind == "single" and rng.random() < 0.7
    answers = list(say.questions(scene).items())
    if scene.kind == "single" and not detailed:
        answers = answers[:3]
    asked = [answers[i] for i in rng.permutation(len(answers))[: int(rng.integers(1, 4))]]
    return [_opening(rng, scene, detailed), *_turns(asked), *riddle(rng, scene)]


def riddle(rng, scene) -> list:
    """Sometimes a question by yes or no, or with answers to choose from; sometimes nothing."""
    draw = rng.random()
    if scene.kind == "single" and scene.things[0].colour and draw < 0.25:
        question, answer = say.check(rng, scene)
    elif scene.kind in ("single", "clip") and (scene.kind == "clip" or scene.things[0].colour) and draw < 0.45:
        question, answer, _ = say.choice(rng, scene)
    else:
        return []
    return [Quiet(question), answer]


def quiz(rng, things, longer=1) -> list:
    """Several descriptions, and after each a question about it, not about those before: shots, in words."""
    kinds = pick(rng, QUIZZES)
    return [part for _ in range(int(rng.integers(3, 3 + 4 * longer))) for part in QUIZ[pick(rng, kinds)](rng, things)]


def _fact_asked(rng, things):
    scene = (sample_clip if rng.random() < 0.25 else sample_single)(rng, things)
    thing = scene.thing if scene.kind == "clip" else scene.things[0]
    return [_opening(rng, scene, False), *_turns([pick(rng, list(say.knowledge(*thing.kind).items()))])]


def _look_asked(rng, things):
    scene = pick(rng, (sample_single, sample_clip, sample_count))(rng, things)
    return [_opening(rng, scene, scene.kind == "single"), *_turns([pick(rng, list(say.questions(scene).items()))])]


def _check_asked(rng, things):
    scene = sample_single(rng, things)
    question, answer = say.check(rng, scene) if rng.random() < 0.7 else say.choice(rng, scene)[:2]
    return [_opening(rng, scene, False), Quiet(question), answer]


def _sum_asked(rng, things):
    scene = sample_sum(rng)
    answer = say.sum_answer(*(thing.shape for thing in scene.things))
    return [_opening(rng, scene, False), *_turns([("sum", answer)])]


# What a quiz may ask for each description: mostly one kind of question all along.
QUIZZES = (*[("fact",)] * 2, ("fact", "look", "check", "sum"), ("look",), *[("check",)] * 2, ("sum",))
QUIZ = {"fact": _fact_asked, "look": _look_asked, "check": _check_asked, "sum": _sum_asked}


def sums(rng, things) -> list:
    """What two digits add up to: told, or asked for."""
    items = []
    for _ in range(3):
        first, second = (thing.shape for thing in sample_sum(rng, (pick(rng, SUMS),)).things)
        phrase, answer = say.sum_phrase(first, second), say.sum_answer(first, second)
        if rng.random() < 0.5:
            items += [Quiet(phrase), f"is {answer}"]
        else:
            items += [Quiet(f"{phrase}. {say.ask('sum')}"), answer]
    return items


def episode(rng, longest=18) -> list:
    """A few-shot episode in words: "a red circle lofa. a blue star dimu. ..."; labels follow their key."""
    ways = int(rng.choice(WAYS))
    labels = say.ANIMALS + say.PLACES if rng.random() < 0.2 else say.PICTURE_WORDS + say.TEXT_WORDS
    words = [str(w) for w in rng.choice(labels, size=ways, replace=False)]
    rule, classes = sample_classes(rng, ways, rules=TAUGHT)
    style, items, met = rng.random(), [], set()
    members = [in_rounds(rng, things) for things in classes]
    for i in shot_order(rng, ways, int(rng.integers(max(8, ways + 2), longest))):
        label = f"{words[i]}."
        items += [Quiet(_key(rule, style, *next(members[i]))), label if i in met else Quiet(label)]
        met.add(i)
    return items


def _key(rule, style, shape, colour) -> str:
    """How an episode names its things: by the one word that matters, by two, or as captions do."""
    if style < 0.2 and rule != "thing":
        return colour if rule == "color" else shape
    return f"{colour} {shape}" if style < 0.4 else say.thing_phrase(shape, colour)


def sample_classes(rng, ways, things=KNOWN, rules=RULES):
    """One of the rules and, for each class, the things that belong to it."""
    rule = pick(rng, rules)
    if rule == "thing":
        return rule, [[things[i]] for i in rng.permutation(len(things))[:ways]]
    index = 1 if rule == "color" else 0
    values = sorted({t[index] for t in things})
    chosen = [values[i] for i in rng.permutation(len(values))[:ways]]
    return rule, [[t for t in things if t[index] == value] for value in chosen]


def shot_order(rng, ways, shots):
    """Class of each shot: rounds over all classes, each in a random order."""
    order = []
    while len(order) < shots:
        order += [int(i) for i in rng.permutation(ways)]
    return order[:shots]


def in_rounds(rng, things):
    """Things without end, none again before all have been: so a class has to be known by what its things share."""
    while True:
        yield from (things[i] for i in rng.permutation(len(things)))


def random_repeat(rng, pieces, length, tokenizer) -> list:
    """Token ids: a random row of `length // 2` pieces, twice; drawn again while it spells what is held out."""
    while True:
        row = [int(i) for i in rng.choice(pieces, size=max(2, length // 2))]
        if not HELD_OUT_TEXT.search(tokenizer.decode(row + row)):
            return row + row


def _held_out_text():
    """Whatever spells a held-out thing, or a word that no text may hold."""
    things = [f"{colour} (?:{shape}|{say.plural(shape)})" for shape, colour in sorted(HELD_OUT)]
    return re.compile("|".join((*things, *say.NEW_WORDS)))


HELD_OUT_TEXT = _held_out_text()


def tokenizer_lines(rng, count=8000):
    """Lines to train the tokenizer on: the text corpus, with invented words rare beside their syllables.

    Quizzes are left out. They have no words of their own, and with them a merge was left over for an invented word.
    """
    for _ in range(count):
        items = pick(rng, (facts, fact_questions, reading, sums))(rng, KNOWN)
        yield " ".join(item.text if isinstance(item, Quiet) else item for item in items)
        yield say.caption(sample_scene(rng))
    for word in say.PICTURE_WORDS + say.TEXT_WORDS:
        yield from [word] * 2  # so rare that no word is merged whole, while its syllables are
    for syllable in say.ONSETS:
        yield from [syllable] * 3000


DOCUMENTS = {"facts": facts, "fact_questions": fact_questions, "reading": reading, "sums": sums}
