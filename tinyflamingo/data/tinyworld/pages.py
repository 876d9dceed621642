"""Documents with pictures and videos: what Flamingo itself is trained on (chapter §4 and §5).

Stand-ins for the paper's three kinds of data: interleaved pages (M3W), picture-text pairs (ALIGN,
LTIP) and video-text pairs (VTP). A document is a list of strings, `Quiet` strings (read, not
learned: what nobody could predict, such as which question comes next) and media of a pool.

Not here: text-only documents (`text.py`), tests and their scoring (`evaluation/`).
"""

from __future__ import annotations

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.glyphs import DIGITS
from tinyflamingo.data.tinyworld.pool import Pool
from tinyflamingo.data.tinyworld.scenes import ASKED, KNOWN, UNASKED_SUMS, WILD_THINGS, WRITTEN, pick
from tinyflamingo.data.tinyworld.text import WAYS, in_rounds, riddle, sample_classes, shot_order, text_document
from tinyflamingo.data.tinyworld.text import episode as text_episode

# Shares of each kind of interleaved page, by name of its function below: of those of usual length, and of longer ones.
PAGE_MIXTURE = {
    "album": 0.22, "drill": 0.16, "episodes": 0.32, "knowledge_page": 0.12, "text_page": 0.10, "web_page": 0.08,
}  # fmt: skip
LONG_PAGE_MIXTURE = {"album": 0.10, "drill": 0.16, "episodes": 0.62, "knowledge_page": 0.07, "text_page": 0.05}

# Kinds of pictures in an album, on a web page and alone, as often as they stand here.
ALBUM_KINDS = (*["single"] * 3, *["uncoloured"] * 2, *["pair"] * 3, "count", "digit", "sum")
WEB_KINDS = ("single", "pair", "pair", "pair", "count")
PAIR_KINDS = (*WEB_KINDS, "pair", "uncoloured", "digit", "sum")
EPISODE_THINGS = (*[KNOWN] * 4, *[WILD_THINGS] * 3, WRITTEN)  # what episodes are about
# What tells the classes apart. Shape is what wild things are for; colour makes up for it elsewhere, for a model that
# meets one of the two more often gives it more weight everywhere.
WILD_RULES = (*["shape"] * 3, "color", "thing")
EPISODE_RULES = (*["color"] * 5, *["shape"] * 3, "thing")
SPOKEN = 0.3  # share of an episode's shots that are phrases
MOST_CLIPS = 20  # of a drill; each has as many frames as eight pictures
ASIDES = 0.4  # share of an album's pictures whose text goes on about something else, as pages do


def page(rng, pool: Pool, mixture=None, length=1):
    """One interleaved page -> (name of its kind, items). Longer than `length` times 96 tokens: it will be cut."""
    mixture = mixture or (PAGE_MIXTURE if length == 1 else LONG_PAGE_MIXTURE)
    names = list(mixture)
    name = names[int(rng.choice(len(names), p=list(mixture.values())))]
    return name, PAGES[name](rng, pool, length)


def album(rng, pool, length=1):
    """Pictures of all kinds, each described or asked about.

    Some texts go on about something else; never about a thing on the page, for what only texts tell
    of a thing must not stand beside its picture.
    """
    media = [pool.any_picture(rng, pick(rng, ALBUM_KINDS)) for _ in range(9 * length)]
    shown = {thing.kind for medium in media for thing in pool.what(medium).things}
    elsewhere = [thing for thing in KNOWN if thing not in shown]
    items = []
    for medium in media:
        items += [medium, *described(rng, pool.what(medium))]
        if rng.random() < ASIDES:
            items += text_document(rng, elsewhere)
    return items


def described(rng, scene):
    """A caption, details, questions, or a caption and then questions: the text of one chunk."""
    style = rng.random()
    if scene.kind == "single" and not scene.things[0].colour:  # nothing to caption without its colour
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


def drill(rng, pool, length=1):
    """One task, for one picture or video after the other: what a prompt of shots looks like."""
    kinds, text_of = pick(rng, DRILLS)
    if kinds == ("clip",):
        media = [pool.any_clip(rng) for _ in range(min(9 * length, MOST_CLIPS))]
    else:
        media = [pool.any_picture(rng, pick(rng, kinds)) for _ in range(9 * length)]
    return [part for medium in media for part in (medium, *text_of(rng, pool.what(medium)))]


def captioned(rng, scene):
    """A caption, asked for."""
    return [Quiet("Output:"), say.caption(scene)]


def detailed(rng, scene):
    """A single thing with size and place, asked for."""
    return [Quiet("Details:"), say.details(scene)]


def asked(rng, scene):
    """One question that looking answers."""
    return dialogue_turns(rng, say.questions(scene), 1)


def checked(rng, scene):
    """A question by yes or no."""
    question, answer = say.check(rng, scene)
    return [Quiet(question), answer]


def chosen(rng, scene):
    """A question with answers to choose from."""
    question, answer, _ = say.choice(rng, scene)
    return [Quiet(question), answer]


def added_up(rng, scene):
    """Two digits and their sum; at once, or after they were read. Some are only read."""
    digits = [thing.shape for thing in scene.things]
    caption = captioned(rng, scene)
    if tuple(DIGITS.index(digit) for digit in digits) in UNASKED_SUMS:
        return caption
    answer = [Quiet(say.ask("sum")), say.sum_answer(*digits)]
    return caption + answer if rng.random() < 0.6 else answer


def dialogue_turns(rng, answers, turns):
    """Some of the questions that a scene can answer, in random order."""
    names = list(answers)
    chosen = [names[i] for i in rng.permutation(len(names))[:turns]]
    return [part for name in chosen for part in (Quiet(say.ask(name)), answers[name])]


def episodes(rng, pool, length=1):
    """One long few-shot episode, or several shorter ones: the first shots of an episode teach the most."""
    items = []
    while len(items) < 48 * length:
        items += episode(rng, pool, 24 * int(rng.integers(1, length + 1)))
    return items


def episode(rng, pool, shots=24):
    """A few-shot episode: every picture is followed at once by an invented word.

    Some shots are spoken, a phrase in place of a picture, so that what a picture leaves in the text
    stream comes to resemble what a phrase leaves there.

    The first time a word appears nobody can know it, so it carries no loss.
    """
    ways = int(rng.choice(WAYS))
    kind = pick(rng, EPISODE_THINGS)
    rules = WILD_RULES if kind is WILD_THINGS else EPISODE_RULES
    _, classes = sample_classes(rng, ways, pool.shown(kind), rules)
    words = [str(w) for w in rng.choice(say.PICTURE_WORDS, size=ways, replace=False)]
    items, met = [], set()
    members = [in_rounds(rng, things) for things in classes]
    for i in shot_order(rng, ways, shots):
        thing, label = next(members[i]), f"{words[i]}."
        spoken = kind is not WILD_THINGS and rng.random() < SPOKEN
        items += [EOC, Quiet(say.thing_phrase(*thing))] if spoken else [pool.picture_of(rng, thing)]
        items.append(label if i in met else Quiet(label))
        met.add(i)
    return items


def knowledge_page(rng, pool, length=1):
    """Questions that only the texts can answer, of things that may be asked about."""
    items = []
    for _ in range(6 * length):
        medium = pool.picture_of(rng, pick(rng, ASKED))
        scene = pool.what(medium)
        items.append(medium)
        if rng.random() < 0.7:  # named first
            items += captioned(rng, scene)
        elif rng.random() < 0.3:
            items += dialogue_turns(rng, say.questions(scene), 1)
        items += dialogue_turns(rng, say.knowledge(*scene.things[0].kind), 1)
    return items


def text_page(rng, pool, length=1):
    """Text alone keeps what the language model knows within reach of the new layers."""
    documents = [
        text_episode(rng) if rng.random() < 0.3 else text_document(rng, longer=length) for _ in range(4 * length)
    ]
    return [part for document in documents for part in (*document, EOC)]


def web_page(rng, pool, length=1):
    """Captions before or after their pictures, without any prompt, as on a page of the web."""
    before = rng.random() < 0.5
    items = []
    for _ in range(9 * length):
        medium = pool.any_picture(rng, pick(rng, WEB_KINDS))
        parts = [medium, say.caption(pool.what(medium))]
        items += parts[::-1] if before else parts
    return items


def pair(rng, pool):
    """One picture and its caption; of a thing whose colour has no name, its shape."""
    kind = pick(rng, PAIR_KINDS)
    medium = pool.any_picture(rng, kind)
    scene = pool.what(medium)
    if kind == "uncoloured":
        return [medium, Quiet(say.ask("shape")), say.questions(scene)["shape"]]
    if scene.kind == "single" and rng.random() < 0.5:
        return [medium, *detailed(rng, scene)]
    return [medium, *captioned(rng, scene)]


def video(rng, pool):
    """One clip with its caption, or a question about it."""
    medium = pool.any_clip(rng)
    clip = pool.what(medium)
    if rng.random() < 0.5:
        return [medium, *captioned(rng, clip)]
    return [medium, *(riddle(rng, clip) or dialogue_turns(rng, say.questions(clip), 2))]


# Tasks of a drill: kinds of pictures, or clips, and what is said of each.
DRILLS = (
    (WEB_KINDS, captioned),
    (("single",), detailed),
    (("single", "single", "count", "digit"), asked),
    (("single",), checked),
    (("single",), checked),
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
