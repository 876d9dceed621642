"""Text-only documents: what the language model reads before it ever meets a picture (chapter §4).

Facts, descriptions, questions about a description, dialogues, and few-shot episodes with invented
words. `random_repeat` is the document that makes in-context learning appear: random tokens, then
the same again (docs/deviations.md tells the story).

Not here: documents with pictures (`pages.py`), and tokenization.
"""

from __future__ import annotations

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import (
    HELD_OUT,
    KNOWN,
    NAMED,
    pick,
    sample_clip,
    sample_scene,
    sample_single,
    sample_uncoloured,
)

# Shares of each kind of document in the text corpus, by name of its function below.
TEXT_MIXTURE = {
    "facts": 0.14,
    "fact_questions": 0.26,
    "reading": 0.20,
    "description": 0.08,
    "episode": 0.32,
}


def text_document(rng) -> str:
    """One document of the text corpus."""
    names = list(TEXT_MIXTURE)
    name = names[int(rng.choice(len(names), p=list(TEXT_MIXTURE.values())))]
    return DOCUMENTS[name](rng)


def facts(rng) -> str:
    """Three facts in a row."""
    return " ".join(_fact(rng) for _ in range(3))


def _fact(rng) -> str:
    if rng.random() < 0.1:
        shape = pick(rng, NAMED)
        number = say.NUMBERS[say.SIDES[shape]]
        return f"{say.article(shape)} {shape} has {number} side{'' if number == 'one' else 's'}."
    return pick(rng, say.fact_sentences(*pick(rng, KNOWN)))


def fact_questions(rng) -> str:
    """A thing is named, in one of several ways; then knowledge is asked for, looks in between."""
    scene = sample_single(rng)
    shape, colour = scene.things[0].kind
    answers = list(say.knowledge(shape, colour).items()) + [("sides", say.sides_answer(shape))]
    seen = list(say.questions(scene).items())[:2]
    asked = [pick(rng, answers[:2]), pick(rng, answers if rng.random() < 0.2 else answers[:2])]
    if rng.random() < 0.4:
        asked.insert(int(rng.integers(3)), pick(rng, seen))
    return " ".join([_opening(rng, scene), *(f"{say.ask(n)} {a}" for n, a in asked)])


def _opening(rng, scene) -> str:
    """Ways a text may name what it talks about."""
    text = say.details(scene) if scene.kind == "single" and rng.random() < 0.4 else say.caption(scene)
    prefix = "Details: " if text.count(" ") > 4 and scene.kind == "single" else "Output: "
    return (prefix if rng.random() < 0.4 else "") + text


def reading(rng) -> str:
    """A description and questions that reading it answers."""
    scene = sample_clip(rng) if rng.random() < 0.25 else sample_scene(rng)
    if scene.kind == "pair":
        return description(rng)
    detailed = scene.kind == "single" and rng.random() < 0.7
    answers = list(say.questions(scene).items())
    if scene.kind == "single" and not detailed:
        answers = answers[:3]
    opening = say.details(scene) if detailed else say.caption(scene)
    prefix = ("Details: " if detailed else "Output: ") if rng.random() < 0.4 else ""
    asked = [answers[i] for i in rng.permutation(len(answers))[: int(rng.integers(1, 4))]]
    return " ".join([prefix + opening, *(f"{say.ask(n)} {a}" for n, a in asked)])


def description(rng) -> str:
    """Some captions in a row."""
    samplers = (sample_clip, sample_uncoloured, sample_scene, sample_scene, sample_scene)
    scenes = [pick(rng, samplers)(rng) for _ in range(3)]
    return " ".join(_opening(rng, scene) for scene in scenes)


def episode(rng) -> str:
    """A few-shot episode in words: "a red circle lofa. a blue star dimu. ..."; labels follow their key."""
    ways = int(rng.integers(2, 6))
    words = [str(w) for w in rng.choice(say.PICTURE_WORDS + say.TEXT_WORDS, size=ways, replace=False)]
    rule, classes = sample_classes(rng, ways)
    style = rng.random()
    lines = []
    for i in shot_order(rng, ways, int(rng.integers(8, 18))):
        shape, colour = pick(rng, classes[i])
        key = say.thing_phrase(shape, colour)
        if style < 0.35 and rule != "thing":  # the bare word that matters
            key = colour if rule == "color" else shape
        elif style < 0.5:
            key = f"{colour} {shape}"
        lines.append(f"{key} {words[i]}.")
    return " ".join(lines)


def sample_classes(rng, ways, things=KNOWN):
    """A rule ("color", "shape" or "thing") and, for each class, the things that belong to it."""
    rule = pick(rng, ("color", "shape", "thing"))
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


def random_repeat(rng, pieces, length, forbidden):
    """Token ids: a random row of `length // 2` pieces, twice. forbidden: pairs that may not meet."""
    row = [int(i) for i in rng.choice(pieces, size=max(2, length // 2))]
    for i in range(1, len(row)):
        while (row[i - 1], row[i]) in forbidden:
            row[i] = int(rng.choice(pieces))
    while (row[-1], row[0]) in forbidden:
        row[-1] = int(rng.choice(pieces))
    return row + row


def forbidden_pairs(tokenizer):
    """Pairs of ids that would spell a held-out thing or a word that no text may hold."""
    phrases = [f"{colour} {shape}" for shape, colour in HELD_OUT]
    phrases += [f"{colour} {say.plural(shape)}" for shape, colour in HELD_OUT]
    rows = [tokenizer.encode(text) for text in (*phrases, *say.NEW_WORDS)]
    return {pair for row in rows for pair in zip(row, row[1:], strict=False)}


def tokenizer_lines(rng, count=8000):
    """Lines to train the tokenizer on: the text corpus, with invented words rare beside their syllables."""
    plain = [DOCUMENTS[name] for name in ("facts", "fact_questions", "reading", "description")]
    for _ in range(count):
        yield pick(rng, plain)(rng)
    for word in say.PICTURE_WORDS + say.TEXT_WORDS:
        yield from [word] * 2  # so rare that no word is merged whole, while its syllables are
    for syllable in say.ONSETS:
        yield from [syllable] * 3000


DOCUMENTS = {
    "facts": facts,
    "fact_questions": fact_questions,
    "reading": reading,
    "description": description,
    "episode": episode,
}
