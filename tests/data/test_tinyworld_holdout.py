"""No held-out thing, shape or word leaks into a training stream, and the check itself can fail.

Each stream that a training stage learns from is drawn many times and checked in two ways: the content
of its scenes and clips, and its decoded text.
"""

import dataclasses
import re

import numpy as np
import pytest

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import pages, pool, scenes, task_documents, text
from tinyflamingo.data.tinyworld.glyphs import DIGITS
from tinyflamingo.data.tinyworld.pool import SPLITS, Medium, split_rng
from tinyflamingo.data.tinyworld.scenes import (
    COLOUR_NAMES,
    HELD_OUT,
    KNOWN,
    NAMED,
    THINGS,
    UNASKED,
    UNASKED_SUMS,
    Clip,
)
from tinyflamingo.data.tinyworld.shapes import UNNAMED
from tinyflamingo.evaluation import run as evaluation_run
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.training import contrastive_stage, run
from tinyflamingo.training.contrastive_stage import ContrastiveStage, describe, sample_family
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

# "red moon" is also in "red moons"; "\b" excludes matches inside longer words.
PAIRS = re.compile(rf"\b({'|'.join(f'{colour} {shape}' for shape, colour in sorted(HELD_OUT))})", re.I)
WORDS = re.compile(rf"\b({'|'.join((*UNNAMED, *(say.plural(s) for s in UNNAMED), *say.NEW_WORDS))})\b", re.I)
TEXT_ONLY = re.compile(rf"\b({'|'.join(say.TEXT_WORDS)})\b", re.I)
KNOWLEDGE = re.compile(r"\b(found|likes|liked)\b", re.I)
SUM = re.compile(rf"\b({'|'.join(DIGITS)}) plus ({'|'.join(DIGITS)})\b")
ADDED = re.compile(r"what is the sum\?|plus \w+ is")
THING = re.compile(rf"\b({'|'.join(COLOUR_NAMES)}) ({'|'.join(NAMED)})")


# ---- the check -------------------------------------------------------------------------------


def leaks_in_text(words, beside_pictures=False):
    """The held-out things and words in a text."""
    patterns = (PAIRS, WORDS, TEXT_ONLY) if beside_pictures else (PAIRS, WORDS)
    return [f"{match[0]!r} in {words[:80]!r}" for p in patterns for match in p.finditer(words)]


def leaks_in_scene(scene):
    """The held-out things in a scene or clip."""
    if isinstance(scene, Clip):
        shown = {scene.thing.kind} | ({(scene.thing.shape, scene.new_colour)} if scene.new_colour else set())
    else:
        shown = {thing.kind for thing in scene.things}
    return [f"{kind} shown" for kind in shown if kind in HELD_OUT or kind[0] in UNNAMED]


def said(items):
    """The words of a document, or of a part of it."""
    return " ".join(item.text if isinstance(item, Quiet) else item for item in items)


def chunks(items):
    """[(medium or None, texts after it)] in order."""
    pairs = [(None, [])]
    for item in items:
        if item is EOC:
            pairs.append((None, []))
        elif isinstance(item, str | Quiet):
            pairs[-1][1].append(item)
        else:
            pairs.append((item, []))
    return pairs


def leaks_in_items(items, media):
    """The leaks of a document with pictures: in its scenes, in its text, and what its pictures may not tell.

    Those are the facts of UNASKED things and the answers of UNASKED_SUMS, beside any picture of the document.
    """
    leaks, page = [], [media.what(item) for item in items if isinstance(item, Medium)]
    page_things = {kind for scene in page for kind in kinds_of(scene)}
    page_sums = {pair_of(scene) for scene in page if scene.kind == "sum"}
    for medium, texts in chunks(items):
        leaks += leaks_in_text(said(texts), medium is not None)
        if medium is not None:
            scene = media.what(medium)
            leaks += leaks_in_scene(scene)
            revealed = known_of(said(texts), kinds_of(scene)) & page_things & UNASKED
            revealed |= (
                added_in(said(texts), {pair_of(scene)} if scene.kind == "sum" else set()) & page_sums & UNASKED_SUMS
            )
            leaks += [f"{said(texts)!r} beside {what}" for what in revealed]
    return leaks


def kinds_of(scene):
    """The (shape, colour) pairs of a scene or clip."""
    return {scene.thing.kind} if isinstance(scene, Clip) else {thing.kind for thing in scene.things}


def pair_of(scene):
    """The two numbers of a sum."""
    return tuple(DIGITS.index(thing.shape) for thing in scene.things)


def known_of(words, shown):
    """The things whose facts a text asks or gives: the thing named last, or all that are shown if none is named."""
    known = set()
    for match in KNOWLEDGE.finditer(words):
        named = THING.findall(words[: match.start()])
        known |= {named[-1][::-1]} if named else shown
    return known


def added_in(words, shown):
    """The sums that a text asks or gives: the one named last, or the one that is shown if none is named."""
    added = set()
    for match in ADDED.finditer(words):
        named = SUM.findall(words[: match.end()])
        added |= {tuple(map(DIGITS.index, named[-1]))} if named else shown
    return added


# ---- the streams: each returns (number of checked things, leaks) ------------------------------


def small_preset(**flamingo):
    """The smoke preset with the documents of the toy preset."""
    smoke, toy = get_preset("smoke"), get_preset("toy")
    toy_language = {"phases": toy.language.phases, "repeat_lengths": toy.language.repeat_lengths}
    language = dataclasses.replace(smoke.language, **toy_language)
    sizes = {"singles": 168, "uncoloured": 60, "pairs": 60, "counts": 60, "clips": 60} | flamingo
    recipe = dataclasses.replace(smoke.flamingo, **sizes, datasets=toy.flamingo.datasets)
    contrastive = dataclasses.replace(smoke.contrastive, families=300)
    return dataclasses.replace(smoke, contrastive=contrastive, language=language, flamingo=recipe)


def flamingo_stage(rng, tokenizer):
    preset = small_preset()
    return FlamingoStage(preset, rng, tokenizer, untrained(rng, preset.config, tokenizer).frozen)


def contrastive_families(rng, tokenizer, n):
    leaks = []
    for _ in range(n):
        for scene in sample_family(rng):
            words = describe(rng, scene)
            leaks += leaks_in_scene(scene) + leaks_in_text(words, beside_pictures=True)
            leaks += [f"{words!r} gives a fact"] if KNOWLEDGE.search(words) else []
    return 4 * n, leaks


def contrastive_batches(rng, tokenizer, n):
    stage = ContrastiveStage(small_preset(), rng, tokenizer, {})
    captions = [tokenizer.decode(c) for family in stage.captions for c in family]
    return len(captions), [leak for c in captions for leak in leaks_in_text(c, beside_pictures=True)]


def language_documents(rng, tokenizer, n):
    stage = LanguageStage(small_preset(), rng, tokenizer, {})
    steps = [0, *(until for until, *_ in stage.recipe.phases[:-1])]  # one step of each phase
    documents = [tokenizer.decode(stage.document(rng, step)[0]) for step in steps for _ in range(n)]
    return len(documents), [leak for d in documents for leak in leaks_in_text(d)]


def text_documents(rng, tokenizer, n):
    documents = [
        said(make(rng)) for make in (text.text_document, text.episode, task_documents.text_task) for _ in range(n)
    ]
    return len(documents), [leak for d in documents for leak in leaks_in_text(d)]


def tokenizer_lines(rng, tokenizer, n):
    lines = set(text.tokenizer_lines(rng, n))
    return len(lines), [leak for line in lines for leak in leaks_in_text(line)]


def pool_media(rng, tokenizer, n):
    media = flamingo_stage(rng, tokenizer).pool
    shown = [*media.scenes, *media.clips]
    return len(shown), [leak for scene in shown for leak in leaks_in_scene(scene)]


def clips(rng, tokenizer, n):
    return n, [leak for _ in range(n) for leak in leaks_in_scene(scenes.sample_clip(rng))]


def documents_with_pictures(rng, tokenizer, n):
    media = flamingo_stage(rng, tokenizer).pool
    makers = [*pages.PAGES.values(), task_documents.task_page, pages.pair, pages.video]
    documents = [make(rng, media) for make in makers for _ in range(n // 4)]
    return len(documents), [leak for items in documents for leak in leaks_in_items(items, media)]


def pages_of_sums(rng, tokenizer, n):
    """Albums and drills of sums; the albums have many texts about sums."""
    media = pool.make_pool(rng, sums=n // 2)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(pages, "ALBUM_KINDS", ("sum",))
        m.setattr(pages, "ASIDES", 0.9)
        m.setattr(text, "TEXT_MIXTURE", {"sums": 0.5, "quiz": 0.5})
        m.setattr(text, "QUIZZES", (("sum",),))
        documents = [pages.album(rng, media) for _ in range(n // 8)]
    documents += [[medium, *pages.added_up(rng, media.what(medium))] for medium in map(picture, range(n // 2))]
    return len(documents), [leak for items in documents for leak in leaks_in_items(items, media)]


def picture(index):
    return Medium("picture", index)


def flamingo_batches(rng, tokenizer, n):
    """The tokens and media that the stage learns from."""
    stage, leaks, count = flamingo_stage(rng, tokenizer), [], 0
    for _ in range(n // 50):
        for shard in stage.shards(rng, stage.documents(rng)):
            batch = shard.batch
            leaks += [leak for m in batch.media for leak in leaks_in_scene(stage.pool.what(m))]
            for document in range(batch.owner.max() + 1):
                tokens = batch.tokens[batch.owner == document]
                leaks += leaks_in_text(tokenizer.decode(tokens), beside_pictures=IMAGE in tokens)
                count += 1
    return count, leaks


STREAMS = (
    contrastive_families,
    contrastive_batches,
    language_documents,
    text_documents,
    tokenizer_lines,
    pool_media,
    clips,
    documents_with_pictures,
    pages_of_sums,
    flamingo_batches,
)


@pytest.mark.parametrize("stream", STREAMS)
def test_nothing_held_out_leaks(stream, tokenizer):
    count, leaks = stream(np.random.default_rng(20), tokenizer, 2000)
    assert count >= 400 and leaks == []


# ---- the check can fail ----------------------------------------------------------------------


def all_things(monkeypatch, function):
    """Change the default of `things` to all things, also held-out ones."""
    defaults = tuple(THINGS if d is KNOWN else d for d in function.__defaults__)
    monkeypatch.setattr(function, "__defaults__", defaults)


PLANTS = {  # name -> (a planted fault, the streams that must notice it)
    "held-out singles": (lambda m: all_things(m, scenes.sample_single), (contrastive_families,)),
    "held-out pairs": (lambda m: all_things(m, scenes.sample_pair), (contrastive_families, contrastive_batches)),
    "held-out counts": (lambda m: all_things(m, scenes.sample_count), (contrastive_families, contrastive_batches)),
    "held-out scenes": (lambda m: all_things(m, scenes.sample_scene), (tokenizer_lines,)),
    "held-out clips": (lambda m: all_things(m, scenes.sample_clip), (clips,)),
    "a held-out variation": (lambda m: m.setattr(contrastive_stage, "KNOWN", THINGS), (contrastive_families,)),
    "held-out pool": (
        lambda m: m.setattr(pool, "KNOWN", THINGS),
        (pool_media, documents_with_pictures, flamingo_batches),
    ),
    "held-out facts": (
        lambda m: m.setattr(text, "EVERYTHING", text.Topics(THINGS)),
        (text_documents, tokenizer_lines),
    ),
    "held-out classes": (lambda m: all_things(m, text.sample_classes), (text_documents, language_documents)),
    "unnamed shapes": (
        lambda m: m.setattr(scenes, "NAMED", scenes.NAMED + UNNAMED),
        (contrastive_families, pool_media, flamingo_batches),
    ),
    "new words in text": (lambda m: m.setattr(say, "TEXT_WORDS", say.NEW_WORDS), (text_documents, tokenizer_lines)),
    "new words in pages": (
        lambda m: m.setattr(say, "PICTURE_WORDS", say.NEW_WORDS),
        (documents_with_pictures, flamingo_batches),
    ),
    "text words in pages": (
        lambda m: m.setattr(say, "PICTURE_WORDS", say.TEXT_WORDS),
        (documents_with_pictures, flamingo_batches),
    ),
    "knowledge of unasked things": (lambda m: m.setattr(pages, "ASKED", KNOWN), (documents_with_pictures,)),
    "texts about what the page shows": (
        lambda m: m.setattr(pages, "elsewhere", lambda scenes: text.EVERYTHING),
        (documents_with_pictures, pages_of_sums),
    ),
    "texts about sums that the page shows": (
        lambda m: m.setattr(pages, "elsewhere", lambda scenes: text.elsewhere(scenes)._replace(sums=text.SUMS)),
        (pages_of_sums,),
    ),
    "questions about unasked sums": (lambda m: m.setattr(pages, "UNASKED_SUMS", ()), (pages_of_sums,)),
}


@pytest.mark.parametrize(
    "plant, stream", [pytest.param(p, s, id=f"{name}, {s.__name__}") for name, (p, ss) in PLANTS.items() for s in ss]
)
def test_a_planted_leak_is_found(plant, stream, tokenizer, monkeypatch):
    plant(monkeypatch)
    assert stream(np.random.default_rng(20), tokenizer, 400)[1]


def test_the_patterns_match_held_out_words_only():
    colour = next(c for s, c in HELD_OUT if s == "moon")
    assert leaks_in_text(f"a {colour} moon.") and leaks_in_text(f"three {colour} moons.")
    assert leaks_in_text("a small gear") and leaks_in_text("two gears.") and leaks_in_text(f"{say.NEW_WORDS[0]}.")
    assert known_of("a red star. Question: where is it found?", set()) == {("star", "red")}
    assert known_of("Question: who likes it?", {("star", "red")}) == {("star", "red")}
    assert known_of("a blue star is liked by the fox.", {("star", "red")}) == {("star", "blue")}
    assert added_in("three plus four is seven.", {(1, 2)}) == {(3, 4)}
    assert added_in("Output: three plus four. Question: what is the sum? Answer: seven.", {(1, 2)}) == {(3, 4)}
    assert added_in("Question: what is the sum? Answer: three.", {(1, 2)}) == {(1, 2)}
    assert not added_in("Output: three plus four.", {(3, 4)})
    assert leaks_in_text(say.TEXT_WORDS[0], True) and not leaks_in_text(say.TEXT_WORDS[0])
    assert not leaks_in_text("geared xbijo")  # part of a longer word


def test_things_held_out_of_pictures_are_in_the_texts(tokenizer):
    """The model learns TEXT_WORDS and the facts of UNASKED things from text only."""
    rng = np.random.default_rng(21)
    words = " ".join(said(make(rng)) for make in (text.episode, text.text_document) for _ in range(1500))
    assert {m[0] for m in TEXT_ONLY.finditer(words)} == set(say.TEXT_WORDS)
    known = [thing for thing in UNASKED if any(f"{say.thing_phrase(*thing)} {f}" in words for f in say.facts(*thing))]
    assert len(known) > 0.9 * len(UNASKED)


# ---- random repeats --------------------------------------------------------------------------


def test_a_random_repeat_is_one_row_twice(rng, tokenizer):
    for _ in range(50):
        ids = text.random_repeat(rng, np.arange(300, 500), int(rng.integers(2, 20)), tokenizer)
        half = len(ids) // 2
        assert ids[:half] == ids[half:] and half >= 2


def test_random_repeats_spell_nothing_held_out(tokenizer):
    """Rows of the pieces that spell it, also when cut in another way than by the tokenizer ("red" + "▁moon"), or with a
    capital ("kum" + "A").
    """
    rng = np.random.default_rng(22)
    stage = LanguageStage(small_preset(), rng, tokenizer, {})
    stage.recipe = dataclasses.replace(stage.recipe, phases=((np.inf, 1.0, 0.0, 0.0),))
    all_pieces = stage.pieces
    for phrase in (*(f"{colour} {shape}" for shape, colour in sorted(HELD_OUT)[:4]), *say.NEW_WORDS[:3], "kuma"):
        spells = {"", ".", *parts(phrase)}
        stage.pieces = np.array([i for i in all_pieces if tokenizer.piece(i).strip("▁").lower() in spells])
        for _ in range(40):
            assert not leaks_in_text(tokenizer.decode(stage.document(rng, 0)[0])), phrase


def parts(phrase):
    """All substrings of the words of a phrase."""
    return {w[i:j] for w in phrase.split() for i in range(len(w)) for j in range(i + 1, len(w) + 1)}


# ---- seeds -----------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 7, evaluation_run.STREAM, 2**32 - 1, 2**32, 3 + (evaluation_run.STREAM << 32), 10**40)


def state(generator):
    return tuple(generator.bit_generator.seed_seq.generate_state(4))


def test_splits_never_share_a_seed():
    rng = np.random.default_rng(23)
    states = {}
    for split in SPLITS:
        rows = [(), *((a,) for a in NUMBERS), *((a, b) for a in NUMBERS for b in NUMBERS)]
        rows += [tuple(int(n) for n in rng.integers(0, 2**62, size=int(rng.integers(1, 6)))) for _ in range(300)]
        states[split] = {state(split_rng(split, *row)) for row in rows}
    names = list(SPLITS)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not states[one] & states[other]


def test_no_seed_of_the_user_turns_training_into_a_test_stream():
    """NumPy splits a seed of more than 32 bits into several numbers. None of them may take the place of the split."""
    tests = {state(split_rng("test", evaluation_run.STREAM, s, i)) for s in range(4) for i in range(20)}
    trainings = {
        state(run.step_rng(seed, stage, step)) for seed in NUMBERS for stage in range(3) for step in range(-1, 20)
    }
    assert not tests & trainings
    assert len(trainings) == len(NUMBERS) * 3 * 21  # all steps have different seeds


OF_SHAPES = {1837, 1871}  # seeds of written digits and wild shapes, which are drawn once in each process


def test_training_and_evaluation_draw_from_their_own_split_alone(tmp_path, monkeypatch):
    assert not OF_SHAPES & set(SPLITS.values())
    seeds, make = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or make(seed))
    model = run.train("smoke", tmp_path / "run", seed=9)
    lists = [s for s in seeds if isinstance(s, list) and s[0] not in OF_SHAPES]
    assert lists and {s[0] for s in lists} == {SPLITS["train"]}
    seeds.clear()
    evaluation_run.evaluate(model, 2, seed=9)
    lists = [s for s in seeds if isinstance(s, list) and s[0] not in OF_SHAPES]
    assert lists and {s[0] for s in lists} == {SPLITS["test"]}
    assert evaluation_run.STREAM == lists[0][1]
