"""TinyWorld is consistent: scenes are in the frame, the pixels show relations and actions, the words are true."""

from itertools import combinations

import numpy as np
import pytest

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import pages, pool, scenes, text
from tinyflamingo.data.tinyworld.raster import BLACK, COLOURS, Mark, draw
from tinyflamingo.data.tinyworld.scenes import (
    ACTIONS,
    ASKED,
    COLOUR_NAMES,
    FRAMES,
    HELD_OUT,
    KNOWN,
    MOVES,
    NAMED,
    NAMELESS,
    POSITIONS,
    RELATIONS,
    SHADES,
    SIZES,
    SPREAD,
    THINGS,
    UNASKED,
    WILD_THINGS,
    WRITTEN,
    Clip,
    Scene,
    Thing,
    draw_clip,
    draw_scene,
    sample_clip,
    sample_count,
    sample_pair,
    sample_scene,
    sample_single,
    sample_uncoloured,
)
from tinyflamingo.data.tinyworld.shapes import UNNAMED

DRAWS = 300


def cover(thing, x=None, y=None):
    """The fraction of each pixel that a thing covers: (32, 32) in 0..1."""
    x, y = thing.x if x is None else x, thing.y if y is None else y
    return draw([Mark(thing.shape, (255, 255, 255), x, y, thing.radius)], BLACK)[..., 0] / 255.0


def visible(thing):
    return cover(thing).sum() / cover(thing, 16, 16).sum()


def closest(picture, colour):
    """The pixels of a colour: bool (32, 32)."""
    return distance(picture, colour) < 40


def distance(picture, colour):
    """RGB distance of each pixel to the nearer of the two colours with this name."""
    pixels = picture.astype(float)
    return np.minimum(*(np.linalg.norm(pixels - table[colour], axis=-1) for table in (COLOURS, SHADES)))


def centre(mask):
    """(x, y) of the middle of a mask."""
    rows, columns = np.nonzero(mask)
    return columns.mean() + 0.5, rows.mean() + 0.5


# ---- what is held out ------------------------------------------------------------------------


def test_the_sets_of_things_do_not_overlap_and_are_complete():
    assert set(KNOWN) | HELD_OUT == set(THINGS) and not set(KNOWN) & HELD_OUT
    assert set(ASKED) | UNASKED == set(KNOWN) and not set(ASKED) & UNASKED
    assert len(THINGS) == 96 and len(HELD_OUT) == 12 and len(set(THINGS)) == 96
    assert not set(NAMED) & set(UNNAMED) and len(UNNAMED) == 4


def test_each_shape_and_each_colour_is_known_and_asked_in_some_pair():
    for part in (KNOWN, ASKED, tuple(UNASKED)):
        assert {shape for shape, _ in part} == set(NAMED)
        assert {colour for _, colour in part} == set(COLOUR_NAMES)
    assert {shape for shape, _ in HELD_OUT} == set(NAMED)


def test_invented_words_are_three_disjoint_sets_without_english_words():
    sets = [set(s) for s in (say.PICTURE_WORDS, say.TEXT_WORDS, say.NEW_WORDS)]
    assert [len(s) for s in sets] == [280, 60, 60]
    assert all(not a & b for a, b in combinations(sets, 2))
    spoken = {*NAMED, *UNNAMED, *COLOUR_NAMES, *say.PLACES, *say.ANIMALS, *say.NUMBERS}
    assert not set.union(*sets) & spoken


# ---- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [sample_single, sample_pair, sample_count, sample_uncoloured])
def test_things_lie_in_the_frame(rng, sample):
    for _ in range(DRAWS):
        for thing in sample(rng).things:
            assert 0 < thing.x < 32 and 0 < thing.y < 32 and 3 < thing.radius < 11
            assert visible(thing) > 0.85


def test_a_single_thing_has_its_named_size_and_position(rng):
    for size in SIZES:
        for position, (column, row) in POSITIONS.items():
            thing = sample_single(rng, size=size, position=position).things[0]
            assert (thing.size, thing.position) == (size, position)
            assert min(SIZES, key=lambda s: abs(SIZES[s] - thing.radius)) == size
            for place, side in ((thing.x, column), (thing.y, row)):
                assert abs(place - 16 - side * SPREAD[size]) <= 0.8
                assert (place > 18) - (place < 14) == side


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_is_true_of_the_coordinates_and_of_the_pixels(rng, relation):
    column, row = RELATIONS[relation]
    for _ in range(60):
        scene = sample_pair(rng, relation=relation)
        first, second = scene.things
        assert scene.relation == relation and first.radius > second.radius + 2
        along = (first.x - second.x) * column + (first.y - second.y) * row
        across = abs((first.x - second.x) * row) + abs((first.y - second.y) * column)
        assert along > 12 and along > across
        assert (cover(first) * cover(second)).sum() < 0.05 * cover(second).sum()
    scene = sample_pair(rng, kinds=(("circle", "red"), ("square", "blue")), relation=relation)
    picture = draw_scene(rng, scene)
    (x1, y1), (x2, y2) = centre(closest(picture, "red")), centre(closest(picture, "blue"))
    assert (x1 - x2) * column + (y1 - y2) * row > 8
    assert closest(picture, "red").sum() > closest(picture, "blue").sum()


def test_counted_things_have_the_right_number_are_equal_and_apart(rng):
    numbers = set()
    for _ in range(DRAWS):
        things = sample_count(rng).things
        numbers.add(len(things))
        assert len({t.kind for t in things}) == 1 and 3.5 < min(t.radius for t in things)
        for a, b in combinations(things, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) > 8
            assert (cover(a) * cover(b)).sum() < 0.2 * min(cover(a).sum(), cover(b).sum())
    assert numbers == {2, 3, 4, 5}
    assert all(len(sample_count(rng, number=n).things) == n for n in range(1, 10))


def test_a_thing_without_a_named_colour_is_far_from_every_named_one(rng):
    for _ in range(DRAWS):
        thing = sample_uncoloured(rng).things[0]
        assert thing.colour == "" and thing.shape in NAMED
        assert min(distance(np.array(thing.rgb), colour) for colour in COLOUR_NAMES) > NAMELESS


def test_things_show_their_colour(rng):
    for colour in COLOUR_NAMES:
        scene = sample_single(rng, (("square", colour),), "large", "middle")
        middle = draw_scene(rng, scene)[12:20, 12:20]
        distances = {name: distance(middle, name).max() for name in COLOUR_NAMES}
        assert min(distances, key=distances.get) == colour and distances[colour] < 25


# ---- clips -----------------------------------------------------------------------------------


def strong_clip(rng, action):
    """A red or blue square. If it turns, it takes the other colour, so the pixels are easy to classify."""
    return sample_clip(rng, (("square", "red"), ("square", "blue")), action)


def where(frame, *colours):
    return np.any([closest(frame, c) for c in colours], axis=0)


@pytest.mark.parametrize("action", MOVES)
def test_a_move_has_its_direction_in_every_frame(rng, action):
    column, row = MOVES[action]
    for _ in range(10):
        clip = strong_clip(rng, action)
        centres = [centre(where(frame, clip.thing.colour)) for frame in draw_clip(rng, clip)]
        steps = np.diff(np.array(centres), axis=0)
        assert (steps @ (column, row) > 0.8).all()
        assert np.abs(steps @ (row, column)).max() < 0.6


@pytest.mark.parametrize("action", ["grows", "shrinks"])
def test_growing_and_shrinking_continue_in_every_frame(rng, action):
    for _ in range(10):
        clip = strong_clip(rng, action)
        areas = [int(where(frame, clip.thing.colour).sum()) for frame in draw_clip(rng, clip)]
        steps = np.diff(areas) * (1 if action == "grows" else -1)
        assert steps.min() >= 0 and max(areas) > 4 * min(areas)


def test_a_thing_that_vanishes_is_visible_only_before(rng):
    for _ in range(20):
        clip = strong_clip(rng, "vanishes")
        areas = [int(where(frame, clip.thing.colour).sum()) for frame in draw_clip(rng, clip)]
        assert min(areas[: clip.moment]) > 40 and max(areas[clip.moment :]) == 0
        assert 2 <= clip.moment <= 6


def test_the_background_stays_when_a_thing_vanishes(rng):
    for _ in range(40):  # one background in four has noise
        clip = Clip(Thing("square", "red", "medium", "", 22, 22, 6), "vanishes", 4)
        frames = draw_clip(rng, clip)
        assert np.array_equal(frames[3][:12, :12], frames[4][:12, :12])


def test_a_thing_that_turns_has_one_colour_before_and_the_other_after(rng):
    for _ in range(20):
        clip = strong_clip(rng, "turns")
        frames = draw_clip(rng, clip)
        assert clip.new_colour != clip.thing.colour
        for before in frames[: clip.moment]:
            assert where(before, clip.thing.colour).sum() > 40 and not where(before, clip.new_colour).any()
        for after in frames[clip.moment :]:
            assert where(after, clip.new_colour).sum() > 40 and not where(after, clip.thing.colour).any()


def test_clips_have_eight_frames_and_all_actions_and_stay_in_the_frame(rng):
    actions = set()
    for _ in range(DRAWS):
        clip = sample_clip(rng)
        actions.add(clip.action)
        assert bool(clip.new_colour) == (clip.action == "turns")
        for t in range(FRAMES):
            assert all(visible(thing) > 0.85 for thing in scenes._at_moment(clip, t, FRAMES))
    assert actions == set(ACTIONS)
    assert draw_clip(rng, sample_clip(rng)).shape == (8, 32, 32, 3)


def test_the_moment_of_a_clip_scales_with_its_frames(rng):
    clip = Clip(Thing("square", "red", "medium", "", 16, 16, 6), "vanishes", 4)
    for frames in (1, 4, 16):
        shown = [where(f, "red").any() for f in draw_clip(rng, clip, frames)]
        happens = round(frames / 2)
        assert shown == [t < happens for t in range(frames)]


# ---- words -----------------------------------------------------------------------------------


def thing(shape, colour, size="", position=""):
    return Thing(shape, colour, size, position, 16, 16, 7)


def single(*args):
    return Scene("single", (thing(*args),))


CAPTIONS = [
    (single("circle", "red"), "a red circle."),
    (single("arrow", "orange"), "an orange arrow."),
    (single("arrow", ""), "an arrow."),
    (single("house", ""), "a house."),
    (Scene("pair", (thing("moon", "blue"), thing("bolt", "orange")), "left of"), "a blue moon left of an orange bolt."),
    (Scene("pair", (thing("ring", "cyan"), thing("ring", "cyan")), "above"), "a cyan ring above a cyan ring."),
    (Scene("count", (thing("cross", "green"),) * 3), "three green crosses."),
    (Scene("count", (thing("star", "pink"),) * 2), "two pink stars."),
    (Scene("count", (thing("house", "red"),) * 5), "five red houses."),
    (Clip(thing("star", "pink"), "moves left"), "a pink star moves left."),
    (Clip(thing("star", "orange"), "vanishes"), "an orange star vanishes."),
    (Clip(thing("star", "pink"), "turns", 3, "cyan"), "a pink star turns cyan."),
]


@pytest.mark.parametrize("scene, words", CAPTIONS)
def test_captions(scene, words):
    assert say.caption(scene) == words


@pytest.mark.parametrize(
    "scene, words",
    [
        (single("circle", "red", "small", "top left"), "a small red circle at the top left."),
        (single("arrow", "orange", "large", "middle"), "a large orange arrow in the middle."),
        (single("arrow", "", "medium", "bottom"), "a medium arrow at the bottom."),
    ],
)
def test_details(scene, words):
    assert say.details(scene) == words


def test_articles_and_plurals():
    assert [say.article(w) for w in ("orange star", "arrow", "red star", "heart")] == ["an", "an", "a", "a"]
    assert [say.plural(s) for s in NAMED] == [s + ("es" if s == "cross" else "s") for s in NAMED]


def test_sentences_are_lower_case_end_once_and_have_no_double_space(rng):
    for _ in range(DRAWS):
        scene = sample_clip(rng) if rng.random() < 0.3 else sample_scene(rng)
        answers = say.questions(scene).values()
        for sentence in (say.caption(scene), *answers):
            assert sentence == sentence.lower() and sentence.endswith(".") and sentence.count(".") == 1
            assert "  " not in sentence and sentence == sentence.strip()


def test_answers_agree_with_the_scene(rng):
    for _ in range(DRAWS):
        scene = sample_single(rng)
        only = scene.things[0]
        assert say.questions(scene) == {
            "color": f"{only.colour}.",
            "shape": f"{only.shape}.",
            "number": "one.",
            "size": f"{only.size}.",
            "position": f"{only.position}.",
        }
        scene = sample_count(rng)
        assert say.questions(scene)["number"] == ["two.", "three.", "four.", "five."][len(scene.things) - 2]
        assert set(say.questions(scene)) == {"color", "shape", "number"}  # size and place would be ambiguous
        assert say.questions(sample_pair(rng)) == {}
        assert "color" not in say.questions(sample_uncoloured(rng))
        clip = sample_clip(rng)
        answers = say.questions(clip)
        assert answers["shape"] == f"{clip.thing.shape}."
        if clip.action == "turns":  # it has two colours
            assert answers["action"] == f"it turns {clip.new_colour}." and "color" not in answers
        else:
            assert answers["action"] == f"it {clip.action}." and answers["color"] == f"{clip.thing.colour}."
    assert set(say.QUESTIONS) >= set(answers)


def test_facts_are_fixed_and_the_same_in_answers_and_statements():
    assert set(say.FACTS) == set(THINGS)
    assert say._make_facts() == say.FACTS and say._make_words() == (say.PICTURE_WORDS, say.TEXT_WORDS, say.NEW_WORDS)
    for shape, colour in THINGS:
        place, animal = say.FACTS[shape, colour]
        assert place in say.PLACES and animal in say.ANIMALS
        assert say.knowledge(shape, colour) == {"place": f"in the {place}.", "animal": f"the {animal}."}
        assert say.facts(shape, colour) == [f"is found in the {place}.", f"is liked by the {animal}."]
    # a checkpoint has learned these, so they must never change
    assert [say.FACTS[t] for t in THINGS[:3]] == PINNED_FACTS
    assert say.NEW_WORDS[:4] == ("bijo", "kuma", "kimo", "dome")


PINNED_FACTS = [("meadow", "bear"), ("meadow", "owl"), ("forest", "hen")]


def test_sides():
    assert say.sides_answer("triangle") == "three." and say.sides_answer("star") == "ten."
    assert set(say.SIDES) == set(NAMED)


def test_questions_take_the_form_of_the_paper():
    assert say.ask("color") == "Question: what color is it? Answer:"


# ---- texts and pages -------------------------------------------------------------------------


def said(document):
    """A document without pictures as one text."""
    return " ".join(item.text if isinstance(item, Quiet) else item for item in document)


def test_a_reading_text_answers_from_what_it_says(rng):
    """Each answer about colour, size, position and motion is in the description before it."""
    count = 0
    for _ in range(DRAWS):
        opening, *turns = said(text.reading(rng, text.EVERYTHING)).split(" Question: ")
        for turn in turns:
            question, answer = turn.split(" Answer: ")
            if question in [say.QUESTIONS[name] for name in ("size", "position", "color", "shape", "action")]:
                assert answer.rstrip(".").removeprefix("it ") in opening
                count += 1
    assert count > DRAWS / 2


def test_every_answer_of_a_quiz_is_about_the_description_before_it(rng):
    answers = 0
    for _ in range(DRAWS):
        about = None
        for before, answer in zip(items := text.quiz(rng, text.EVERYTHING), items[1:], strict=False):
            if not isinstance(before, Quiet) or isinstance(answer, Quiet):
                about = before.text if isinstance(before, Quiet) else about
                continue
            question, words = before.text.removeprefix("Question: ").removesuffix(" Answer:"), about.split()
            if question in (say.QUESTIONS["place"], say.QUESTIONS["animal"]):
                shape, colour = (next(w for w in words if w.rstrip(".") in group) for group in (NAMED, COLOUR_NAMES))
                assert answer in say.knowledge(shape.rstrip("."), colour).values()
            elif question.startswith("is it "):
                asked = set(question.removeprefix("is it ").rstrip("?").split()) - {"a", "an"}
                fits = asked <= set(about.rstrip(".").split())
                assert answer == ("yes." if fits else "no.")
            else:
                continue
            answers += 1
    assert answers > DRAWS


def test_a_drill_has_one_task_for_all_its_pictures(rng):
    small = pool.make_pool(rng, singles=len(KNOWN), pairs=9, counts=9, clips=3, digits=len(WRITTEN), sums=60)
    met = set()
    for _ in range(DRAWS):
        items = pages.drill(rng, small)
        media = [item.kind for item in items if hasattr(item, "kind")]
        assert len(media) == 9 and len(set(media)) == 1
        asked = {item.text for item in items if isinstance(item, Quiet)}
        kinds = {"Output:", "Details:", *map(say.ask, say.QUESTIONS)} & asked
        kinds |= {text[:14] for text in asked if text.startswith("Question: is it ")}
        met |= kinds
        if kinds & {"Details:", "Question: is i"}:
            assert len(kinds) == 1
    assert {"Output:", "Details:", say.ask("sum"), say.ask("color"), say.ask("action"), "Question: is i"} <= met


def test_the_kinds_of_pages_depend_on_their_length(rng, monkeypatch):
    monkeypatch.setattr(pages, "PAGES", dict.fromkeys(pages.PAGES, lambda rng, pool, length: [length]))
    kinds = {length: {pages.page(rng, None, length=length)[0] for _ in range(300)} for length in (1, 6)}
    assert kinds[1] == set(pages.PAGE_MIXTURE) and kinds[6] == set(pages.LONG_PAGE_MIXTURE) != kinds[1]
    assert pages.page(rng, None, {"drill": 1.0}, 6) == ("drill", [6])


def test_on_pages_of_facts_the_words_decide(rng, monkeypatch):
    """A wrong name has no loss, and the answer to the question after it is a fact of the named thing."""
    monkeypatch.setattr(pages, "ASIDES", 0.0)
    names = {say.thing_phrase(*thing): thing for thing in KNOWN}
    media, wrong = pool.make_pool(rng, singles=300), 0
    for _ in range(60):
        items = pages.knowledge_page(rng, media)
        for place, item in enumerate(items):
            if isinstance(item, Quiet) and item.text == "Output:":
                medium, _, name, question, answer = items[place - 1 : place + 4]
                shown, named = media.what(medium).things[0].kind, names[text.text_of(name).rstrip(".")]
                assert isinstance(name, Quiet) == (named != shown)
                asked = next(fact for fact in ("place", "animal") if say.ask(fact) == question.text)
                assert answer == say.knowledge(*named)[asked]
                wrong += named != shown
    assert wrong > 30


def test_long_texts_and_pages_have_prompts_of_many_shots(rng):
    assert (
        max(sum("Answer:" in str(part) for part in text.quiz(rng, text.EVERYTHING, longer=6)) for _ in range(DRAWS))
        > 16
    )
    small = pool.make_pool(rng, singles=len(KNOWN), pairs=9, counts=9, clips=3, digits=len(WRITTEN), sums=60)
    for _ in range(DRAWS):
        media = [item.kind for item in pages.drill(rng, small, length=6) if hasattr(item, "kind")]
        assert len(media) == (pages.MOST_CLIPS if "clip" in media else 54)


def test_the_topic_of_a_text_is_quiet_and_answers_are_learned(rng):
    """A topic cannot be predicted. A model that learned it would learn that held-out things do not exist."""
    for _ in range(DRAWS):
        document = text.text_document(rng)
        assert isinstance(document[0], Quiet)
        for before, item in zip(document, document[1:], strict=False):
            if isinstance(before, Quiet) and before.text.endswith("Answer:"):
                assert isinstance(item, str)


def test_each_round_of_shots_has_all_classes(rng):
    order = text.shot_order(rng, 3, 8)
    assert len(order) == 8 and sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2]


def test_classes_differ_in_the_property_of_the_rule(rng):
    for _ in range(DRAWS):
        ways = int(rng.integers(2, 6))
        rule, classes = text.sample_classes(rng, ways)
        assert len(classes) == ways and all(classes)
        assert all(not set(a) & set(b) for a, b in combinations(classes, 2))
        if rule == "thing":
            assert all(len(c) == 1 for c in classes)
        else:
            index = 1 if rule == "color" else 0
            assert all(len({t[index] for t in c}) == 1 and len(c) > 1 for c in classes)


@pytest.mark.parametrize("kind", ["pictures", "words"])
def test_an_episode_is_quiet_the_first_time_a_word_appears(rng, kind):
    small = pool.make_pool(rng, singles=2 * len(KNOWN), wild=len(WILD_THINGS), digits=len(WRITTEN))
    for _ in range(20):
        items = pages.episode(rng, small) if kind == "pictures" else text.episode(rng)
        items = [item for item in items if item is not EOC]
        met = {}
        for shown, word in zip(items[::2], items[1::2], strict=True):
            quiet = isinstance(word, Quiet)
            name = word.text if quiet else word
            assert quiet == (name not in met)
            spoken = isinstance(shown, Quiet)
            phrase = shown.text if spoken else say.thing_phrase(*small.what(shown).things[0].kind)
            met.setdefault(name, set()).add(phrase)
        assert 2 <= len(met) <= 8
        assert all(not a & b for a, b in combinations(met.values(), 2))  # a thing has one name


# ---- seeds -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_world():
    def world(seed):
        rng = np.random.default_rng(seed)
        small = pool.make_pool(rng, len(KNOWN), 9, 9, 3, 9, len(WILD_THINGS), len(WRITTEN), 9)
        documents = [text.text_document(rng) for _ in range(9)] + [text.episode(rng)]
        return small, documents, [pages.page(rng, small) for _ in range(9)]

    one, same, other = world(5), world(5), world(6)
    assert one[0].scenes == same[0].scenes and one[0].clips == same[0].clips and one[1:] == same[1:]
    np.testing.assert_array_equal(one[0].pictures, same[0].pictures)
    np.testing.assert_array_equal(one[0].videos, same[0].videos)
    assert one[1] != other[1] and (one[0].pictures != other[0].pictures).any()


KINDS = {"single": 84, "wild": 1, "digit": 1, "sum": 2, "uncoloured": 5, "pair": 4, "count": 3}


def test_a_pool_knows_its_pictures(rng):
    small = pool.make_pool(rng, singles=len(KNOWN), pairs=4, counts=3, clips=2, uncoloured=5, wild=1, digits=1, sums=2)
    assert {k: len(v) for k, v in small.by_kind.items()} == KINDS
    assert set(small.by_thing) == {*KNOWN, WILD_THINGS[0], WRITTEN[0]}
    for kind in KNOWN:
        assert small.what(small.picture_of(rng, kind)).things[0].kind == kind
    assert small.what(small.any_picture(rng, "uncoloured")).things[0].colour == ""
    assert small.what(small.any_clip(rng)) in small.clips
    assert small.pictures.shape == (100, 32, 32, 3) and small.videos.shape == (2, 8, 32, 32, 3)
    assert small.pictures.dtype == small.videos.dtype == np.uint8
