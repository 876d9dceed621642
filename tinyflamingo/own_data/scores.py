"""Scores of a model on the user's own data: on records that training never saw.

Chapter §5. Each score has two others beside it. The first is the same score with another record's pictures: a model
that uses the pictures is better than this. The second is that of nearest neighbours on raw pixels: a model that learned
more than they know is better than this. A low perplexity alone shows neither.

Not here: TinyWorld's tasks (`evaluation/run.py`), which records are asked (`data/held_out.py`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo.checkpoint import find_checkpoint
from tinyflamingo.data.held_out import MODES
from tinyflamingo.data.store import CARD, Store, Stored, prepare
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.video import FPS
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.few_shot import MEDIUM, rank, read_shots, write
from tinyflamingo.evaluation.metrics import checked, cider_d, summarise, vqa_accuracy
from tinyflamingo.evaluation.retrieval import distances
from tinyflamingo.evaluation.run import evaluate
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_and_resample, flamingo, own_medium
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.own_data.options import FOLDER, TEST
from tinyflamingo.own_data.questions import MOST, Question, Side, others, questions, small_pixels, unseen
from tinyflamingo.own_data.ways import ways_scores
from tinyflamingo.training.flamingo_stage import cut
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.run import Evaluate

LONGEST = 256  # scored tokens of a record, and written tokens of an answer, at most
STREAM = 20261130  # of the test streams of these scores; no other code uses the number
ASKED = 100  # questions, at most
CANDIDATES = 50  # texts of training among which the right one is ranked


def evaluate_run(folder: str | Path) -> Evaluate:
    """The evaluation at the end of the run in a folder, on TinyWorld, on the user's own data, or on both."""

    def score(model, n, seed):
        own = model.info.get("data")
        report = {"tasks": {}} if own and own["mix"] == 1 else evaluate(model, n, seed)
        return report | ({"own": own_report(model, *run_sides(Path(folder)), n, seed=seed)} if own else {})

    return score


def run_sides(folder: Path) -> tuple[Side, Side]:
    """(training, asked) of a run: its held-out records, or those of its test set."""
    store = Store(folder / FOLDER)
    training = Side(store, store.training)
    if not (folder / TEST / CARD).exists():
        return training, Side(store, store.held_out)
    test = Store(folder / TEST)
    return training, Side(test, test.training)


def evaluate_own(
    model: TrainedFlamingo,
    folder: Path,
    data: str | None = None,
    test: str | None = None,
    shots: Sequence[int] = (0,),
    n: int = ASKED,
    seed: int = 0,
) -> dict:
    """{"own": report} of any model on the user's own data, decoded for it in a temporary folder.

    folder: of the checkpoint; the run beside it has the data. data: the data set, if the run does not have it; records
    are held out as in training. test: a data set of which every picture is asked.
    """
    with own_sides(model, folder, data, test) as (training, asked, shown):
        return {"own": own_report(model, training, asked, n, shots, seed, shown)}


@contextmanager
def own_sides(
    model: TrainedFlamingo, folder: Path, data: str | None, test: str | None, everything: bool = False
) -> Iterator[tuple[Side, Side, list[Side]]]:
    """(training, asked, shown) for `evaluate_own`, as long as the block runs.

    shown: the training records of the run beside the checkpoint, if other data are given. Those may have grown since,
    and then other records are held out. everything: of `data`, nothing is held out.
    """
    vision, own = model.config.vision, model.info.get("data") or {}
    run = find_checkpoint(folder).parent
    if data is None and not (run / FOLDER / CARD).exists():
        raise UserError(f"the data of the run are not in {run / FOLDER}: give their place with --data PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:

        def decode(path, name, hold_out):
            fps = own.get("fps", FPS)
            kind = own.get("format") if path == own.get("path") else None
            return prepare(path, Path(place) / name, vision.side, kind, 1.0, vision.preparation, fps, hold_out)

        shown = [run_sides(run)[0]] if data and (run / FOLDER / CARD).exists() else []
        if data is None:
            training, asked = run_sides(run)
        else:
            store = decode(data, FOLDER, "nothing" if test or everything else own.get("hold_out", MODES[0]))
            training, asked = Side(store, store.training), Side(store, store.held_out)
        if test:
            store = decode(test, TEST, "nothing")
            asked = Side(store, store.training)
        yield training, asked, shown


def own_report(
    model: TrainedFlamingo,
    training: Side,
    asked: Side,
    n: int = ASKED,
    shots: Sequence[int] = (0,),
    seed: int = 0,
    shown: Sequence[Side] = (),
) -> dict:
    """All scores of a model: {"n", "perplexity", "perplexity_exchanged", "asked", "left_out", "scores": {name: row}}.

    A row: {"score", "ci95", "n", "another", "neighbours"}. asked: number of questions. shown: records on which the
    model was trained beside `training`. left_out: questions about pictures that one of the two shows too.
    """
    new = unseen(asked, training, *shown)
    fresh = questions(new)
    chosen, known = fresh[:: max(1, -(-len(fresh) // min(n, ASKED)))], questions(training, MOST)
    report = held_out(model, new, n)
    report |= {"asked": len(chosen), "left_out": len(questions(asked)) - len(fresh), "scores": {}}
    if len({q.picture for q in chosen}) < 2 or not known or model.parts.visible is not own_medium:
        return report
    _require_shots(model, known, chosen, shots, seed)
    visual_of = partial(visual_tokens, model)
    for k in shots:
        prefix = "" if k == 0 else f"{k} shots: "
        rows = answer_scores(model, known, chosen, visual_of, k, seed)
        report["scores"] |= {prefix + name: row for name, row in rows.items()}
    report["scores"] |= ways_scores(model, known, chosen, visual_of, seed)
    return report


def visual_tokens(model: TrainedFlamingo, some: list[Question]) -> np.ndarray:
    """Visual tokens (n, R, D) of the media of some questions, in order."""
    return encode_and_resample(model, [q.pixels() for q in some])


# ---- answers after 0 or more examples --------------------------------------------------------


def answer_scores(
    model: TrainedFlamingo, known: list[Question], asked: list[Question], visual_of: Callable, shots: int, seed: int
) -> dict:
    """{metric: row} of written and of ranked answers, all after the same examples of training."""
    rng = split_rng("test", STREAM, seed, shots)
    examples, items = _examples(rng, known, shots)
    exchanged = [asked[j] for j in others(asked)]
    options, right = _options(rng, known, asked)
    length = max(_length(model.tokenizer, q.answer) for q in (*known, *asked))
    sides = [
        _answers(model, asked, items, examples, visual_of(shown), visual_of, options, length)
        for shown in (asked, exchanged)
    ]
    neighbours = _neighbours(known, asked, options)
    rows = {}
    for name, metric in _metrics(asked).items():
        own, another, near = (metric([text for text, _ in answers]) for answers in (*sides, neighbours))
        rows[name] = summarise(own, rng) | {"another": float(another.mean()), "neighbours": float(near.mean())}
    ranked = [
        np.array([float(best == r) for (_, best), r in zip(answers, right, strict=True)])
        for answers in (*sides, neighbours)
    ]
    name = f"ranking among {len(options[0])} texts"
    more = {"another": float(ranked[1].mean()), "neighbours": float(ranked[2].mean())}
    return rows | {name: summarise(ranked[0], rng) | more}


def _examples(rng, known, shots):
    """(`shots` questions of training, the items of a prompt that shows them with their answers)."""
    examples = [known[i] for i in rng.permutation(len(known))[:shots]]
    return examples, [item for e in examples for item in (MEDIUM, e.asked, e.answer)]


def _require_shots(model, known, asked, shots, seed):
    """`UserError` if there are too few examples, or if the prompt does not fit into the context."""
    context, longest = model.config.language.context, max(len(model.tokenizer.encode(q.asked)) for q in asked)
    for k in shots:
        if k > len(known):
            raise UserError(f"--shots is {k}, but training has {len(known)} records to show: choose a smaller number")
        _, items = _examples(split_rng("test", STREAM, seed, k), known, k)
        need = len(encode_document(items, model.tokenizer).tokens) + min(longest, LONGEST) + LONGEST
        if k and need > context:
            raise UserError(
                f"--shots is {k}, but with so many examples a prompt can have {need} tokens, and the "
                f"context is {context}: choose a smaller number"
            )


def _length(tokenizer, text):
    """Tokens of a text with `<EOC>`, at most LONGEST."""
    return min(len(tokenizer.encode(text)) + 1, LONGEST)


def _answers(model, asked, items, examples, shown, visual_of, options, length):
    """[(written text, number of the likeliest option)] for questions whose media are `shown` (n, R, D).

    length: tokens of the longest answer; longer ones are not written.
    """
    visual = np.concatenate([visual_of(examples), shown]) if examples else shown
    cache, next_token = read_shots(model, items, visual)
    seen = [len(examples) + 1 + i for i in range(len(asked))]
    rows = [[MEDIUM, _beginning(model.tokenizer, q.asked)] for q in asked]
    options = [[_beginning(model.tokenizer, text) for text in texts] for texts in options]
    texts = write(model, rows, seen, cache, visual, length)
    likely = rank(model, rows, options, seen, cache, visual, next_token)
    return [(text, int(np.argmax(scores))) for text, scores in zip(texts, likely, strict=True)]


def _beginning(tokenizer, text):
    """At most LONGEST tokens of a text: all texts of a batch are padded to the longest one."""
    ids = tokenizer.encode(text)
    return text if len(ids) <= LONGEST else tokenizer.decode(ids[:LONGEST])


def _options(rng, known, asked):
    """(texts of training among which each answer is ranked, the place of the answer in them), one for each question."""
    texts = list(dict.fromkeys(q.answer for q in known))
    options, right = [], []
    for q in asked:
        wrong = [text for text in texts if text not in q.accepted]
        chosen = [wrong[i] for i in rng.permutation(len(wrong))[: CANDIDATES - 1]]
        right.append(int(rng.integers(len(chosen) + 1)))
        chosen.insert(right[-1], q.answer)
        options.append(chosen)
    return options, right


def _neighbours(known, asked, options):
    """[(text of the nearest picture of training, option whose picture is nearest)] by raw pixels."""
    far = distances(small_pixels(asked), small_pixels(known))
    answers = []
    for q, row, texts in zip(asked, far, options, strict=True):
        same = np.array([k.asked == q.asked for k in known])
        order = np.argsort(np.where(same, row, np.inf) if same.any() else row, kind="stable")
        ranks = {known[i].answer: place for place, i in reversed(list(enumerate(order)))}
        best = min(range(len(texts)), key=lambda i: ranks.get(texts[i], len(known)))
        answers.append((known[order[0]].answer, best))
    return answers


def _metrics(asked) -> dict[str, Callable]:
    """{name: written answers -> scores (n,)}: those for which the data have what they need."""

    def exact(texts):
        return np.array([float(text in q.accepted) for text, q in zip(texts, asked, strict=True)])

    def first_word(texts):
        pairs = zip(texts, asked, strict=True)
        return np.array([float(text.split()[:1] in [a.split()[:1] for a in q.accepted]) for text, q in pairs])

    metrics: dict[str, Callable] = {"exact match": exact, "first word": first_word}
    if all(q.people for q in asked):
        metrics["VQA accuracy"] = lambda texts: vqa_accuracy(texts, [q.people for q in asked])
    elif any(len(q.accepted) > 1 for q in asked):
        references = [tuple(_words(a) for a in q.accepted) for q in asked]
        metrics["CIDEr-D"] = lambda texts: cider_d([_words(text) for text in texts], references)
    return metrics


def _words(text):
    """Lower case, without punctuation, as CIDEr compares captions."""
    return " ".join(re.findall(r"\w+", text.lower()))


# ---- perplexity ------------------------------------------------------------------------------


def held_out(model: TrainedFlamingo, asked: Side, most: int) -> dict:
    """{"n", "perplexity", "perplexity_exchanged"} over at most `most` asked records with media."""
    store = asked.store
    numbered = [(store.same_picture[number], store.items(int(number))) for number in asked.numbers]
    numbered = [(group, items) for group, items in numbered if any(isinstance(item, Stored) for item in items)][:most]
    groups, records = [group for group, _ in numbered], [items for _, items in numbered]
    if len(set(groups)) < 2:
        return {"n": len(records), "perplexity": None, "perplexity_exchanged": None}
    exchanged = [_with_media(items, records[_other(groups, i)]) for i, items in enumerate(records)]
    right, wrong = (_perplexity(model, store, chosen) for chosen in (records, exchanged))
    return {"n": len(records), "perplexity": right, "perplexity_exchanged": wrong}


def _other(groups, i) -> int:
    """The record nearest before record i, in a circle, whose group is another: it shows no picture of record i."""
    return next(j for j in range(i - 1, i - len(groups), -1) if groups[j] != groups[i])


def _with_media(items, other) -> list:
    """A record with the media of another record, repeated if they are too few."""
    media = [item for item in other if isinstance(item, Stored)]
    places = [i for i, item in enumerate(items) if isinstance(item, Stored)]
    return [media[places.index(i) % len(media)] if i in places else item for i, item in enumerate(items)]


def _perplexity(model, store, records) -> float:
    total, count = 0.0, 0.0
    for items in records:
        sequence = cut(encode_document(items, model.tokenizer), LONGEST)
        batch = make_batch([sequence])
        visual = encode_and_resample(model, [store.frames(medium) for medium in batch.media])
        tokens, phi = batch.tokens[:, :-1], model.parts.visible(batch)[:, :-1]
        logits = flamingo(model.params, model.frozen, tokens, phi, visual, model.config, parts=model.parts)
        weights = batch.weights[:, 1:]
        total += float(np.sum(token_losses(logits, batch.tokens[:, 1:]) * weights))
        count += float(weights.sum())
    return float(checked(np.exp(total / max(count, 1))))
