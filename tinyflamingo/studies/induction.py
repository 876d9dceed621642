"""How a plain Chinchilla block learns binding: repeats first, then labels (chapter §4).

Two language models are trained, one with the random repeats of the curriculum and one without. During training each has
two tests: predict the second half of a row of random tokens that repeats, and predict the last label of a few-shot
episode in words. At the end the prefix matching of every head is measured (Olsson et al. 2022): its attention to the
token after the previous occurrence of the current token. An induction head has a high value.

Not here: the curriculum (`LanguageRecipe.phases`) and its documents (`data/tinyworld/text.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.text import episode, random_repeat
from tinyflamingo.evaluation.metrics import checked
from tinyflamingo.model.config import LanguageConfig
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.language_model import decoder_block, embed_tokens, language_model, projected_distances
from tinyflamingo.model.tokenizer import BOS, PAD, Tokenizer
from tinyflamingo.ops.team import one_team
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.studies.growing_report import growing, save_report
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.stage import step_rng

EVERY = 25  # steps between two measurements
ROWS, HALF = 48, 24  # random rows, and the length of their repeated half
EPISODES = 120


def induction(
    tokenizer: Tokenizer,
    path: Path,
    preset: Preset,
    seed: int = 0,
    steps: int | None = None,
    every: int = EVERY,
    say: Callable = print,
) -> dict:
    """Train both models; `path` holds the report after each.

    steps: of each training, by default the preset's. Returns {"format", "settings", "curves": {name: {"steps",
    "repeat", "few_shot", "heads"}}}; heads: (layers, heads) at the end.
    """
    steps = steps or preset.language.steps
    settings = {"preset": preset.name, "seed": seed, "steps": steps, "every": every}
    with growing(path, "induction", settings, curves={}) as report:
        for name, variant in (("with repeats", preset), ("without repeats", without_repeats(preset))):
            if name not in report["curves"]:
                report["curves"][name] = follow(
                    variant, tokenizer, seed, steps, every, lambda line, n=name: say(f"{n}, {line}")
                )
                save_report(path, report)
    return report


def without_repeats(preset: Preset) -> Preset:
    """The same curriculum with ordinary documents instead of repeats."""
    phases = tuple((until, 0.0, *others) for until, _, *others in preset.language.phases)
    return dataclasses.replace(preset, language=dataclasses.replace(preset.language, phases=phases))


def follow(preset: Preset, tokenizer: Tokenizer, seed: int, steps: int, every: int, say: Callable) -> dict:
    """Train one language model; measure it every `every` steps and at the end."""
    stage = LanguageStage(preset, step_rng(seed, 1, -1), tokenizer, {})
    rows, episodes = random_rows(stage), word_episodes(tokenizer)
    curve: dict = {"steps": [], "repeat": [], "few_shot": []}

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


def random_rows(stage: LanguageStage) -> Array:
    """(ROWS, 1 + 2 HALF): `<BOS>` and HALF random tokens twice, from the validation split."""
    rng = split_rng("validation", 1)
    return np.array([[BOS, *random_repeat(rng, stage.pieces, 2 * HALF, stage.tokenizer)] for _ in range(ROWS)])


def word_episodes(tokenizer: Tokenizer) -> tuple[Array, Array]:
    """Episodes in words, padded on the right: tokens (EPISODES, T), and a mask (bool) of the last label's tokens."""
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


def repeat_score(params: Params, rows: Array, config: LanguageConfig) -> float:
    """Fraction of correct predictions in the second halves, without the first token of each."""
    predicted = checked(language_model(params, rows[:, :-1], config)).argmax(axis=2)
    return float(np.mean((predicted == rows[:, 1:])[:, HALF + 1 :]))


def few_shot_score(params: Params, episodes: tuple[Array, Array], config: LanguageConfig) -> float:
    """Fraction of episodes in which every token of the last label is predicted correctly."""
    tokens, asked = episodes
    predicted = checked(language_model(params, tokens[:, :-1], config)).argmax(axis=2)
    return float(np.mean(((predicted == tokens[:, 1:]) | ~asked[:, 1:]).all(axis=1)))


def prefix_matching(params: Params, rows: Array, config: LanguageConfig) -> Array:
    """(layers, heads): mean attention, in the second halves, to the token after the first occurrence of a token."""
    h, means = embed_tokens(params["embedding"], rows), []
    visible_from = np.zeros(rows.shape, int)
    places = np.arange(HALF + 1, rows.shape[1])
    for i in range(config.layers):
        block = params[f"block_{i}"]
        weights = attention_weights(block, ops.rms_norm(h, block["attn_gain"]), config)
        means.append(weights[:, :, places, places - HALF + 1].mean(axis=(0, 2)))
        h = decoder_block(block, h, visible_from, config)
    return np.array(means)


def attention_weights(params: Params, x: Array, config: LanguageConfig) -> Array:
    """The weights of `self_attention`: (B, H, T, T), rows sum to 1. x (B, T, D), normalised."""
    B, T, _ = x.shape
    heads = (config.heads, config.key_size)
    q, k = (ops.linear(x, params[name]).reshape(B, T, *heads) for name in ("w_q", "w_k"))
    r = projected_distances(params, T, config)
    content = np.einsum("bihk,bjhk->bhij", q + params["u"], k)
    by_distance = np.einsum("bihk,nhk->bhin", q + params["v"], r)
    distance = np.arange(T)[:, None] - np.arange(T)
    scores = content + np.take_along_axis(by_distance, np.maximum(distance, 0)[None, None], axis=3)
    scores = np.where(distance >= 0, scores * config.key_size**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    return weights / weights.sum(axis=3, keepdims=True)
