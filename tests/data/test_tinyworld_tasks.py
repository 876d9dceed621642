"""No training stream has a held-out task; the judge reads documents, not the code that draws them, and can fail.

A document of tasks is a row of shots: a key (a picture or a description) and an answer. The judge collects every task
that explains all shots of a run: properties in some order with words between them, or a function of one property. The
task that was drawn is always among them, so a run leaks if all that explains it is held out.
"""

import dataclasses
import re

import numpy as np
import pytest

from tinyflamingo.data.items import EOC, Quiet
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld import task_documents, tasks, text
from tinyflamingo.data.tinyworld.glyphs import DIGITS, WILD
from tinyflamingo.data.tinyworld.pool import Medium, make_pool
from tinyflamingo.data.tinyworld.scenes import ACTIONS, COLOUR_NAMES, NAMED, POSITIONS, RELATIONS, SIZES, UNASKED, Clip
from tinyflamingo.data.tinyworld.task_documents import MOST, examples, sampler, task_page, text_task
from tinyflamingo.data.tinyworld.tasks import FAMILIES, Task, draw_task, held_out
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.registry import untrained

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
OPPOSITE |= {"small": "large", "large": "small", "medium": "medium"}
NO_CLIPS = [name for name in FAMILIES if not name.startswith("clip")]


# ---- what a key tells ------------------------------------------------------------------------


def any_of(words):
    return "|".join(sorted(words, key=len, reverse=True))


COLOUR, SHAPE, DIGIT = any_of(COLOUR_NAMES), any_of(NAMED), any_of(DIGITS)
MOVES = any_of([action for action in ACTIONS if action != "turns"])
PLURALS = {say.plural(shape): shape for shape in NAMED}
KEYS = [
    ("pair", rf"an? (?P<color>{COLOUR}) (?P<shape>{SHAPE}) (?P<relation>{any_of(RELATIONS)}) an? (?P<color2>{COLOUR}) "
             rf"(?P<shape2>{SHAPE})\."),
    ("clip", rf"an? (?P<color>{COLOUR}) (?P<shape>{SHAPE}) (?P<action>turns (?:{COLOUR})|{MOVES})\."),
    ("single", rf"an? (?P<size>{any_of(SIZES)}) (?P<color>{COLOUR}) (?P<shape>{SHAPE}) (?:at|in) the "
               rf"(?P<position>{any_of(POSITIONS)})\."),
    ("count", rf"(?P<number>two|three|four|five) (?P<color>{COLOUR}) (?P<shape>{any_of(PLURALS)})\."),
    ("sum", rf"(?P<first>{DIGIT}) plus (?P<second>{DIGIT})\."),
    ("digit", rf"(?:an? )?(?P<color>{COLOUR}) (?P<digit>{DIGIT})\b\.?"),
    ("single", rf"(?:an? )?(?P<color>{COLOUR}) (?P<shape>{SHAPE})\b\.?"),
    ("", rf"(?P<color>{COLOUR})\b"),  # of a single thing or a digit
    ("single", rf"(?P<shape>{SHAPE})\b"),
    ("digit", rf"(?P<digit>{DIGIT})\b(?! plus)"),  # not the statement of a sum
]  # fmt: skip


def read_key(words, begin=0):
    """({property: value} of the key at this place of a text, where it ends), or None."""
    for kind, pattern in KEYS:
        if match := re.compile(pattern).match(words, begin):
            return completed(kind, match.groupdict()), match.end()
    return None


def read_medium(scene):
    """{property: value} of a scene or clip."""
    if isinstance(scene, Clip):
        return {"kind": "clip"}
    thing, last = scene.things[0], scene.things[-1]
    shown = {"color": thing.colour, "digit" if scene.kind == "digit" else "shape": thing.shape}
    if scene.kind == "single":
        shown |= {"size": thing.size, "position": thing.position}
    if scene.kind == "pair":
        shown |= {"relation": scene.relation, "color2": last.colour, "shape2": last.shape}
    if scene.kind == "count":
        shown["number"] = "zero one two three four five".split()[len(scene.things)]
    if scene.kind == "sum":
        shown = {"first": thing.shape, "second": last.shape}
    return completed("single" if scene.kind == "wild" else scene.kind, shown)


def completed(kind, shown):
    """Also what follows from the properties: the larger digit, the facts of a thing."""
    shown = {"kind": kind, **shown}
    if kind == "count":
        shown["shape"] = PLURALS.get(shown["shape"], shown["shape"])
    if kind == "sum":
        shown["smaller"], shown["larger"] = sorted((shown["first"], shown["second"]), key=DIGITS.index)
    if kind == "single" and shown.get("shape") in NAMED and shown.get("color"):
        shown["place"], shown["animal"] = say.FACTS[shown["shape"], shown["color"]]
    return shown


# ---- the judge -------------------------------------------------------------------------------


def templates(words, shown, slots=0):
    """All ways to write an answer: tuples of words and, for up to three values, (property,)."""
    if not words:
        return {()}
    made = {(words[0], *rest) for rest in templates(words[1:], shown, slots)}
    for name, value in shown.items() if slots < 3 else ():
        value = tuple(value.split())
        if name != "kind" and words[: len(value)] == value:
            made |= {((name,), *rest) for rest in templates(words[len(value) :], shown, slots + 1)}
    return made


def functions(shots):
    """{property: {value: answer}} of the properties that decide a word of the answer; of a thing if no other does."""
    tables = {}
    common = set.intersection(*(set(shown) for shown, _ in shots)) - {"kind"}
    for name in (*sorted(common), ("color", "shape"), ("color", "digit")):
        if isinstance(name, tuple) and (tables.keys() & name or not common.issuperset(name)):
            continue
        values = [shown[name] if isinstance(name, str) else tuple(shown[n] for n in name) for shown, _ in shots]
        table = dict(zip(values, (words for _, words in shots), strict=True))
        if (
            all(table[v] == words for v, (_, words) in zip(values, shots, strict=True))
            and around(list(table.values()))[1]
        ):
            tables[name] = table
    return tables


def around(answers):
    """(the words at both ends that all answers share, whether what remains of each is one word or value)."""
    head = shared(answers)
    rest = [answer[head:] for answer in answers]
    tail = shared([answer[::-1] for answer in rest])
    words = answers[0][:head] + rest[0][len(rest[0]) - tail :]
    names = [" ".join(answer[: len(answer) - tail]) for answer in rest]
    return "".join(words), all(" " not in name or name in {*RELATIONS, *POSITIONS} for name in names)


def shared(answers):
    """How many words all answers have in common at the start."""
    return next(
        (i for i, words in enumerate(zip(*answers, strict=False)) if len(set(words)) > 1), min(map(len, answers))
    )


def explained(shots):
    """(templates, functions) that explain all shots of a run."""
    if len({shown["kind"] for shown, _ in shots} - {""}) > 1:
        return set(), {}
    made = set.intersection(*(templates(words, shown) for shown, words in shots))
    return {template for template in made if any(isinstance(part, tuple) for part in template)}, functions(shots)


def kept_from_training(template):
    slots = [part[0] for part in template if isinstance(part, tuple)]
    words = "".join(part for part in template if isinstance(part, str))
    after = slots[slots.index("shape") :] if "shape" in slots else []
    return (
        slots in (["size"], ["position"], ["color2"])
        or (len(slots) > 1 and (slots[0] == "position" or slots[-1] == "number"))
        or "size" in after
        or len(set(slots)) < len(slots)
        or "q" in words
        or "x" in words
    )


def function_kept_from_training(name, table):
    said = {word for words in table.values() for word in words}
    if len(set(table.values())) == 1:  # too few shots to tell
        return False
    words = around(list(table.values()))[0]
    if "x" in words or "q" in words:
        return True
    if name in ("size", "position", "color2"):
        return True
    if name in ("shape", "shape2"):
        return bool(said & set(NAMED)) or len(set(table.values())) < len(table)
    if name == "digit":
        return bool(said & set(DIGITS))
    return all(OPPOSITE.get(value) in (" ".join(words), *words) for value, words in table.items())


def free(shots):
    """Whether a task that training may have explains all shots."""
    made, tables = explained(shots)
    free = [t for t in made if not kept_from_training(t)]
    free += [name for name, table in tables.items() if not function_kept_from_training(name, table)]
    return (
        bool(free)
        and shots[0][0]["kind"] != "clip"
        and not any("q" in w and w != "square" for _, words in shots for w in words)
    )


def pieces(shots):
    """The smallest number of tasks of training that explain all shots, one after the other."""
    count, run = 1, []
    for shot in shots:
        run.append(shot)
        if not free(run):
            count, run = count + 1, [shot]
    return count


def leaks_in_text(shots):
    """A text of one task that something explains, but nothing that training may have."""
    explains = len(shots) > 1 and (any(explained(shots)) or shots[0][0]["kind"] == "clip")
    return [str(shots[:4])] if explains and not free(shots) else []


def leaks_in_page(shots, drawn):
    """A page of so many tasks that fewer tasks of training cannot explain."""
    return [str(shots[:20])] if pieces(shots) > drawn else []


def shots_of_text(words):
    """The shots at the start of a text: key, answer, key, answer; none if it asks questions."""
    shots, place = [], 0
    while "Question:" not in words and (read := read_key(words, place)) and "." in words[read[1] :]:
        end = words.index(".", read[1])
        shots.append((read[0], tuple(words[read[1] : end].split())))
        place = end + 2
    return shots


def shots_of_page(items, pool):
    """The shots of a page. A chunk with a prompt of its own, or without a key, is none."""
    shots, chunks = [], []
    for item in items:
        if isinstance(item, str | Quiet) and chunks:
            chunks[-1].append(item.text if isinstance(item, Quiet) else item)
        else:
            chunks.append([item])
    for first, *words in chunks:
        scene = read_medium(pool.what(first)) if isinstance(first, Medium) else None
        if first is EOC and len(words) == 2:
            scene = (read_key(words.pop(0)) or [None])[0]
        if scene and len(words) == 1 and scene.get("color", "-"):
            shots.append((scene, tuple(words[0].rstrip(".").split())))
    return shots


# ---- the streams -----------------------------------------------------------------------------


def stage_two(rng, tokenizer, n):
    preset = get_preset("toy")
    stage = LanguageStage(preset, rng, tokenizer, {})
    last = [until for until, *_ in preset.language.phases][-2]
    for _ in range(n):
        shots = shots_of_text(tokenizer.decode(stage.document(rng, last, longer=int(rng.choice((1, 4))))[0]))
        yield shots, leaks_in_text(shots)


def stage_three(rng, tokenizer, n):
    """Pages of tasks, and the number of tasks on each."""
    stage, drawn = small_stage(rng, tokenizer), []
    with pytest.MonkeyPatch.context() as m:
        draw = task_documents.draw_task
        m.setattr(task_documents, "draw_task", lambda rng: drawn.append(1) or draw(rng))
        for i in range(n):
            drawn.clear()
            kind, items = stage._draw(rng, "pages", 1 + i % 3, i)
            shots = shots_of_page(items, stage.pool) if kind == "tasks" else []
            yield shots, leaks_in_page(shots, len(drawn)) if shots else []


def tokenizer_lines(rng, tokenizer, n):
    for line in text.tokenizer_lines(rng, n):
        shots = shots_of_text(line)
        yield shots, leaks_in_text(shots)


def small_stage(rng, tokenizer):
    return FlamingoStage(small_preset(), rng, tokenizer, untrained(rng, get_preset("smoke").config, tokenizer).frozen)


def small_preset():
    preset = get_preset("smoke")
    sizes = {"singles": 500, "pairs": 300, "counts": 300, "clips": 20}
    return dataclasses.replace(preset, flamingo=dataclasses.replace(preset.flamingo, **sizes))


def test_a_page_of_usual_length_has_one_task(monkeypatch):
    draw, drawn = task_documents.draw_task, []
    monkeypatch.setattr(task_documents, "draw_task", lambda rng: drawn.append(draw(rng)) or drawn[-1])
    rng, counts = np.random.default_rng(3), []
    media = make_pool(rng, singles=500, pairs=300, counts=300, clips=20, digits=160, sums=100)
    for _ in range(100):
        drawn.clear()
        assert len(task_page(rng, media)) >= 48  # 24 scenes with their answers
        counts.append(len(drawn))
    assert sum(count == 1 for count in counts) > 90  # another task only if the pool has too few scenes


@pytest.mark.parametrize("stream, least", [(stage_two, 400), (stage_three, 300), (tokenizer_lines, 0)])
def test_no_stream_has_a_held_out_task(stream, least, tokenizer):
    documents = list(stream(np.random.default_rng(7), tokenizer, 1500))
    assert sum(len(shots) > 5 for shots, _ in documents) >= least
    assert [leak for _, leaks in documents for leak in leaks] == []


@pytest.mark.parametrize("family", NO_CLIPS)
def test_a_planted_task_is_found(family, tokenizer, monkeypatch):
    """In every stream, even if the held-out family is in a few documents only."""
    real = task_documents.draw_task
    monkeypatch.setattr(task_documents, "draw_task", lambda rng: real(rng, family if rng.random() < 0.5 else None))
    monkeypatch.setattr(text, "facts", lambda rng, topics: text_task(rng, 4))
    for stream in (stage_two, stage_three, tokenizer_lines):
        documents = stream(np.random.default_rng(8), tokenizer, 200)
        assert any(leaks for _, leaks in documents), stream.__name__


@pytest.mark.parametrize("family", FAMILIES)
def test_the_judge_and_the_rule_agree(family):
    """36 shots leave no other explanation than the drawn task."""
    rng, leaks = np.random.default_rng(9), []
    for wanted in [family, None] * 10:
        task = draw_task(rng, wanted)
        sample = sampler(task)
        drawn = examples(task, lambda sample=sample: (sample(rng), None), MOST)
        describe = say.details if task.kind == "single" else say.caption
        words = " ".join(f"{describe(scene)} {answer_of(words)}" for scene, _, words in drawn)
        leaks.append(bool(leaks_in_text(shots_of_text(words))))
    assert not any(leaks[1::2]) and sum(leaks[::2]) >= 9


def answer_of(words):
    return words.text if isinstance(words, Quiet) else words


def test_a_family_that_is_no_longer_held_out_is_found(tokenizer, monkeypatch):
    monkeypatch.delitem(FAMILIES, "twice")
    assert any(leaks for _, leaks in stage_two(np.random.default_rng(8), tokenizer, 200))


# ---- the rules -------------------------------------------------------------------------------

RENAMED = {"circle": "fox", "star": "owl", "moon": "hen"}
CASES = [
    (Task("single", ("color",), "{color}."), ()),
    (Task("single", ("size",), "so {size}."), ("size",)),
    (Task("single", ("size",), "{size}.", {"small": "fox", "large": "owl"}), ("size",)),
    (Task("single", ("position",), "{position}."), ("position",)),
    (Task("single", ("color", "position"), "{color} {position}."), ()),
    (Task("single", ("position", "color"), "{position} {color}."), ("position_first",)),
    (Task("single", ("size", "shape"), "{size} {shape}."), ()),
    (Task("single", ("shape", "color", "size"), "{shape} {color} {size}."), ("shape_before_size",)),
    (Task("single", ("color", "color"), "{color} {color}."), ("twice",)),
    (Task("pair", ("color", "color2"), "{color} {color2}."), ()),
    (Task("pair", ("color2",), "{color2}."), ("second_color",)),
    (Task("count", ("number", "color"), "{number} {color}."), ()),
    (Task("count", ("color", "number"), "{color} {number}."), ("number_last",)),
    (Task("clip", ("color", "action"), "{color} {action}."), ("clip_action",)),
    (Task("clip", ("color",), "{color}."), ("clip_look",)),
    (Task("single", ("color",), "quick {color}."), ("letter_q",)),
    (Task("single", ("color",), "{color} fox."), ("letter_x",)),
    (Task("single", ("color",), "{color}.", {"red": "fox", "blue": "square"}), ()),
    (Task("single", ("position",), "{position}.", {"top": "fox", "left": "owl"}), ("position_renamed",)),
    (Task("single", ("shape",), "{shape}.", RENAMED), ()),
    (Task("single", ("shape",), "{shape}.", RENAMED | {"moon": "star"}), ("shape_by_shape",)),
    (Task("pair", ("shape2",), "{shape2}.", RENAMED | {"moon": "fox"}), ("predicate_by_shape",)),
    (Task("single", ("size",), "{size}.", {"small": "large", "large": "small"}), ("opposite",)),
    (Task("pair", ("relation",), "{relation}.", {"above": "below", "below": "left of"}), ()),
    (Task("digit", ("digit",), "{digit}.", {"one": "two", "two": "fox"}), ("digit_by_digit",)),
    (Task("count", ("number",), "{number}.", tasks.ONE_MORE), ()),
]


@pytest.mark.parametrize("task, families", CASES)
def test_the_families_of_a_task(task, families):
    assert held_out(task) == families


def test_there_are_sixteen_families_in_five_levels_and_one_of_each_for_choices():
    assert len(FAMILIES) == 16 and {family.level for family in FAMILIES.values()} == {1, 2, 3, 4, 5}
    assert sorted(family.level for family in FAMILIES.values() if family.dev) == [1, 2, 3, 4, 5]


# ---- documents -------------------------------------------------------------------------------


def test_what_nobody_can_know_has_no_loss(rng):
    """The first answer, and with a table the answer to a value that the document did not have before."""
    met_quiet = 0
    for _ in range(300):
        task = draw_task(rng)
        sample, met = sampler(task), set()
        fixed = not task.table or task.table in tasks.FUNCTIONS.values()
        for i, (scene, _, words) in enumerate(examples(task, lambda s=sample: (s(rng), None), 12)):
            value = tasks.properties(scene)[task.slots[0]]
            assert isinstance(words, Quiet) == (i == 0 if fixed else value not in met)
            met.add(value)
            met_quiet += i > 0 and isinstance(words, Quiet)
    assert met_quiet > 100


def test_one_more_and_the_larger_of_two():
    rng = np.random.default_rng(1)
    count = Task("count", ("number",), "so {number}.", tasks.ONE_MORE)
    larger = Task("sum", ("larger",), "{larger}.")
    for _ in range(20):
        scene = sampler(count)(rng)
        assert tasks.answer(count, scene) == f"so {say.NUMBERS[len(scene.things) + 1]}."
        scene = sampler(larger)(rng)
        assert tasks.answer(larger, scene) == f"{DIGITS[max(scene.digits)]}."


def test_documents_have_from_three_to_36_examples_of_one_task_and_pages_are_long_enough(rng, tokenizer):
    stage = small_stage(rng, tokenizer)
    lengths = {len(text_task(rng, longer)) // 2 for longer in (1, 4) for _ in range(200)}
    assert min(lengths) == 3 and max(lengths) == MOST
    for length in (1, 6):
        assert all(
            len(encode_document(task_page(rng, stage.pool, length), tokenizer).tokens) > 96 * length for _ in range(20)
        )


def test_a_pool_without_a_fitting_scene_ends_a_task(rng):
    task = Task("count", ("color",), "{color}.", {"red": "fox", "blue": "owl"})
    scene = sampler(Task("count", ("color",), "{color}.", {"green": "fox"}))(rng)
    assert list(examples(task, lambda: (scene, None), 5)) == []


def test_a_page_states_no_fact_of_an_unasked_thing(rng, tokenizer):
    stage = small_stage(rng, tokenizer)

    def stated():
        count = 0
        for _ in range(500):
            for shown, words in shots_of_page(task_page(rng, stage.pool, 2), stage.pool):
                kind = (shown.get("shape"), shown.get("color"))
                count += kind in UNASKED and bool({shown.get("place"), shown.get("animal")} & set(words))
        return count

    assert stated() == 0
    with pytest.MonkeyPatch.context() as m:
        m.setattr(task_documents, "UNASKED", frozenset())
        assert stated() > 20


def test_no_task_has_a_wild_thing(rng, tokenizer):
    assert not set(WILD) & {thing[0] for _ in range(200) for thing in task_documents._things(draw_task(rng))}
