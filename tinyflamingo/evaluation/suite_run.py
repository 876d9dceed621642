"""Runs the suite on a model: scores by shots, sanity checks, specialists, and the report (chapter §5).

Not here: the tasks (`evaluation/suite.py`), prompts and answers (`evaluation/few_shot.py`), metrics
(`evaluation/metrics.py`), the document made from reports (`studies/report.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.evaluation.few_shot import Instance, draw_instance, few_shot, few_shot_ensemble, few_shot_rices
from tinyflamingo.evaluation.metrics import METRICS, summarise, summarise_auc
from tinyflamingo.evaluation.run import chosen_tasks, require_tinyworld
from tinyflamingo.evaluation.specialists import Examples, finetuned, linear, prototype, whole
from tinyflamingo.evaluation.suite import SUPPORT, TASKS, WAYS, Task
from tinyflamingo.evaluation.tuned import tuned
from tinyflamingo.evaluation.words import few_shot_words
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_media
from tinyflamingo.ops.team import keep_memory

FORMAT = "tinyflamingo-suite/1"
STREAM = 20260102  # the suite's own test streams; no other code uses the number
CHOSEN = 16  # shots chosen by similarity, or put in several orders
POOL = 256  # examples from which they are chosen
WHOLE_SET = 3000  # examples of a whole training set
ROOM = 2048  # tokens: 32 shots of a dialogue are longer than the toy's context


@dataclass(frozen=True)
class Size:
    """How much of the suite is run."""

    shots: tuple = (0, 4, 8, 16, 32)
    instances: int = 10  # of each task, with shots of their own
    queries: int = 50  # of each instance
    level_shots: tuple = (0, 1, 4, 16, 32)  # the same for tasks explained only by examples
    level_queries: int = 20
    words: int = 500  # episodes of each measurement of invented words
    specialists: bool = True


FULL, QUICK = Size(), Size((0, 4), 1, 20, level_shots=(0, 4), words=20, specialists=False)

# ---- scores ----------------------------------------------------------------------------------


def score(task: Task, queries: list, answers: list, rng: np.random.Generator) -> dict:
    """{"score", "ci95", "n"} of answers (text, scores of candidates) to queries, by the task's metric.

    The interval is over queries, with the shots fixed: queries of an instance share their shots. The effect of the
    shots is part of the difference between seeds.
    """
    if task.metric == "ROC AUC":
        margins = [scores[0] - scores[1] for _, scores in answers]
        return summarise_auc(margins, [q.answers[-1] == q.candidates[0] for q in queries], rng)
    texts, accepted = [_words(text) for text, _ in answers], [tuple(map(_words, q.accepted)) for q in queries]
    return summarise(METRICS[task.metric](texts, accepted), rng)


def _words(text):
    """Tokenised for CIDEr: the full stop is a word of its own."""
    return text.replace(".", " .")


def answer_all(run: Callable, instances: list[Instance], rngs: list) -> list:
    """Answers `run(instance, rng)` to the queries of all instances, in one list."""
    parts = ops.parallel_map(lambda pair: run(*pair), list(zip(instances, rngs, strict=True)))
    return [answer for part in parts for answer in part]


def run_task(model: TrainedFlamingo, name: str, seed: int = 0, size: Size = FULL) -> dict:
    """One task -> its part of the suite's report."""
    task, number = TASKS[name], list(TASKS).index(name)
    shots, queries = (size.level_shots, size.level_queries) if task.level else (size.shots, size.queries)
    most, keys = max(shots), [(STREAM, seed, i) for i in range(size.instances)]
    rngs = [split_rng("test", STREAM, seed, number, i) for i in range(size.instances)]
    drawn = [draw_instance(model, task, r, key, most, queries) for r, key in zip(rngs, keys, strict=True)]
    rng, all_queries = split_rng("test", STREAM, seed, number), [q for instance in drawn for q in instance.queries]

    def scored(run):
        return score(task, all_queries, answer_all(run, drawn, rngs), rng)

    report: dict = {"paper": task.mirrors, "dev": task.dev, "metric": task.metric, "level": task.level, "shots": {}}
    for k in shots:
        answers = answer_all(lambda i, _, k=k: few_shot(model, i, k), drawn, rngs)
        report["shots"][str(k)] = score(task, all_queries, answers, rng)
    report["sanity"] = {"swapped": swapped(all_queries, answers, rng)} | sanity(model, most, scored)
    if task.ways or task.level:
        report["retrieval"] = retrieval(model, task, seed, keys, queries, rng)
    if size.specialists:
        report["specialists"] = {
            kind.__name__: scored(lambda i, r, kind=kind: _specialist(model, kind, i, r))
            for kind in (prototype, linear, finetuned)
        }
        if task.level:
            report["specialists"]["tuned"] = scored(partial(tuned, model))
        report["specialists"]["whole"] = whole_data(model, task, drawn, keys[0], rng)
    return report


def sanity(model: TrainedFlamingo, k: int, scored: Callable) -> dict:
    """Changes that must lower a score: labels in another order, shots without pictures, queries without pictures."""
    return {
        "shuffled": scored(lambda i, r: few_shot(model, i, k, labels=_shuffled(r, i.shots))),
        "no_pictures": scored(lambda i, _: few_shot(model, i, k, pictures=False)),
        "blind": scored(lambda i, _: few_shot(model, i, k, blind=True)),
        "chance": scored(lambda i, _: _most_common(i)),
    }


def retrieval(
    model: TrainedFlamingo, task: Task, seed: int, keys: list, queries: int, rng: np.random.Generator
) -> dict:
    """Scores of a task that its key fixes: random shots, the most similar shots, and an ensemble of orders."""
    k, pool = (CHOSEN, POOL) if len(keys) > 1 else (WAYS, 4 * WAYS)
    drawn = [draw_instance(model, task, split_rng("test", STREAM, seed, *key), key, pool, queries) for key in keys]
    runs = {
        "random": lambda i, _: few_shot(model, i, k),
        "rices": lambda i, _: few_shot_rices(model, i, k),
        "ensemble": lambda i, own_rng: few_shot_ensemble(model, i, k, own_rng),
    }
    all_queries = [q for instance in drawn for q in instance.queries]
    rngs = rng.spawn(len(drawn))  # one for each instance, because instances run in parallel
    scores = {name: score(task, all_queries, answer_all(run, drawn, rngs), rng) for name, run in runs.items()}
    return scores | {"shots": k}


def swapped(queries: list, answers: list, rng: np.random.Generator) -> dict | None:
    """The fraction of pairs of queries, with one question and two right answers, in which both are answered right.

    A model that ignores the picture cannot answer both. {"score", "ci95", "n"}; None if no question occurs twice.
    """
    right = [text == q.answers[-1] for q, (text, _) in zip(queries, answers, strict=True)]
    unpaired: dict = {}
    hits = []
    for i in rng.permutation(len(queries)):
        q = queries[i]
        waiting = unpaired.setdefault((q.asked[-1], q.candidates), [])
        other = next((j for j in waiting if queries[j].answers[-1] != q.answers[-1]), None)
        if other is None:
            waiting.append(i)
        else:
            waiting.remove(other)
            hits.append(float(right[i] and right[other]))
    return summarise(hits, rng) if hits else None


def _shuffled(rng, shots):
    """The shots' last answers in random order."""
    return tuple(shots[i].answers[-1] for i in rng.permutation(len(shots)))


def _most_common(instance):
    """For every query the most common answer of the shots, among the query's candidates if it has some."""
    answers = [e.answers[-1] for e in instance.shots]
    ranked = sorted(dict.fromkeys(answers), key=answers.count, reverse=True)
    guesses = []
    for query in instance.queries:
        options = [a for a in ranked if a in query.candidates] if query.candidates else ranked
        guesses.append(((options or query.candidates)[0], [0.0] * len(query.candidates)))
    return guesses


# ---- the whole suite -------------------------------------------------------------------------


def with_room(model: TrainedFlamingo) -> TrainedFlamingo:
    """The same model for prompts of ROOM tokens, if its positions are relative: then no position is missing."""
    if type(model.config.language) is not LanguageConfig:
        return model
    language = replace(model.config.language, context=max(ROOM, model.config.language.context))
    return replace(model, config=replace(model.config, language=language))


def run_suite(model: TrainedFlamingo, seed: int = 0, only: list | None = None, quick: bool = False) -> dict:
    """All tasks, or those in `only`, and the curves of invented words. quick: one instance of
    each task, fewer shots and queries, no specialists.

    Returns {"format", "seed", "preset", "tasks": {name: part}, "few_shot_words"}; the preset is that of the model's
    training. `UserError` for an unknown task.
    """
    chosen = chosen_tasks(only, TASKS)
    require_tinyworld(model)
    keep_memory()
    model = with_room(model)
    size = QUICK if quick else FULL
    tasks = {name: run_task(model, name, seed, size) for name in tqdm(chosen, desc="suite")}
    words = {} if only else {"few_shot_words": few_shot_words(model, seed, size.words)}
    return {"format": FORMAT, "seed": seed, "preset": model.info.get("preset"), "tasks": tasks, **words}


def format_suite(report: dict) -> str:
    """The report as a table for people."""
    lines = []
    for name, part in report["tasks"].items():
        shots = "  ".join(f"{k}: {row['score']:.3f}" for k, row in part["shots"].items())
        others = part["sanity"] | part.get("retrieval", {}) | part.get("specialists", {})
        rest = "  ".join(f"{k} {row['score']:.2f}" for k, row in others.items() if isinstance(row, dict))
        lines += [f"{name:16s} {part['metric']:12s} {shots}", f"{'':16s} {rest}"]
    for name, curve in report.get("few_shot_words", {}).items():
        lines.append(f"words, {name:14s} " + "  ".join(f"{k}: {row['score']:.3f}" for k, row in curve.items()))
    return "\n".join(lines)


# ---- models trained for one task --------------------------------------------------------------


def _examples(examples, features, pixels):
    questions, answers = [" ".join(e.asked) for e in examples], [e.answers[-1] for e in examples]
    return Examples(features, questions, answers, [e.candidates for e in examples], pixels)


def _specialist(model, kind, instance, rng):
    """Answers to the queries by a model that is trained on the instance's shots alone: [(text, scores)]."""
    k = len(instance.shots)
    train = _examples(instance.shots, instance.features[:k], instance.pixels[:k])
    test = _examples(instance.queries, instance.features[k:], instance.pixels[k:])
    answers = kind(rng, train, test, model)
    return list(zip(answers.predictions, answers.scores, strict=True))


def whole_data(model: TrainedFlamingo, task: Task, drawn: list[Instance], key: tuple, rng: np.random.Generator) -> dict:
    """The score of one specialist trained on a whole training set. A task that its key fixes counts one instance."""
    tested = drawn[:1] if task.ways or task.level else drawn
    examples = [task.example(rng, SUPPORT, key) for _ in range(WHOLE_SET)]
    pixels = np.stack([task.pixels(rng, e.medium, model.config.vision.side) for e in examples])
    train = _examples(examples, encode_media(model.frozen, pixels, model.config, model.parts), pixels)
    queries = [q for instance in tested for q in instance.queries]
    features = np.concatenate([instance.features[len(instance.shots) :] for instance in tested])
    pixels = np.concatenate([instance.pixels[len(instance.shots) :] for instance in tested])
    answers = whole(rng, train, _examples(queries, features, pixels), model)
    return score(task, queries, list(zip(answers.predictions, answers.scores, strict=True)), rng)
