"""Documents with pictures and videos: the training data of Flamingo itself (chapter §4 and §5).

They replace the paper's three kinds of data: interleaved pages (M3W), picture-text pairs (ALIGN, LTIP)
and video-text pairs (VTP). A document is a list of strings, media of a pool, and `Quiet` strings: the
model reads these but does not learn them, because they cannot be predicted (for example, the next question).

Not here: text-only documents (`text.py`), tests and their scores (`evaluation/`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import Pool
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    KNOWN,
    UNASKED_SUMS,
    WILD_THINGS,
    WRITTEN,
    Clip,
    Scene,
    pick,
    pick_some,
)
from tinyflamingo.data.tinyworld.text import (
    WAYS,
    elsewhere,
    fact_questions,
    in_rounds,
    riddle,
    sample_classes,
    shot_order,
    text_document,
)
from tinyflamingo.data.tinyworld.text import episode as text_episode

# Share of each kind of interleaved page, by the name of its function: for pages of usual length, and for longer ones.
PAGE_MIXTURE = {
    "album": 0.08, "drill": 0.12, "episodes": 0.26, "knowledge_page": 0.34, "text_page": 0.14, "web_page": 0.06,
}  # fmt: skip
LONG_PAGE_MIXTURE = {"album": 0.10, "drill": 0.14, "episodes": 0.54, "knowledge_page": 0.14, "text_page": 0.08}

# Kinds of pictures in an album, on a web page and in a pair; each entry has equal probability.
ALBUM_KINDS = (*["single"] * 3, *["uncoloured"] * 2, *["pair"] * 3, "count", "digit", "sum")
WEB_KINDS = ("single", "pair", "pair", "pair", "count")
PAIR_KINDS = (*WEB_KINDS, "pair", "uncoloured", "digit", "sum")
EPISODE_THINGS = (*[KNOWN] * 4, *[WILD_THINGS] * 3, WRITTEN)  # the things of episodes
# The property that defines the classes. With wild things it is mostly the shape, with other things mostly the colour:
# a model that sees one property more often gives it more weight everywhere, so both must be balanced.
WILD_RULES = (*["shape"] * 3, "color", "thing")
EPISODE_RULES = (*["color"] * 5, *["shape"] * 3, "thing")
SPOKEN = 0.3  # share of an episode's shots that have a phrase in place of a picture
MOST_CLIPS = 20  # most clips of a drill: a clip has eight frames, as much as eight pictures
ASIDES = 0.4  # share of an album's pictures whose text continues with another topic, as on real pages
NAMED_FIRST, MISNAMED = 0.6, 0.4  # shares of named things on a page of facts, and of wrong names among them


def page(
    rng: np.random.Generator, pool: Pool, mixture: Mapping[str, float] | None = None, length: int = 1
) -> tuple[str, list]:
    """One interleaved page: (name of its kind, items). It has more than `length` times 96 tokens, and will be cut."""
    mixture = mixture or (PAGE_MIXTURE if length == 1 else LONG_PAGE_MIXTURE)
    names = list(mixture)
    name = names[int(rng.choice(len(names), p=list(mixture.values())))]
    return name, PAGES[name](rng, pool, length)


def album(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """Pictures of all kinds, each with a description or a question.

    Some texts continue with another topic (`elsewhere`).
    """
    media = [pool.any_picture(rng, pick(rng, ALBUM_KINDS)) for _ in range(9 * length)]
    topics, items = elsewhere([pool.what(medium) for medium in media]), []
    for medium in media:
        items += [medium, *described(rng, pool.what(medium))]
        if rng.random() < ASIDES:
            items += text_document(rng, topics)
    return items


def described(rng: np.random.Generator, scene: Scene) -> list:
    """The text of one chunk: a caption, details, questions, or a caption and questions."""
    style = rng.random()
    if scene.kind == "single" and not scene.things[0].colour:  # a caption needs a colour
        return dialogue_turns(rng, say.questions(scene), int(rng.integers(1, 4)))
    if scene.kind == "pair" or style < 0.25:
        return captioned(rng, scene)
    if scene.kind == "sum":
        return added_up(rng, scene)
    if scene.kind == "single" and style < 0.5:
        return detailed(rng, scene)
    opening = captioned(rng, scene) if style < 0.6 else []
    turns = dialogue_turns(rng, say.questions(scene), int(rng.integers(1, 4)))
    return opening + turns + riddle(rng, scene)


def drill(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """One task for several pictures or videos, like a prompt of shots."""
    kinds, text_of = pick(rng, DRILLS)
    if kinds == ("clip",):
        media = [pool.any_clip(rng) for _ in range(min(9 * length, MOST_CLIPS))]
    else:
        media = [pool.any_picture(rng, pick(rng, kinds)) for _ in range(9 * length)]
    return [part for medium in media for part in (medium, *text_of(rng, pool.what(medium)))]


def captioned(rng: np.random.Generator, scene: Scene | Clip) -> list:
    """The prompt of a caption, and the caption."""
    return [Quiet("Output:"), say.caption(scene)]


def detailed(rng: np.random.Generator, scene: Scene) -> list:
    """The prompt of details, and a single thing with its size and position."""
    return [Quiet("Details:"), say.details(scene)]


def asked(rng: np.random.Generator, scene: Scene | Clip) -> list:
    """One question that the pixels answer."""
    return dialogue_turns(rng, say.questions(scene), 1)


def checked(rng: np.random.Generator, scene: Scene) -> list:
    """A yes/no question."""
    question, answer = say.check(rng, scene)
    return [Quiet(question), answer]


def chosen(rng: np.random.Generator, scene: Scene | Clip) -> list:
    """A question with options."""
    question, answer, _ = say.choice(rng, scene)
    return [Quiet(question), answer]


def added_up(rng: np.random.Generator, scene: Scene) -> list:
    """Two digits and their sum, with or without a caption before it. For UNASKED_SUMS only the caption."""
    caption = captioned(rng, scene)
    if scene.digits in UNASKED_SUMS:
        return caption
    answer = [Quiet(say.ask("sum")), say.sum_answer(*(thing.shape for thing in scene.things))]
    return caption + answer if rng.random() < 0.6 else answer


def dialogue_turns(rng: np.random.Generator, answers: Mapping[str, str], turns: int) -> list:
    """Some of the questions with their answers, in random order."""
    names = pick_some(rng, list(answers), turns)
    return [part for name in names for part in (Quiet(say.ask(name)), answers[name])]


def episodes(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """One long few-shot episode, or several shorter ones: the model learns most from the first shots of an episode."""
    items: list = []
    while len(items) < 48 * length:
        items += episode(rng, pool, 24 * int(rng.integers(1, length + 1)))
    return items


def episode(rng: np.random.Generator, pool: Pool, shots: int = 24) -> list:
    """A few-shot episode: an invented word directly follows each picture.

    Some shots have a phrase in place of the picture, so that the trace of a picture in the hidden states
    becomes similar to that of a phrase. A word that appears for the first time cannot be predicted: it has no loss.
    """
    ways = pick(rng, WAYS)
    kind = pick(rng, EPISODE_THINGS)
    rules = WILD_RULES if kind is WILD_THINGS else EPISODE_RULES
    _, classes = sample_classes(rng, ways, pool.shown(kind), rules)
    words = pick_some(rng, say.PICTURE_WORDS, ways)
    items: list = []
    met = set()
    members = [in_rounds(rng, things) for things in classes]
    for i in shot_order(rng, ways, shots):
        thing, label = next(members[i]), f"{words[i]}."
        spoken = kind is not WILD_THINGS and rng.random() < SPOKEN
        items += [EOC, Quiet(say.thing_phrase(*thing))] if spoken else [pool.picture_of(rng, thing)]
        items.append(label if i in met else Quiet(label))
        met.add(i)
    return items


def knowledge_page(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """Pictures of ASKED things, with questions about their facts.

    Some texts give a wrong name or continue with the facts of another thing: the words decide, not the picture.
    """
    media = [pool.picture_of(rng, pick(rng, ASKED)) for _ in range(6 * length)]
    topics = elsewhere([pool.what(medium) for medium in media])
    items: list = []
    for medium in media:
        scene = pool.what(medium)
        thing = scene.things[0].kind
        items.append(medium)
        if rng.random() < NAMED_FIRST:
            name: str | Quiet = say.caption(scene)
            if rng.random() < MISNAMED:
                thing = pick(rng, topics.things)
                name = Quiet(f"{say.thing_phrase(*thing)}.")
            items += [Quiet("Output:"), name]
        elif rng.random() < 0.3:
            items += dialogue_turns(rng, say.questions(scene), 1)
        items += dialogue_turns(rng, say.knowledge(*thing), 1)
        if rng.random() < ASIDES:
            items += fact_questions(rng, topics)
    return items


def text_page(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """Text only. With it, the new layers can still use the knowledge of the language model."""
    documents = [
        text_episode(rng) if rng.random() < 0.3 else text_document(rng, longer=length) for _ in range(4 * length)
    ]
    return [part for document in documents for part in (*document, EOC)]


def web_page(rng: np.random.Generator, pool: Pool, length: int = 1) -> list:
    """Captions before or after their pictures, without a prompt, like a page of the web."""
    before = rng.random() < 0.5
    items: list = []
    for _ in range(9 * length):
        medium = pool.any_picture(rng, pick(rng, WEB_KINDS))
        parts = [medium, say.caption(pool.what(medium))]
        items += parts[::-1] if before else parts
    return items


def pair(rng: np.random.Generator, pool: Pool) -> list:
    """One picture with its caption or details. If the colour has no name, a question about the shape instead."""
    kind = pick(rng, PAIR_KINDS)
    medium = pool.any_picture(rng, kind)
    scene = pool.what(medium)
    if kind == "uncoloured":
        return [medium, Quiet(say.ask("shape")), say.questions(scene)["shape"]]
    if scene.kind == "single" and rng.random() < 0.5:
        return [medium, *detailed(rng, scene)]
    return [medium, *captioned(rng, scene)]


def video(rng: np.random.Generator, pool: Pool) -> list:
    """One clip with its caption, or with questions about it."""
    medium = pool.any_clip(rng)
    clip = pool.what(medium)
    if rng.random() < 0.5:
        return [medium, *captioned(rng, clip)]
    return [medium, *(riddle(rng, clip) or dialogue_turns(rng, say.questions(clip), 2))]


# Tasks of a drill: the kinds of its pictures or clips, and the function that writes their texts.
DRILLS = (
    (WEB_KINDS, captioned),
    (("single",), detailed),
    (("single", "single", "count", "digit"), asked),
    *[(("single",), checked)] * 4,  # a comparison is learned late
    (("single",), chosen),
    (("sum",), added_up),
    (("clip",), captioned),
    (("clip",), asked),
    (("clip",), chosen),
)
PAGES = {
    "album": album,
    "drill": drill,
    "episodes": episodes,
    "knowledge_page": knowledge_page,
    "text_page": text_page,
    "web_page": web_page,
}
