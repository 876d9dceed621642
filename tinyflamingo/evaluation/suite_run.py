"""The suite run on a model: scores by shots, sanity checks, specialists, and the report (chapter §5).

Not here: the tasks (`evaluation/suite.py`), prompts and answers (`evaluation/few_shot.py`), metrics
(`evaluation/metrics.py`), the document that is made of reports (`studies/report.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.few_shot import by_likeness, draw_instance, few_shot, over_orders
from tinyflamingo.evaluation.metrics import METRICS, summarise, summarise_auc
from tinyflamingo.evaluation.specialists import Examples, finetuned, linear, prototype, whole
from tinyflamingo.evaluation.suite import SUPPORT, TASKS
from tinyflamingo.evaluation.words import few_shot_words
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.flamingo import encode_media
from tinyflamingo.ops.team import keep_memory

FORMAT = "tinyflamingo-suite/1"
STREAM = 20260102  # the suite's own test streams; no other code uses the number
SHOTS = (0, 4, 8, 16, 32)
CHOSEN = 16  # shots chosen by likeness, or put in several orders
POOL = 256  # examples that they are chosen from
WHOLE_SET = 3000  # examples of a whole training set
ROOM = 2048  # tokens: 32 shots of a dialogue are more than the toy's context

# ---- scores ----------------------------------------------------------------------------------


def score(task, queries, found, rng):
    """{"score", "ci95", "n"} of the answers to queries, by the task's metric.

    The interval is that of the queries, the shots given: queries of an instance share theirs. How much the shots matter
    is part of what several seeds differ in.
    """
    if task.metric == "ROC AUC":
        margins = [scores[0] - scores[1] for _, scores in found]
        return summarise_auc(margins, [q.answers[-1] == q.candidates[0] for q in queries], rng)
    texts, accepted = [_words(text) for text, _ in found], [tuple(map(_words, q.accepted)) for q in queries]
    return summarise(METRICS[task.metric](texts, accepted), rng)


def _words(text):
    """Tokenised for CIDEr: the full stop is no part of the last word."""
    return text.replace(".", " .")


def run_task(model, name, seed=0, shots=SHOTS, instances=10, queries=50, specialists=True):
    """Everything about one task -> its part of the suite's report."""
    task, number = TASKS[name], list(TASKS).index(name)
    rngs = [split_rng("test", STREAM, seed, number, i) for i in range(instances)]
    keys = [(STREAM, seed, i) for i in range(instances)]
    made = [draw_instance(model, task, r, k, max(shots), queries) for r, k in zip(rngs, keys, strict=True)]
    asked, rng = [q for instance in made for q in instance.queries], split_rng("test", STREAM, seed, number)

    def answers(run):
        found = ops.parallel_map(lambda pair: run(*pair), list(zip(made, rngs, strict=True)))
        return [f for part in found for f in part]

    def scored(run):
        return score(task, asked, answers(run), rng)

    report = {"paper": task.mirrors, "dev": task.dev, "metric": task.metric, "shots": {}}
    for k in shots:
        found = answers(lambda instance, _, k=k: few_shot(model, instance, k))
        report["shots"][str(k)] = score(task, asked, found, rng)
    report["sanity"] = {"swapped": swapped(asked, found, rng)} | sanity(model, task, max(shots), scored)
    if task.ways:
        report["retrieval"] = retrieval(model, task, seed, keys, queries, rng)
    if specialists:
        report["specialists"] = {
            kind.__name__: scored(lambda instance, r, kind=kind: _specialist(model, task, kind, instance, r))
            for kind in (prototype, linear, finetuned)
        }
        report["specialists"]["whole"] = whole_data(model, task, made, keys, asked, rng)
    return report


def sanity(model, task, k, scored):
    """What must bring a score down: labels in another order, shots without pictures, queries without theirs."""
    return {
        "shuffled": scored(lambda i, r: few_shot(model, i, k, labels=_shuffled(r, i.shots))),
        "no_pictures": scored(lambda i, _: few_shot(model, i, k, shown=False)),
        "blind": scored(lambda i, _: few_shot(model, i, k, blind=True)),
        "chance": scored(lambda i, _: _most_common(i)),
    }


def retrieval(model, task, seed, keys, queries, rng):
    """Of a task with classes: shots as they come, the most similar ones, and an ensemble of orders."""
    k, pool = (CHOSEN, POOL) if len(keys) > 1 else (task.ways, 4 * task.ways)
    made = [draw_instance(model, task, split_rng("test", STREAM, seed, *key), key, pool, queries) for key in keys]
    runs = {
        "random": lambda i, _: few_shot(model, i, k),
        "rices": lambda i, _: by_likeness(model, i, k),
        "ensemble": lambda i, own: over_orders(model, i, k, own),
    }
    asked = [q for instance in made for q in instance.queries]
    pairs = list(zip(made, rng.spawn(len(made)), strict=True))  # a generator each: they are used side by side
    return {
        name: score(
            task, asked, [f for found in ops.parallel_map(lambda p, run=run: run(*p), pairs) for f in found], rng
        )
        for name, run in runs.items()
    } | {"shots": k}


def swapped(queries, found, rng):
    """Two queries that ask the same of pictures with different answers: of how many pairs are both right?

    For then the answer went with the picture. {"score", "ci95", "n"}; None where no question comes twice.
    """
    right = [text == q.answers[-1] for q, (text, _) in zip(queries, found, strict=True)]
    asked, hits = {}, []
    for i in rng.permutation(len(queries)):
        q = queries[i]
        waiting = asked.setdefault((q.asked[-1], q.candidates), [])
        other = next((j for j in waiting if queries[j].answers[-1] != q.answers[-1]), None)
        if other is None:
            waiting.append(i)
        else:
            waiting.remove(other)
            hits.append(float(right[i] and right[other]))
    return summarise(hits, rng) if hits else None


def _shuffled(rng, shots):
    """The shots' last answers, dealt out anew."""
    return [shots[i].answers[-1] for i in rng.permutation(len(shots))]


def _most_common(instance):
    """To every query the answer that the shots give most often; where it has candidates, the one of them."""
    answers = [e.answers[-1] for e in instance.shots]
    ranked = sorted(dict.fromkeys(answers), key=answers.count, reverse=True)
    found = []
    for query in instance.queries:
        options = [a for a in ranked if a in query.candidates] if query.candidates else ranked
        found.append(((options or query.candidates)[0], [0.0] * len(query.candidates)))
    return found


def with_room(model):
    """The same model, which accepts prompts of ROOM tokens, if its positions are relative and so none is missing."""
    if type(model.config.language) is not LanguageConfig:
        return model
    language = replace(model.config.language, context=max(ROOM, model.config.language.context))
    return replace(model, config=replace(model.config, language=language))


def run_suite(model, seed=0, only=None, quick=False) -> dict:
    """All tasks, or those named in `only`, and the curves of invented words; quick: a tenth of it, no specialists.

    Returns {"format", "seed", "tasks": {name: part}, "few_shot_words"}. `UserError` for an unknown task.
    """
    odd = sorted(set(only or ()) - set(TASKS))
    if odd:
        raise UserError(f"unknown task {odd[0]!r}: choose from {', '.join(TASKS)}")
    keep_memory()
    model = with_room(model)
    size = {"shots": (0, 4), "instances": 1, "queries": 20, "specialists": False} if quick else {}
    tasks = {}
    for name in tqdm([name for name in TASKS if not only or name in only], desc="suite"):
        tasks[name] = run_task(model, name, seed, **size)
    words = {} if only else {"few_shot_words": few_shot_words(model, seed, 20 if quick else 500)}
    return {"format": FORMAT, "seed": seed, "tasks": tasks, **words}


def format_suite(report) -> str:
    """The report as people read it."""
    lines = []
    for name, part in report["tasks"].items():
        shots = "  ".join(f"{k}: {row['score']:.3f}" for k, row in part["shots"].items())
        rest = "  ".join(
            f"{k} {row['score']:.2f}"
            for k, row in (part["sanity"] | part.get("retrieval", {}) | part.get("specialists", {})).items()
            if isinstance(row, dict)
        )
        lines += [f"{name:16s} {part['metric']:12s} {shots}", f"{'':16s} {rest}"]
    for name, curve in report.get("few_shot_words", {}).items():
        lines.append(f"words, {name:14s} " + "  ".join(f"{k}: {row['score']:.3f}" for k, row in curve.items()))
    return "\n".join(lines)


# ---- models trained for one task --------------------------------------------------------------


def _examples(examples, features, pixels):
    return Examples(features, [" ".join(e.asked) for e in examples], [e.answers[-1] for e in examples], pixels)


def _specialist(model, task, kind, instance, rng):
    """A model trained on the instance's shots alone, asked its queries: [(text, scores)]."""
    k = len(instance.shots)
    train = _examples(instance.shots, instance.features[:k], instance.pixels[:k])
    test = _examples(instance.queries, instance.features[k:], instance.pixels[k:])
    found = kind(rng, train, test, [q.candidates for q in instance.queries], model)
    return list(zip(found.predictions, found.scores, strict=True))


def whole_data(model, task, made, keys, asked, rng):
    """The score of one specialist trained on a whole training set; of tasks with classes, on the first instance."""
    used = made[:1] if task.ways else made
    examples = [task.example(rng, SUPPORT, keys[0]) for _ in range(WHOLE_SET)]
    pixels = np.stack([task.pixels(rng, e.medium) for e in examples])
    train = _examples(examples, encode_media(model.frozen, pixels, model.config, model.parts), pixels)
    queries = [q for instance in used for q in instance.queries]
    features, shown = (np.concatenate([x(i)[len(i.shots) :] for i in used]) for x in (_features, _pixels))
    found = whole(rng, train, _examples(queries, features, shown), [q.candidates for q in queries], model)
    return score(task, queries, list(zip(found.predictions, found.scores, strict=True)), rng)


def _features(instance):
    return instance.features


def _pixels(instance):
    return instance.pixels
