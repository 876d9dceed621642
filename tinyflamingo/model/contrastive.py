"""Contrastive pretraining: pictures and captions meet in one space (chapter §2; paper appendix B.1.3).

A small BERT-like text tower (bidirectional, mean over tokens) and the image encoder (mean over
positions) are each followed by a linear projection and L2 normalisation; a softmax over the batch
in both directions asks every picture for its caption and every caption for its picture. Afterwards
the vision encoder is frozen and the text tower is thrown away.

Not here: the training loop (`training/contrastive_stage.py`).
"""

from __future__ import annotations

import autograd.numpy as np

from tinyflamingo import ops
from tinyflamingo.model.config import FlamingoConfig, TextTowerConfig
from tinyflamingo.model.encoder_block import encoder_block, init_encoder_block
from tinyflamingo.model.vision_encoder import encode_pictures

START_TEMPERATURE = 0.07  # the paper gives none; CLIP's
MAX_LOGIT_SCALE = 100.0  # cap of the inverse temperature, as in CLIP


def text_tower(params, tokens, mask, config: TextTowerConfig):
    """Captions (B, T) with mask (B, T), True on real tokens, to one vector each (B, D).

    Pre-norm bidirectional blocks with learned absolute positions, as in BERT; the mean over the
    real tokens at the end (paper, appendix B.1.3).
    """
    h = ops.embed(params["embedding"], tokens) + params["positions"][: tokens.shape[1]]
    for i in range(config.layers):
        h = encoder_block(params[f"block_{i}"], h, config.heads, mask)
    h = ops.layer_norm(h, params["final_gain"], params["final_bias"])
    share = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.sum(h * share.astype(h.dtype)[:, :, None], axis=1)


def embed_pictures(params, pictures, config: FlamingoConfig, encode=encode_pictures):
    """Pictures, uint8 (B, Y, X, 3), to unit vectors (B, J). encode: the encoder, with its vector for each picture."""
    _, pooled = encode(params["vision"], pictures, config.vision)
    return unit(ops.linear(pooled, params["picture_projection"]))


def embed_captions(params, tokens, mask, config: FlamingoConfig):
    """Captions (B, T) with mask (B, T) to unit vectors (B, J)."""
    return unit(ops.linear(text_tower(params["text"], tokens, mask, config.text_tower), params["text_projection"]))


def unit(x):
    """Rows of length 1 (with a floor that keeps a zero row finite)."""
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + x.dtype.type(1e-12))


def contrastive_loss(pictures, captions, log_scale, caption_ids):
    """Two-way softmax loss (paper, equations 3 and 4): picture-to-text plus text-to-picture.

    pictures, captions (B, J) unit vectors, matching row by row; log_scale: log of the learned
    inverse temperature; caption_ids (B,) equal numbers for equal captions: a duplicate of one's own
    caption is a right answer, so it is taken out of the negatives.
    """
    # exp(min(log_scale, cap)), written so that its gradient stays float32 (that of np.minimum does not)
    scale = np.exp(log_scale - ops.relu(log_scale - log_scale.dtype.type(np.log(MAX_LOGIT_SCALE))))
    duplicate = (caption_ids[:, None] == caption_ids[None, :]) & ~np.eye(len(caption_ids), dtype=bool)
    logits = ops.linear(pictures, captions.T) * scale + np.where(duplicate, -1e9, 0.0).astype(pictures.dtype)
    targets = np.arange(len(caption_ids))
    losses = ops.cross_entropy(logits, targets) + ops.cross_entropy(logits.T, targets)
    return np.sum(losses) * logits.dtype.type(1.0 / len(targets))


def init_contrastive(rng, config: FlamingoConfig, vision_params, dtype=np.float32):
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


def init_text_tower(rng, config: TextTowerConfig, dtype=np.float32):
    """Parameters of the text tower; projections back into the stream start smaller, by sqrt(2 layers)."""
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
