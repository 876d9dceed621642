"""Where the words of an answer look: attention maps on the pictures of a few prompts (chapter §3 and §4).

A word attends to the latents of its picture (the last gated block), and those to the grid of features
(the resampler's last layer). The product of both, mean over heads, is a map of the picture.

Not here: the weights (`attention_maps.py`), and drawing (`report_figures.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.data.tinyworld.language import ask
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_count, sample_pair, sample_single
from tinyflamingo.decoding.complete import complete
from tinyflamingo.errors import UserError
from tinyflamingo.model.config import ResamplerConfig, XattnConfig
from tinyflamingo.model.flamingo import encode_and_resample, encode_media
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.studies.attention_maps import attention_maps, resampler_maps
from tinyflamingo.studies.growing_report import save_report
from tinyflamingo.variants.ablations import PlacedXattnConfig, UngatedXattnConfig

WORDS = 10  # of an answer, at most
ONE_PICTURE = (XattnConfig, PlacedXattnConfig, UngatedXattnConfig)  # forms of the blocks that see one picture


def attention(model, path, seed=0, say=print) -> dict:
    """Maps for some prompts: {"format", "prompts": [{"pictures", "tokens", "sees", "maps"}]}, written to `path`.

    tokens: what the model answered, piece by piece; sees: the number of each piece's picture, from 0; maps:
    for each a grid of shares of attention. Raises `UserError` for a model whose parts have no such maps.
    """
    config = model.config
    if type(config.resampler) is not ResamplerConfig or type(config.xattn) not in ONE_PICTURE:
        raise UserError("attention maps are of models with a Perceiver resampler and gated blocks that see one picture")
    report = {"format": "tinyflamingo-attention/1", "settings": {"seed": seed}}
    report["prompts"] = [maps(model, prompt) for prompt in prompts(split_rng("validation", seed))]
    save_report(path, report)
    for prompt in report["prompts"]:
        say("".join(prompt["tokens"]))
    return report


def prompts(rng) -> list:
    """A caption, one of two things, a count, a question, and a word learned from the prompt."""
    single, other, third = (draw_scene(rng, sample_single(rng)) for _ in range(3))
    pair, several = draw_scene(rng, sample_pair(rng)), draw_scene(rng, sample_count(rng))
    asked = [[single, "Output:"], [pair, "Output:"], [several, "Output:"], [other, ask("position")]]
    return [*asked, [single, "lofa.", third, "dimu.", single]]


def maps(model, prompt) -> dict:
    """The model's own answer to a prompt, and where each piece of it looked."""
    media = [item for item in prompt if isinstance(item, np.ndarray)]
    answer = complete(model, prompt, WORDS)["text"]
    before = len(encode_document(prompt, model.tokenizer, complete=False).tokens)
    batch = make_batch([encode_document([*prompt, answer], model.tokenizer, complete=False)])
    visual = encode_and_resample(model, media)
    looks = attention_maps(
        model.params, model.frozen, batch.tokens, batch.phi, visual, model.config, parts=model.parts
    )[-1][0]
    looks = looks.mean(axis=1)  # (T, M, R)
    grids = np.stack([latents_to_grid(model, picture) for picture in media])  # (M, R, S)
    side = int(grids.shape[2] ** 0.5)
    at = range(before - 1, batch.tokens.shape[1] - 1)  # where each piece of the answer was foretold
    return {
        "pictures": [picture.tolist() for picture in media],
        "tokens": [model.tokenizer.piece(int(batch.tokens[0, t + 1])) for t in at],
        "sees": [int(batch.phi[0, t]) - 1 for t in at],
        "maps": [np.einsum("mr,mrs->s", looks[t], grids).reshape(side, side).tolist() for t in at],
    }


def latents_to_grid(model, picture):
    """Attention (R, S) of the latents of a picture to its features: last layer, mean over heads.

    What a latent gives to latents is left out, so rows sum to less than 1.
    """
    features = encode_media(model.frozen, picture[None, None], model.config, model.parts)
    weights = resampler_maps(model.params["resampler"], features, model.config.resampler)[-1][0]
    return weights.mean(axis=0)[:, : features.shape[2]]
