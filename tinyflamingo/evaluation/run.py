"""Runs the tasks: generate up to `<EOC>`, compare with the answer, report a score with its interval (chapter §5).

Not here: what the tasks ask (`evaluation/tasks.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, KNOWN, NAMED, draw_scene, sample_single
from tinyflamingo.data.tinyworld.text import text_document
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import checked, interval
from tinyflamingo.evaluation.tasks import TASKS, Query
from tinyflamingo.language import _
from tinyflamingo.model.contrastive import embed_captions, embed_pictures
from tinyflamingo.model.flamingo import TrainedFlamingo, flamingo
from tinyflamingo.model.generate import generate
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.ops.team import keep_memory, one_team
from tinyflamingo.ops.types import Array
from tinyflamingo.training.contrastive_stage import pad_captions
from tinyflamingo.training.flamingo_stage import MediaFeatures, cut
from tinyflamingo.training.losses import shares_of, token_losses
from tinyflamingo.training.presets import PRESETS

STREAM = 20260101  # of the test streams of these tasks; no other code uses the number
BATCH = 50  # prompts decoded side by side
NAME = 26  # columns of the names of scores in a table, at least
ANSWER_TOKENS = 16  # longest answer


def evaluate(model: TrainedFlamingo, n: int = 500, seed: int = 0, only: list | None = None) -> dict:
    """All tasks, or those in `only`; n: queries of each; seed: which test stream. `UserError` for an unknown task,
    and for a model that was not trained on TinyWorld. Without a text tower there is no zero-shot classification.

    Returns {"tasks": {name: {"metric", "score", "ci95", "n"}}, "text_perplexity", "seconds"}.
    """
    names = ["zero_shot_classification", *TASKS]
    chosen = chosen_tasks(only, names)
    require_tinyworld(model)
    if "text" not in model.frozen["contrastive"]:
        if only and names[0] in chosen:
            raise UserError(f"--task {names[0]} needs a text tower, and the checkpoint has none: choose other tasks")
        chosen = [name for name in chosen if name != names[0]]
    keep_memory()
    began = time.perf_counter()

    def run(name):
        rng = split_rng("test", STREAM, seed, names.index(name))
        return zero_shot_classification(model, rng, n) if name not in TASKS else run_task(model, name, rng, n)

    tasks = dict(zip(chosen, ops.parallel_map(run, chosen), strict=True))
    with one_team():
        perplexity = text_perplexity(model, split_rng("test", STREAM, seed, len(names)))
    return {"tasks": tasks, "text_perplexity": perplexity, "seconds": round(time.perf_counter() - began, 1)}


def require_tinyworld(model: TrainedFlamingo) -> None:
    """`UserError` if the card of the checkpoint says that training had no picture of TinyWorld."""
    own, preset = model.info.get("data"), model.info.get("preset")
    if "peer" in model.info and not own:
        raise UserError(
            f"the checkpoint has weights of {model.info['peer']}, but the tasks are about pictures of TinyWorld: "
            "training with --from and --mix below 1 learns them"
        )
    if own and own["mix"] == 1 and not own.get("start"):
        raise UserError(
            f"the checkpoint was trained on {own['path']} alone, but the tasks are about pictures of TinyWorld: its "
            "scores on held-out records are in metrics.json of its run; training with --mix below 1 learns both"
        )
    if preset in PRESETS and PRESETS[preset].handwriting:
        raise UserError(
            f"the checkpoint of preset {preset!r} was trained on handwriting, but the tasks are about pictures of "
            "TinyWorld: use evaluate --task omniglot --runs ZIP"
        )


def chosen_tasks(only: list | None, names: Iterable) -> list:
    """The tasks in `only`, in the order of `names`; all if `only` is empty. `UserError` for an unknown task."""
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"unknown task {unknown[0]!r}: choose from {', '.join(names)}")
    return [name for name in names if not only or name in only]


def format_report(report: dict) -> str:
    """The report as a table for people."""
    heading = _("task                       score   95% interval      n")
    heading, width = _fitting(heading, report["tasks"])
    lines = [heading] if report["tasks"] else []
    for name, row in report["tasks"].items():
        low, high = row["ci95"]
        lines.append(f"{name:{width}s} {row['score']:.3f}   {low:.3f} to {high:.3f}  {row['n']:4d}")
        lines += [f"  {run:24s} {score:.3f}" for run, score in row.get("runs", {}).items()]
    if p := report.get("text_perplexity"):
        both = _(f"{p['language_model']:.3f} by the language model, {p['flamingo']:.3f} by Flamingo")
        lines.append(_(f"perplexity of text alone: {both}"))
    if emoji := report.get("emoji"):
        lines += _emoji_lines(emoji)
    if own := report.get("own"):
        right, wrong = own["perplexity"], own["perplexity_exchanged"]
        known = _(f"{right:.2f}; with another record's picture {wrong:.2f}" if right else "unknown, there are too few")
        lines.append(_(f"perplexity of {own['n']} held-out records: {known}"))
        lines += _own_lines(own)
    return "\n".join(lines)


def _fitting(heading, names):
    """(the heading with a first column as wide as the longest name, the width of the column)."""
    width = max(NAME, *map(len, names), 0)
    return heading.replace("  ", " " * (width - NAME + 2), 1), width


def _emoji_lines(emoji):
    """The scores on emoji, each beside what the model has to beat."""
    heading = _("emoji                      score   95% interval      n   six prompts   class means   raw pixels")
    heading, width = _fitting(heading, emoji)
    yield heading
    for name, row in emoji.items():
        low, high = row["ci95"]
        more = [f"{row[key]:.3f}" if key in row else "" for key in ("ensemble", "class_means", "neighbours")]
        beside = "   ".join(f"{value:11s}" for value in more).rstrip()
        yield f"{name:{width}s} {row['score']:.3f}   {low:.3f} to {high:.3f}  {row['n']:4d}   {beside}"


def _own_lines(own):
    """The scores on the user's own data, each beside what the model has to beat."""
    if own.get("left_out"):
        yield _(f"{own['left_out']} questions are left out: training shows their pictures")
    if not own.get("scores"):
        yield _("no other scores: the data have too few held-out records of one picture and a text")
        return
    heading = _("held-out records           score   95% interval      n    another's picture   nearest by raw pixels")
    heading, width = _fitting(heading, own["scores"])
    yield heading
    for name, row in own["scores"].items():
        low, high = row["ci95"]
        more = f"{row['another']:.3f}               {row['neighbours']:.3f}"
        yield f"{name:{width}s} {row['score']:.3f}   {low:.3f} to {high:.3f}  {row['n']:4d}    {more}"


def run_task(model: TrainedFlamingo, name: str, rng: np.random.Generator, n: int) -> dict:
    """One task by name -> {"metric", "score", "ci95", "n"}."""
    pool, queries = TASKS[name](rng, n, side=model.config.vision.side)
    answers = answer_all(model, queries, MediaFeatures(model.frozen, pool, model.config))
    hits: Array = np.array([a == q.answer for a, q in zip(answers, queries, strict=True)])
    if name == "image_swap":  # both pictures of a question
        hits = hits.reshape(-1, 2).all(axis=1)
    return _exact_match(hits)


def _exact_match(hits):
    """0/1 scores -> {"metric", "score", "ci95", "n"}."""
    score, ci95 = interval(hits)
    return {"metric": "exact match", "score": score, "ci95": ci95, "n": len(hits)}


def answer_all(model: TrainedFlamingo, queries: list[Query], features: MediaFeatures) -> list[str]:
    """Generated answers to queries, BATCH side by side."""
    return [a for i in range(0, len(queries), BATCH) for a in answer(model, queries[i : i + BATCH], features)]


def answer(model: TrainedFlamingo, queries: list[Query], features: MediaFeatures) -> list[str]:
    """Generated answers to a batch of queries that have equally many turns."""
    prompts = [list(q.prompt) for q in queries]
    texts = decode_batch(model, prompts, features)
    for turn in range(len(queries[0].turns)):
        prompts = [[*p, t, q.turns[turn]] for p, t, q in zip(prompts, texts, queries, strict=True)]
        texts = decode_batch(model, prompts, features)
    return texts


def decode_batch(model: TrainedFlamingo, prompts: Iterable, features: MediaFeatures) -> list[str]:
    """Greedy continuations of prompts over a pool's media."""
    batch = make_batch([encode_document(p, model.tokenizer, complete=False) for p in prompts], left=True)
    visual = model.parts.resample(model.params, features.of(batch.media), model.config)
    tokens, _ = generate(model, batch, visual, ANSWER_TOKENS)
    return [model.tokenizer.decode(t).strip() for t in tokens]


def zero_shot_classification(model: TrainedFlamingo, rng: np.random.Generator, n: int) -> dict:
    """Stage one: the name of a single thing, by the most similar of the captions of all 96 things."""
    names = [say.thing_phrase(s, c) + "." for s in NAMED for c in COLOUR_NAMES]
    scenes = [sample_single(rng, KNOWN) for _ in range(n)]
    pixels = np.stack([draw_scene(rng, scene, model.config.vision.side) for scene in scenes])
    towers = {"vision": model.frozen["vision"], **model.frozen["contrastive"]}
    captions = embed_captions(towers, *pad_captions([model.tokenizer.encode(x) for x in names]), model.config)
    batches = [pixels[i : i + 64] for i in range(0, n, 64)]
    pictures = np.concatenate([embed_pictures(towers, batch, model.config, model.parts.encode) for batch in batches])
    guesses = checked(pictures @ captions.T).argmax(axis=1)
    return _exact_match(np.array([names[g] == say.caption(s) for g, s in zip(guesses, scenes, strict=True)]))


def text_perplexity(model: TrainedFlamingo, rng: np.random.Generator, n: int = 128, T: int = 96) -> dict:
    """How far stage three changes the perplexity of text without images: {"language_model", "flamingo"}.

    With no image before a token the cross-attention adds nothing, but the gated feed-forward adds its output.
    """
    batch = make_batch([cut(encode_document(text_document(rng), model.tokenizer), T) for _ in range(n)])
    real = batch.weights[:, 1:] * (batch.tokens[:, 1:] != model.tokenizer.eoc)
    visual = np.zeros((1, model.config.resampler.latents, model.config.resampler.output_width), np.float32)
    V = model.config.language.vocab_size
    tokens = np.minimum(batch.tokens, V - 1)
    phi = model.parts.visible(batch)[:, :-1]

    def perplexity(params):
        logits = flamingo(params, model.frozen, tokens[:, :-1], phi, visual, model.config, parts=model.parts)[..., :V]
        return float(checked(np.exp(np.sum(token_losses(logits, tokens[:, 1:]) * shares_of(real)))))

    # without gated blocks Flamingo is the language model, whatever its family
    return {"language_model": perplexity({"eoc": model.params["eoc"]}), "flamingo": perplexity(model.params)}
