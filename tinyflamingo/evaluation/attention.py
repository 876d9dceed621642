"""Where the words of an answer look: attention maps on the pictures of a few prompts (chapter §3 and §4).

A word attends to the latents of its picture (the last gated block), and those to the grid of features
(the resampler's last layer). The product of both, mean over heads, is a map of the picture.

Not here: the layers themselves (`model/gated_xattn.py`, `model/perceiver_resampler.py`), and drawing
(`report_figures.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.language import ask
from tinyflamingo.data.tinyworld.pool import split_rng
from tinyflamingo.data.tinyworld.scenes import draw_scene, sample_count, sample_pair, sample_single
from tinyflamingo.errors import UserError
from tinyflamingo.evaluation.resume import save_report
from tinyflamingo.model.flamingo import embed_with_eoc, encode_media
from tinyflamingo.model.gated_xattn import gated_xattn_dense
from tinyflamingo.model.interleave import encode_document, make_batch
from tinyflamingo.model.language_model import decoder_block
from tinyflamingo.model.perceiver_resampler import project_both, resampler_layer, temporal_embedding
from tinyflamingo.model.trained import complete, look

WORDS = 10  # of an answer, at most


def attention(model, path, seed=0, say=print) -> dict:
    """Maps for some prompts: {"format", "prompts": [{"pictures", "tokens", "sees", "maps"}]}, written to `path`.

    tokens: what the model answered, piece by piece; sees: the number of each piece's picture, from 0; maps:
    for each a grid of shares of attention. Raises `UserError` for a model whose parts have no such maps.
    """
    config = model.config
    if (config.resampler.kind, config.xattn.kind, config.xattn.attend) != ("perceiver", "dense", "last"):
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
    pieces = complete(model, prompt, WORDS)["text"]
    before = len(encode_document(prompt, model.tokenizer, complete=False).tokens)
    batch = make_batch([encode_document([*prompt, pieces], model.tokenizer, complete=False)])
    weights = text_to_latents(model, batch, look(model, media))  # (T, R)
    at = np.arange(before - 1, batch.tokens.shape[1] - 1)  # where each piece was foretold
    sees = batch.phi[0, at] - 1
    grids = [latents_to_grid(model, picture) for picture in media]  # (R, S)
    side = int(grids[0].shape[1] ** 0.5)
    drawn = [(weights[t] @ grids[m]).reshape(side, side).tolist() for t, m in zip(at, sees, strict=True)]
    return {
        "pictures": [picture.tolist() for picture in media],
        "tokens": [model.tokenizer.piece(int(batch.tokens[0, t + 1])) for t in at],
        "sees": sees.tolist(),
        "maps": drawn,
    }


def text_to_latents(model, batch, visual):
    """Attention (T, R) of one row's tokens to the latents of their media, in the last gated block, mean over heads."""
    config, language = model.config, model.frozen["language"]
    T = batch.tokens.shape[1]
    h = embed_with_eoc(model.params["eoc"], language["embedding"], batch.tokens)
    for i in range(config.gated_layers[-1] + 1):
        if i in config.gated_layers:
            block, before = model.params[f"xattn_{i}"], h
            h = gated_xattn_dense(block, h, visual, batch.phi, config)
        h = decoder_block(language[f"block_{i}"], h, batch.start, T, config.language)
    q = ops.linear(ops.layer_norm(before, block["query_gain"], block["query_bias"]), block["w_q"])
    k = ops.linear(ops.layer_norm(visual, block["media_gain"], block["media_bias"]), block["w_k"])
    k = k[np.maximum(batch.phi[0] - 1, 0)]  # (T, R, H K): those of each token's own medium
    heads = (config.xattn.heads, config.xattn.key_size)
    scores = np.einsum("thk,trhk->thr", q.reshape(T, *heads), k.reshape(T, -1, *heads))
    return softmax(scores * config.xattn.key_size**-0.5).mean(axis=1)


def latents_to_grid(model, picture):
    """Attention (R, S) of a picture's latents to its features, in the resampler's last layer, mean over heads.

    What a latent gives to latents is left out, so rows sum to less than 1.
    """
    config, params = model.config.resampler, model.params["resampler"]
    features = encode_media(model.frozen, picture[None, None], model.config)
    time, x = temporal_embedding(params["temporal"], 1), params["latents"][None]
    for i in range(config.layers - 1):
        x = resampler_layer(params[f"layer_{i}"], x, features, time, config)
    layer = params[f"layer_{config.layers - 1}"]
    latents = ops.layer_norm(x, layer["attn_gain"], layer["attn_bias"])
    heads = (config.heads, config.key_size)
    q = ops.linear(latents, layer["w_q"]).reshape(-1, *heads)
    k = project_both(features, time, latents, layer["w_k"]).reshape(-1, *heads)
    weights = softmax(np.einsum("rhk,shk->rhs", q, k) * config.key_size**-0.5)
    return weights.mean(axis=1)[:, : features.shape[2]]


def softmax(scores):
    """Shares over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
