"""The tasks of the end-to-end evaluation: queries with a prompt and the answers that count as right.

Chapter §5. Every task draws fresh pictures from a stream that no training stage has seen
(`data/tinyworld/pool.py`, `split_rng`). Not here: running and scoring them (`evaluation/run.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import Medium, Pool, draw_pool
from tinyflamingo.data.tinyworld.scenes import (
    ASKED,
    HELD_OUT,
    KNOWN,
    UNASKED,
    pick,
    sample_clip,
    sample_count,
    sample_pair,
    sample_single,
)
from tinyflamingo.data.tinyworld.text import sample_classes, shot_order


@dataclass(frozen=True)
class Query:
    """A prompt (items of `data/items.py`) and its right answer.

    turns: further texts asked one after the other, each after the model's own answer; the last
    answer is the one that is scored.
    """

    prompt: list
    answer: str
    turns: tuple = ()


def captions(rng, n, sample) -> tuple[Pool, list]:
    """Exact captions of sampled scenes."""
    pool = draw_pool(rng, [sample(rng) for _ in range(n)])
    return pool, [Query([Medium("picture", i), "Output:"], say.caption(s)) for i, s in enumerate(pool.scenes)]


def caption(rng, n):
    """A single thing, word for word."""
    return captions(rng, n, sample_single)


def caption_relation(rng, n):
    """Two things and their relation, word for word."""
    return captions(rng, n, sample_pair)


def caption_heldout(rng, n):
    """Single things whose shape and colour never stood together in training."""
    return captions(rng, n, lambda r: sample_single(r, tuple(sorted(HELD_OUT))))


def vqa(rng, n):
    """Colour, shape, number, size, position in turn."""
    names = ("color", "shape", "number", "size", "position")
    pool = draw_pool(rng, [_scene_for(rng, names[i % 5]) for i in range(n)])
    asked = [(i, names[i % 5]) for i in range(n)]
    return pool, [_question(i, name, say.questions(pool.scenes[i])[name]) for i, name in asked]


def _scene_for(rng, name):
    """Number questions get 1 to 5 things evenly; size and place only make sense for a single thing."""
    if name == "number":
        number = int(rng.integers(1, 6))
        return sample_single(rng) if number == 1 else sample_count(rng, number=number)
    return sample_single(rng)


def _question(index, name, answer, kind="picture"):
    return Query([Medium(kind, index), say.ask(name)], answer)


def video_action(rng, n):
    """What happens in a clip."""
    pool = draw_pool(rng, [], [sample_clip(rng) for _ in range(n)])
    return pool, [_question(i, "action", say.questions(c)["action"], "clip") for i, c in enumerate(pool.clips)]


def dialogue(rng, n):
    """Third turn of a dialogue; the first two answers are the model's own."""
    pool = draw_pool(rng, [sample_single(rng) for _ in range(n)])
    queries = []
    for i, scene in enumerate(pool.scenes):
        answers = say.questions(scene)
        first, second, third = (list(answers)[j] for j in rng.permutation(len(answers))[:3])
        turns = (say.ask(second), say.ask(third))
        queries.append(Query([Medium("picture", i), say.ask(first)], answers[third], turns))
    return pool, queries


def knowledge_task(rng, n, things, named_first):
    """A fact of the texts, asked about a picture: at once, or after the model named what it sees."""
    pool = draw_pool(rng, [sample_single(rng, things) for _ in range(n)])
    queries = []
    for i, scene in enumerate(pool.scenes):
        name, answer = pick(rng, list(say.knowledge(*scene.things[0].kind).items()))
        prompt, turns = (["Output:"], (say.ask(name),)) if named_first else ([say.ask(name)], ())
        queries.append(Query([Medium("picture", i), *prompt], answer, turns))
    return pool, queries


def knowledge(rng, n):
    """Facts as pictures were asked about in training."""
    return knowledge_task(rng, n, ASKED, False)


def knowledge_heldout(rng, n):
    """Facts that no picture was asked about, after the model named the thing itself."""
    return knowledge_task(rng, n, tuple(sorted(UNASKED)), True)


def knowledge_direct(rng, n):
    """The same facts, asked at once."""
    return knowledge_task(rng, n, tuple(sorted(UNASKED)), False)


def few_shot(rng, n, words, ways=2, shots=4, things=KNOWN):
    """Invented words bound to a colour, a shape or a thing by `shots` pictures each."""
    scenes, queries = [], []
    for _ in range(n):
        _, classes = sample_classes(rng, ways, things)
        names = [str(w) for w in rng.choice(words, size=ways, replace=False)]
        prompt = []
        for i in shot_order(rng, ways, ways * shots):
            scenes.append(sample_single(rng, classes[i]))
            prompt += [Medium("picture", len(scenes) - 1), f"{names[i]}."]
        target = int(rng.integers(ways))
        scenes.append(sample_single(rng, classes[target]))
        queries.append(Query([*prompt, Medium("picture", len(scenes) - 1)], f"{names[target]}."))
    return draw_pool(rng, scenes), queries


def few_shot_2way(rng, n):
    """Words that stand in training texts, but never beside a picture."""
    return few_shot(rng, n, say.TEXT_WORDS)


def few_shot_new_words(rng, n):
    """Words that stand in no training text."""
    return few_shot(rng, n, say.NEW_WORDS)


def image_swap(rng, n):
    """One question, two pictures with different answers, asked in turn: both must come out right."""
    names, scenes, queries = ("color", "shape", "size", "position"), [], []
    while len(queries) < 2 * n:
        name = pick(rng, names)
        first, second = sample_single(rng), sample_single(rng)
        answers = [say.questions(s)[name] for s in (first, second)]
        if answers[0] == answers[1]:
            continue
        for scene, answer in zip((first, second), answers, strict=True):
            scenes.append(scene)
            queries.append(_question(len(scenes) - 1, name, answer))
    return draw_pool(rng, scenes), queries


TASKS = {
    "caption": caption,
    "caption_relation": caption_relation,
    "caption_heldout": caption_heldout,
    "vqa": vqa,
    "video_action": video_action,
    "dialogue": dialogue,
    "knowledge": knowledge,
    "knowledge_heldout": knowledge_heldout,
    "knowledge_direct": knowledge_direct,
    "few_shot_2way": few_shot_2way,
    "few_shot_new_words": few_shot_new_words,
    "image_swap": image_swap,
}
