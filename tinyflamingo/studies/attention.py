"""Attention maps of the tokens of an answer on the pictures of a few prompts (chapter §3 and §4).

A token attends to the latents of its picture (last gated block); the latents attend to the grid of features (last layer
of the resampler). The product of both, each the mean over heads, is a map of the picture.

Not here: the weights (`attention_maps.py`), the figure (`report_figures.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyflamingo.data.tinyworld.language import ask
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import SIDE, draw_scene, sample_count, sample_pair, sample_single
from tinyflamingo.decoding.complete import complete
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import ResamplerConfig, XattnConfig
from tinyflamingo.model.flamingo import TrainedFlamingo, encode_and_resample, encode_media
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.ops.types import Array
from tinyflamingo.studies.attention_maps import attention_maps, resampler_maps
from tinyflamingo.studies.growing_report import save_report
from tinyflamingo.variants.ablations import PlacedXattnConfig, UngatedXattnConfig

WORDS = 10  # most tokens of an answer
ONE_PICTURE = (XattnConfig, PlacedXattnConfig, UngatedXattnConfig)  # gated blocks whose tokens see one picture


def attention(model: TrainedFlamingo, path: Path, seed: int = 0, say: Callable = print) -> dict:
    """Maps for some prompts, also written to `path`.

    Returns {"format", "settings", "prompts": [{"pictures", "tokens", "sees", "maps"}]}.
    tokens: of the model's answer; sees: the index of the picture that each token sees, from 0; maps: a grid of
    attention weights for each token. Raises `UserError` for a model whose parts have no such maps.
    """
    config = model.config
    if type(config.resampler) is not ResamplerConfig or type(config.xattn) not in ONE_PICTURE:
        raise UserError("attention maps need a Perceiver resampler, and gated blocks whose tokens see one picture")
    answers = [maps(model, prompt) for prompt in prompts(split_rng("validation", seed), config.vision.side)]
    report = {"format": "tinyflamingo-attention/1", "settings": {"seed": seed}, "prompts": answers}
    save_report(path, report)
    for answer in answers:
        say("".join(answer["tokens"]))
    return report


def prompts(rng: np.random.Generator, side: int = SIDE) -> list:
    """A caption of one thing, one of two things, one of several, a question, and a word learned from the prompt."""
    single, other, third = (draw_scene(rng, sample_single(rng), side) for _ in range(3))
    pair, several = draw_scene(rng, sample_pair(rng), side), draw_scene(rng, sample_count(rng), side)
    asked = [[single, "Output:"], [pair, "Output:"], [several, "Output:"], [other, ask("position")]]
    return [*asked, [single, "lofa.", third, "dimu.", single]]


def maps(model: TrainedFlamingo, prompt: list) -> dict:
    """The model's own answer to a prompt, with the map of each of its tokens."""
    media = [item for item in prompt if isinstance(item, np.ndarray)]
    answer = complete(model, prompt, WORDS)["text"]
    before = len(encode_document(prompt, model.tokenizer, complete=False).tokens)
    batch = make_batch([encode_document([*prompt, answer], model.tokenizer, complete=False)])
    visual = encode_and_resample(model, media)
    weights = attention_maps(
        model.params, model.frozen, batch.tokens, batch.phi, visual, model.config, parts=model.parts
    )[-1][0].mean(axis=1)  # (T, M, R)
    grids = np.stack([latents_to_grid(model, picture) for picture in media])  # (M, R, S)
    side = int(grids.shape[2] ** 0.5)
    at = range(before - 1, batch.tokens.shape[1] - 1)  # the position that predicts each token of the answer
    return {
        "pictures": [picture.tolist() for picture in media],
        "tokens": [model.tokenizer.piece(int(batch.tokens[0, t + 1])) for t in at],
        "sees": [int(batch.phi[0, t]) - 1 for t in at],
        "maps": [np.einsum("mr,mrs->s", weights[t], grids).reshape(side, side).tolist() for t in at],
    }


def latents_to_grid(model: TrainedFlamingo, picture: Array) -> Array:
    """Attention (R, S) of the latents of a picture to its features: last layer, mean over heads.

    The attention to latents is left out, so rows sum to less than 1.
    """
    features = encode_media(model.frozen, picture[None, None], model.config, model.parts)
    weights = resampler_maps(model.params["resampler"], features, model.config.resampler)[-1][0]
    return weights.mean(axis=0)[:, : features.shape[2]]
