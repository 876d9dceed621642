"""Running tasks: generate to `<EOC>`, compare, and report a score with its interval.

Chapter §5. Not here: what the tasks ask (`evaluation/tasks.py`).
"""

from __future__ import annotations

import time

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.pool import draw_pool, split_rng
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES, KNOWN, NAMED, sample_single
from tinyflamingo.data.tinyworld.text import text_document
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.metrics import interval
from tinyflamingo.evaluation.tasks import TASKS
from tinyflamingo.model.contrastive import embed_captions, embed_pictures
from tinyflamingo.model.flamingo import flamingo
from tinyflamingo.model.generate import generate
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.language_model import language_model
from tinyflamingo.ops.team import keep_memory
from tinyflamingo.training.contrastive_stage import pad_captions
from tinyflamingo.training.flamingo_stage import MediaFeatures, cut
from tinyflamingo.training.losses import shares_of, token_losses

STREAM = 20260101  # test streams are numbered from here; no other code uses the number
BATCH = 50  # prompts decoded side by side
ANSWER_TOKENS = 16  # longest answer


def evaluate(model, n=500, seed=0, only=None):
    """All tasks -> {"tasks": {name: {"metric", "score", "ci95", "n"}}, "text_perplexity", "seconds"}.

    seed: which test stream; only: names of tasks, `UserError` for one that does not exist.
    """
    names = ["zero_shot_classification", *TASKS]
    odd = sorted(set(only or ()) - set(names))
    if odd:
        raise UserError(f"unknown task {odd[0]!r}: choose from {', '.join(names)}")
    keep_memory()
    began, asked = time.perf_counter(), [name for name in names if not only or name in only]

    def run(name):
        rng = split_rng("test", STREAM, seed, names.index(name))
        return zero_shot_classification(model, rng, n) if name not in TASKS else run_task(model, name, rng, n)

    tasks = dict(zip(asked, ops.parallel_map(run, asked), strict=True))
    perplexity = text_perplexity(model, split_rng("test", STREAM, seed, len(names)))
    return {"tasks": tasks, "text_perplexity": perplexity, "seconds": round(time.perf_counter() - began, 1)}


def format_report(report) -> str:
    """The report as people read it."""
    lines = [f"{'task':26s} score   95% interval      n"] if report["tasks"] else []
    for name, row in report["tasks"].items():
        low, high = row["ci95"]
        lines.append(f"{name:26s} {row['score']:.3f}   {low:.3f} to {high:.3f}  {row['n']:4d}")
        lines += [f"  {run:24s} {score:.3f}" for run, score in row.get("runs", {}).items()]
    if p := report.get("text_perplexity"):
        both = f"{p['language_model']:.3f} by the language model, {p['flamingo']:.3f} by Flamingo"
        lines.append(f"perplexity of text alone: {both}")
    if own := report.get("own"):
        right, wrong = own["perplexity"], own["perplexity_exchanged"]
        told = f"{right:.2f}; with another's picture {wrong:.2f}" if right else "too few to say"
        lines.append(f"perplexity of {own['n']} records held out: {told}")
    return "\n".join(lines)


def run_task(model, name, rng, n):
    """One task by name -> {"metric", "score", "ci95", "n"}. model: a `TrainedFlamingo`."""
    pool, queries = TASKS[name](rng, n)
    features = MediaFeatures(model.frozen, pool, model.config)
    answers = [a for i in range(0, len(queries), BATCH) for a in answer(model, queries[i : i + BATCH], features)]
    hits = np.array([a == q.answer for a, q in zip(answers, queries, strict=True)])
    if name == "image_swap":  # both pictures of a question
        hits = hits.reshape(-1, 2).all(axis=1)
    return report(hits)


def report(hits):
    """0/1 scores -> {"metric", "score", "ci95", "n"}."""
    score, ci95 = interval(hits)
    return {"metric": "exact match", "score": score, "ci95": ci95, "n": len(hits)}


def answer(model, queries, features):
    """Generated answers of a batch of queries that all have the same number of turns."""
    prompts = [list(q.prompt) for q in queries]
    for turn in range(len(queries[0].turns) + 1):
        texts = decode_batch(model, prompts, features)
        if turn < len(queries[0].turns):
            prompts = [[*p, t, q.turns[turn]] for p, t, q in zip(prompts, texts, queries, strict=True)]
    return texts


def decode_batch(model, prompts, features):
    """Greedy continuations of prompts over a pool's media."""
    batch = make_batch([encode_document(p, model.tokenizer, complete=False) for p in prompts], left=True)
    visual = model.parts.resample(model.params, features.of(batch.media), model.config)
    tokens, _ = generate(model, batch, visual, ANSWER_TOKENS)
    return [model.tokenizer.decode(t).strip() for t in tokens]


def zero_shot_classification(model, rng, n):
    """Stage one: the name of a single thing, among all 96, by the closest caption."""
    names = [say.thing_phrase(s, c) + "." for s in NAMED for c in COLOUR_NAMES]
    pool = draw_pool(rng, [sample_single(rng, KNOWN) for _ in range(n)])
    towers = {"vision": model.frozen["vision"], **model.frozen["contrastive"]}
    read = embed_captions(towers, *pad_captions([model.tokenizer.encode(x) for x in names]), model.config)
    batches = [pool.pictures[i : min(n, i + 64)] for i in range(0, n, 64)]
    seen = np.concatenate([embed_pictures(towers, batch, model.config, model.parts.encode) for batch in batches])
    guesses = (seen @ read.T).argmax(axis=1)
    return report(np.array([names[g] == say.caption(s) for g, s in zip(guesses, pool.scenes, strict=True)]))


def text_perplexity(model, rng, n=128, T=96):
    """How far stage three moves the text-only perplexity: {"language_model", "flamingo"}.

    With no image before a token the cross-attention adds nothing, but the gated feed-forward acts.
    """
    rows = [cut(encode_document(text_document(rng), model.tokenizer), T) for _ in range(n)]
    batch = make_batch(rows)
    real = batch.weights[:, 1:] * (batch.tokens[:, 1:] != model.tokenizer.eoc)
    visual = np.zeros((1, model.config.resampler.latents, model.config.resampler.output_width), np.float32)
    V = model.config.language.vocab_size
    safe = np.minimum(batch.tokens, V - 1)
    alone = language_model(model.frozen["language"], safe[:, :-1], model.config.language)
    phi = model.parts.visible(batch)[:, :-1]
    whole = flamingo(model.params, model.frozen, safe[:, :-1], phi, visual, model.config, parts=model.parts)[..., :V]
    return {
        name: float(np.exp(np.sum(token_losses(logits, safe[:, 1:]) * shares_of(real))))
        for name, logits in (("language_model", alone), ("flamingo", whole))
    }
