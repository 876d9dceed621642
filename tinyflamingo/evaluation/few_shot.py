"""The suite run on a model: shots from 0 to 32, sanity checks, retrieval and ensembles (chapter §5; paper A.2).

All queries of an instance share their shots, so these are read once and every query goes on from the
cache. Open-ended answers are written by a beam of 3 up to `<EOC>`, close-ended ones are ranked by
log-likelihood. Zero-shot prompts of open-ended tasks begin with two examples without their pictures.

Not here: the tasks (`evaluation/suite.py`) and the metrics (`evaluation/metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from tinyflamingo import ops
from tinyflamingo.data.items import EOC
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import METRICS, summarise, summarise_auc
from tinyflamingo.evaluation.specialists import Examples, finetuned, linear, prototype, whole
from tinyflamingo.evaluation.suite import QUERY, SUPPORT, TASKS
from tinyflamingo.evaluation.words import few_shot_words
from tinyflamingo.model.flamingo import encode_media, flamingo, see
from tinyflamingo.model.generate import beam_search, init_caches, score_continuations, spread
from tinyflamingo.model.interleave import Batch, encode_document, phi
from tinyflamingo.model.tokenizer import PAD

FORMAT = "tinyflamingo-suite/1"
STREAM = 20260102  # the suite's own test streams; no other code uses the number
SHOTS = (0, 4, 8, 16, 32)
TEXT_ONLY = 2  # examples without pictures in a zero-shot prompt
BEAMS = 3
ANSWER_TOKENS = 16
ROWS = 64  # queries, or queries with a candidate each, side by side
POOL = 256  # examples that RICES chooses from
ORDERS = 6  # permutations of an ensemble
WHOLE_SET = 3000  # examples of a whole training set
MEDIUM = object()  # stands for a picture or video in the items of a prompt


@dataclass
class Instance:
    """Shots and queries of a task, drawn and encoded: examples, features (n, F, S, Dv), visual tokens (n, R, D)."""

    shots: list
    queries: list
    pixels: np.ndarray  # of shots, then queries
    features: np.ndarray
    visual: np.ndarray

    @property
    def shown(self):
        """Visual tokens of the shots and of the queries."""
        return self.visual[: len(self.shots)], self.visual[len(self.shots) :]


def draw_instance(model, task, rng, number, shots, queries) -> Instance:
    """number: a tuple that fixes the classes of a task that has some."""
    chosen = task.shots(rng, shots, number)
    asked = [task.example(rng, QUERY, number) for _ in range(queries)]
    pixels = np.stack([task.pixels(rng, e.medium) for e in chosen + asked])
    features = encode_media(model.frozen, pixels, model.config)
    return Instance(chosen, asked, pixels, features, see(model.params, features, model.config))


# ---- prompts ---------------------------------------------------------------------------------


def shot_items(example, medium, answer=None):
    """An example as it stands in a prompt; medium None: without its picture. answer: another last answer."""
    answers = (*example.answers[:-1], answer or example.answers[-1])
    items = [EOC if medium is None else medium]
    for question, said in zip(example.asked, answers, strict=True):
        items += [question, said]
    return items


def read_prompt(model, items, visual, others):
    """The cache after a prompt: items of all shots; visual (k, R, D) of its media; others (n, R, D) come later."""
    sequence = encode_document(items, model.tokenizer)
    tokens = np.array([sequence.tokens if items else sequence.tokens[:1]])
    everything = np.concatenate([visual, others])
    cache = init_caches(model.params, model.config, 1, tokens.shape[1], everything)
    flamingo(model.params, model.frozen, tokens, phi(tokens), everything, model.config, cache=cache)
    return cache, everything


def continuation(tokens, seen):
    """A batch of rows of ids (B, T) that go on from a prompt, all tokens of a row seeing its medium of `seen` (B,)."""
    looks = np.repeat(np.asarray(seen)[:, None], tokens.shape[1], axis=1)
    zeros = np.zeros(tokens.shape, int)
    return Batch(tokens, zeros.astype(np.float32), looks, looks, zeros, zeros, [])


def suffix(model, items):
    """Ids of what follows a prompt: a medium and texts."""
    return encode_document(items, model.tokenizer, complete=False).tokens[1:]


# ---- answers ---------------------------------------------------------------------------------


def write(model, rows, seen, cache, everything):
    """A continuation of each row (lists of items) by beam search; rows of one length go together."""
    ids, texts = [suffix(model, items) for items in rows], [""] * len(rows)
    for length in sorted({len(i) for i in ids}):
        same = [i for i, row in enumerate(ids) if len(row) == length]
        for some in (same[i : i + ROWS // BEAMS] for i in range(0, len(same), ROWS // BEAMS)):
            batch = continuation(np.array([ids[i] for i in some]), [seen[i] for i in some])
            out, _ = beam_search(
                model.params, model.frozen, batch, everything, model.config, BEAMS, ANSWER_TOKENS,
                spread(cache, np.zeros(len(some), int), 0),
            )  # fmt: skip
            for i, said in zip(some, out, strict=True):
                texts[i] = model.tokenizer.decode(said).strip()
    return texts


def rank(model, rows, candidates, seen, cache, everything):
    """Log-likelihood of every candidate after each row, up to `<EOC>`: a list of lists."""
    flat = [(i, c) for i, options in enumerate(candidates) for c in options]
    scores = []
    for some in (flat[i : i + ROWS] for i in range(0, len(flat), ROWS)):
        known = [len(suffix(model, rows[i])) for i, _ in some]
        ids = [[*suffix(model, [*rows[i], c]), model.tokenizer.eoc] for i, c in some]
        tokens = np.full((len(ids), max(map(len, ids))), PAD)
        weights = np.zeros(tokens.shape, np.float32)
        for row, (mine, start) in enumerate(zip(ids, known, strict=True)):
            tokens[row, : len(mine)], weights[row, start : len(mine)] = mine, 1
        batch = replace(continuation(tokens, [seen[i] for i, _ in some]), weights=weights)
        grown = spread(cache, np.zeros(len(some), int), tokens.shape[1])
        scores += score_continuations(model.params, model.frozen, batch, everything, model.config, grown).tolist()
    found = iter(scores)
    return [[next(found) for _ in options] for options in candidates]


def answer(model, examples, items, visual, others, blind=False):
    """Answers to examples after a prompt: [(text, log-likelihoods of the candidates or [])].

    items: of the prompt's shots, with media in the order of visual (k, R, D); others (n, R, D): what the
    examples show, one each; blind: their pictures are left out. `UserError` if tokens see all media before them.
    """
    if model.config.xattn.attend != "last":
        raise UserError("the suite reads shots once for many queries: that needs xattn.attend 'last'")
    cache, everything = read_prompt(model, items, visual, others)
    seen = [0 if blind else len(visual) + 1 + i for i in range(len(examples))]
    rows = [[*([] if blind else [MEDIUM]), e.asked[0]] for e in examples]
    for turn in range(1, len(examples[0].asked)):
        said = write(model, rows, seen, cache, everything)
        rows = [[*row, text, e.asked[turn]] for row, text, e in zip(rows, said, examples, strict=True)]
    if not examples[0].candidates:
        return [(text, []) for text in write(model, rows, seen, cache, everything)]
    scores = rank(model, rows, [e.candidates for e in examples], seen, cache, everything)
    return [(e.candidates[int(np.argmax(s))], s) for e, s in zip(examples, scores, strict=True)]


def few_shot(model, instance: Instance, k, shown=None, labels=None, blind=False):
    """Answers to all queries of an instance after its first k shots; with 0, the paper's zero-shot prompt.

    shown: whether the shots have their pictures (by default, all but zero-shot); labels: last answers in
    place of the shots' own; blind: the queries lose their pictures.
    """
    shown = k > 0 if shown is None else shown
    count = k or (0 if instance.queries[0].candidates else TEXT_ONLY)
    shots, (visual, others) = instance.shots[:count], instance.shown
    labels = labels or [None] * count
    items = [i for e, a in zip(shots, labels, strict=True) for i in shot_items(e, MEDIUM if shown else None, a)]
    return answer(model, instance.queries, items, visual[:count] if shown else visual[:0], others, blind)


# ---- scores ----------------------------------------------------------------------------------


def score(task, queries, found, rng):
    """{"score", "ci95", "n"} of the answers to queries, by the task's metric."""
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
        found = ops.share_out(lambda pair: run(*pair), list(zip(made, rngs, strict=True)))
        return [f for part in found for f in part]

    def scored(run):
        return score(task, asked, answers(run), rng)

    report = {"paper": task.mirrors, "dev": task.dev, "metric": task.metric, "shots": {}}
    for k in shots:
        found = answers(lambda instance, _, k=k: few_shot(model, instance, k))
        report["shots"][str(k)] = score(task, asked, found, rng)
    report["sanity"] = {"swapped": swapped(asked, found, rng)} | sanity(model, task, max(shots), scored)
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
    """To every query the answer that the shots give most often."""
    answers = [e.answers[-1] for e in instance.shots]
    common = max(dict.fromkeys(answers), key=answers.count)
    return [(common, [0.0] * len(q.candidates)) for q in instance.queries]


def run_suite(model, seed=0, only=None, quick=False) -> dict:
    """All tasks, or those named in `only`, and the curves of invented words; quick: a tenth of it, no specialists.

    Returns {"format", "seed", "tasks": {name: part}, "few_shot_words"}. `UserError` for an unknown task.
    """
    odd = sorted(set(only or ()) - set(TASKS))
    if odd:
        raise UserError(f"unknown task {odd[0]!r}: choose from {', '.join(TASKS)}")
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
            f"{k} {row['score']:.2f}" for k, row in (part["sanity"] | part.get("specialists", {})).items() if row
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
    train = _examples(examples, encode_media(model.frozen, pixels, model.config), pixels)
    queries = [q for instance in used for q in instance.queries]
    features, shown = (np.concatenate([x(i)[len(i.shots) :] for i in used]) for x in (_features, _pixels))
    found = whole(rng, train, _examples(queries, features, shown), [q.candidates for q in queries], model)
    return score(task, queries, list(zip(found.predictions, found.scores, strict=True)), rng)


def _features(instance):
    return instance.features


def _pixels(instance):
    return instance.pixels
