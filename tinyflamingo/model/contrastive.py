"""Contrastive pretraining: pictures and captions in one common space (chapter §2; paper appendix B.1.3).

A small BERT-like text tower (bidirectional, mean over tokens) and the vision encoder (mean over positions) are each
followed by a linear projection and L2 normalisation. A softmax over the batch, in both directions, finds the caption
of every picture and the picture of every caption. After this stage the vision encoder is frozen. Flamingo does not
use the text tower; the checkpoint keeps it for zero-shot classification.

Not here: the training loop (`training/contrastive_stage.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.model.encoder_block import encoder_block, init_encoder_block
from tinyflamingo.model.vision_encoder import encode_pictures
from tinyflamingo.ops.types import Array, Params

START_TEMPERATURE = 0.07  # the paper gives none; CLIP's
MAX_LOGIT_SCALE = 100.0  # cap of the inverse temperature, as in CLIP


def text_tower(params: Params, tokens: Array, mask: Array, config: TextTowerConfig) -> Array:
    """Captions (B, T) with mask (B, T), True on real tokens, to one vector for each caption (B, D).

    Pre-norm bidirectional blocks with learned absolute positions, as in BERT; at the end the mean over the real
    tokens (paper, appendix B.1.3).
    """
    h = ops.embed(params["embedding"], tokens) + params["positions"][: tokens.shape[1]]
    for i in range(config.layers):
        h = encoder_block(params[f"block_{i}"], h, config.heads, mask)
    h = ops.layer_norm(h, params["final_gain"], params["final_bias"])
    share = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.sum(h * share.astype(h.dtype)[:, :, None], axis=1)


def embed_pictures(
    params: Params, pictures: Array, config: FlamingoConfig, encode: Callable = encode_pictures
) -> Array:
    """Pictures, uint8 (B, Y, X, 3), to unit vectors (B, J) of width J = `joint_width`. encode: as `encode_pictures`."""
    _, pooled = encode(params["vision"], pictures, config.vision)
    return unit(ops.linear(pooled, params["picture_projection"]))


def embed_captions(params: Params, tokens: Array, mask: Array, config: FlamingoConfig) -> Array:
    """Captions (B, T) with mask (B, T) to unit vectors (B, J)."""
    return unit(ops.linear(text_tower(params["text"], tokens, mask, config.text_tower), params["text_projection"]))


def unit(x: Array) -> Array:
    """Rows scaled to length 1. A small constant keeps a row of zeros finite."""
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + x.dtype.type(1e-12))


def contrastive_loss(pictures: Array, captions: Array, log_scale: Array, ids: Array) -> Array:
    """Two-way softmax loss (paper, equations 3 and 4): picture-to-text plus text-to-picture.

    pictures, captions (B, J): unit vectors; row i of both is a pair. log_scale: log of the learned inverse
    temperature. ids (B,) has equal numbers for equal captions. ids (2, B) also has equal numbers for equal pictures.
    A copy of the right caption is a right answer, and so is another caption of the same picture: neither is a negative.
    """
    # exp(min(log_scale, cap)), written so that its gradient stays float32 (the gradient of np.minimum does not)
    scale = np.exp(log_scale - ops.relu(log_scale - log_scale.dtype.type(np.log(MAX_LOGIT_SCALE))))
    ids = np.atleast_2d(ids)
    duplicate = np.any(ids[:, :, None] == ids[:, None, :], axis=0) & ~np.eye(ids.shape[1], dtype=bool)
    logits = ops.linear(pictures, captions.T) * scale + np.where(duplicate, -1e9, 0.0).astype(pictures.dtype)
    targets = np.arange(ids.shape[1])
    losses = ops.cross_entropy(logits, targets) + ops.cross_entropy(logits.T, targets)
    return np.sum(losses) * logits.dtype.type(1.0 / len(targets))


def init_contrastive(
    rng: np.random.Generator, config: FlamingoConfig, vision_params: Params, dtype: type = np.float32
) -> Params:
    """Both towers, both projections and the log of the inverse temperature."""
    text = config.text_tower
    joint = text.joint_width
    return {
        "vision": vision_params,
        "text": init_text_tower(rng, text, dtype),
        "picture_projection": _matrix(rng, config.vision.width, joint, dtype),
        "text_projection": _matrix(rng, text.width, joint, dtype),
        "log_scale": np.array(-np.log(START_TEMPERATURE), dtype),
    }


def init_text_tower(rng: np.random.Generator, config: TextTowerConfig, dtype: type = np.float32) -> Params:
    """Parameters of the text tower. Projections back into the stream start smaller, by sqrt(2 layers)."""
    D = config.width
    params = {
        "embedding": _matrix(rng, config.vocab_size, D, dtype, scale=0.5),
        "positions": _matrix(rng, config.context, D, dtype, scale=0.2),
        "final_gain": np.ones(D, dtype),
        "final_bias": np.zeros(D, dtype),
    }
    for i in range(config.layers):
        params[f"block_{i}"] = init_encoder_block(rng, D, 4 * D, config.layers, dtype)
    return params


def _matrix(rng, rows, columns, dtype, scale=None):
    return (rng.standard_normal((rows, columns)) * (rows**-0.5 if scale is None else scale)).astype(dtype)
