"""How binding comes about in a plain Chinchilla block: repeats first, then labels (chapter §4).

Two language models are trained alike, with the curriculum's random repeats and without. As they learn,
two things are asked of them: to foretell the second half of a row of random tokens that repeats, and to
give the last label of a few-shot episode in words. At the end every head is looked at: how much
of its attention goes to the token after the last time its own token stood there (prefix matching; Olsson et
al. 2022), which is what an induction head does.

Not here: the curriculum (`LanguageRecipe.phases`) and its documents (`data/tinyworld/text.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.text import episode, random_repeat
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.language_model import decoder_block, embed_tokens, language_model, sinusoids
from tinyflamingo.model.tokenizer import BOS, PAD
from tinyflamingo.ops.team import one_team
from tinyflamingo.studies.growing_report import open_report, save_report
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.stage import step_rng

EVERY = 25  # steps between two looks
ROWS, HALF = 48, 24  # random rows, and the length of what they repeat
EPISODES = 120


def induction(tokenizer, path, preset: Preset, seed=0, steps=None, every=EVERY, say=print) -> dict:
    """Train both models; the report, kept in `path` after each.

    steps: of each, by default the preset's. Returns {"format", "settings", "curves": {name: {"steps",
    "repeat", "few_shot", "heads"}}}; heads: (layers, heads) at the end.
    """
    steps = steps or preset.language.steps
    settings = {"preset": preset.name, "seed": seed, "steps": steps, "every": every}
    report = open_report(path, "induction", settings, curves={})
    for name, variant in (("with repeats", preset), ("without repeats", without_repeats(preset))):
        if name not in report["curves"]:
            report["curves"][name] = follow(
                variant, tokenizer, seed, steps, every, lambda line, n=name: say(f"{n}, {line}")
            )
            save_report(path, report)
    return report


def without_repeats(preset: Preset) -> Preset:
    """The same curriculum, its repeats left out: ordinary documents stand in their place."""
    phases = tuple((until, 0.0, episodes) for until, _, episodes in preset.language.phases)
    return dataclasses.replace(preset, language=dataclasses.replace(preset.language, phases=phases))


def follow(preset, tokenizer, seed, steps, every, say) -> dict:
    """Train one language model and look at it every so many steps, and at the end."""
    stage = LanguageStage(preset, step_rng(seed, 1, -1), tokenizer, {})
    rows, episodes = random_rows(stage), word_episodes(tokenizer)
    curve = {"steps": [], "repeat": [], "few_shot": []}

    def note(step):
        scores = (
            repeat_score(stage.optimiser.params, rows, stage.config),
            few_shot_score(stage.optimiser.params, episodes, stage.config),
        )
        for name, value in zip(curve, (step, *scores), strict=True):
            curve[name].append(value)
        say(f"step {step}: repeats {scores[0]:.3f}, text few-shot {scores[1]:.3f}")

    with one_team():
        for step in range(steps):
            if step % every == 0:
                note(step)
            stage.optimiser.step(stage.gradient(step_rng(seed, 1, step), step)[0], step, steps)
        note(steps)
    return curve | {"heads": prefix_matching(stage.optimiser.params, rows, stage.config).tolist()}


def random_rows(stage):
    """(ROWS, 1 + 2 HALF): `<BOS>` and a random row, twice, of the validation split."""
    rng = split_rng("validation", 1)
    return np.array([[BOS, *random_repeat(rng, stage.pieces, 2 * HALF, stage.tokenizer)] for _ in range(ROWS)])


def word_episodes(tokenizer):
    """Episodes in words, padded on the right: tokens (EPISODES, T), and which are the last label's, bool."""
    rng = split_rng("validation", 2)
    rows, labels = [], []
    for _ in range(EPISODES):
        items = episode(rng)
        rows.append(encode_document(items, tokenizer, complete=False).tokens)
        last = items[-1] if isinstance(items[-1], str) else items[-1].text
        labels.append(len(tokenizer.encode(last)))
    T = max(map(len, rows))
    tokens, asked = np.full((len(rows), T), PAD), np.zeros((len(rows), T), bool)
    for i, (row, n) in enumerate(zip(rows, labels, strict=True)):
        tokens[i, : len(row)] = row
        asked[i, len(row) - n : len(row)] = True
    return tokens, asked


def repeat_score(params, rows, config) -> float:
    """Share of the tokens of the second halves that are the likeliest, but for the first of each."""
    said = language_model(params, rows[:, :-1], config).argmax(axis=2)
    return float(np.mean((said == rows[:, 1:])[:, HALF + 1 :]))


def few_shot_score(params, episodes, config) -> float:
    """Share of episodes of whose last label every token is the likeliest."""
    tokens, asked = episodes
    said = language_model(params, tokens[:, :-1], config).argmax(axis=2)
    return float(np.mean(((said == tokens[:, 1:]) | ~asked[:, 1:]).all(axis=1)))


def prefix_matching(params, rows, config):
    """(layers, heads): mean attention, in the second halves, to the token after the same token's first place."""
    h, found = embed_tokens(params["embedding"], rows), []
    visible_from = np.zeros(rows.shape, int)
    places = np.arange(HALF + 1, rows.shape[1])
    for i in range(config.layers):
        block = params[f"block_{i}"]
        weights = attention_weights(block, ops.rms_norm(h, block["attn_gain"]), config)
        found.append(weights[:, :, places, places - HALF + 1].mean(axis=(0, 2)))
        h = decoder_block(block, h, visible_from, config)
    return np.array(found)


def attention_weights(params, x, config):
    """What `self_attention` gives its values: (B, H, T, T), rows sum to 1. x (B, T, D), normalised."""
    B, T, _ = x.shape
    heads = (config.heads, config.key_size)
    q, k = (ops.linear(x, params[name]).reshape(B, T, *heads) for name in ("w_q", "w_k"))
    r = ops.linear(sinusoids(0, T, config.width, x.dtype), params["w_r"]).reshape(T, *heads)
    content = np.einsum("bihk,bjhk->bhij", q + params["u"], k)
    by_distance = np.einsum("bihk,nhk->bhin", q + params["v"], r)
    distance = np.arange(T)[:, None] - np.arange(T)
    scores = content + np.take_along_axis(by_distance, np.maximum(distance, 0)[None, None], axis=3)
    scores = np.where(distance >= 0, scores * config.key_size**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    return weights / weights.sum(axis=3, keepdims=True)
