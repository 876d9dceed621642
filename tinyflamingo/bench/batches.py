"""The batches of training steps as trees of arrays, in the layout that the twins in PyTorch and in JAX read.

Every function makes a dict of arrays, lists of arrays and parameters; a twin converts it into its own arrays before any
time is measured. Implements no section of the chapter. Not here: the twins (`torch_twins.py`, `jax_twins.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyflamingo.model.language_model import sinusoids
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.model.vision_encoder import normalise_pixels
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.contrastive_stage import pad_captions


def contrastive_batch(pictures: Array, captions: list[list[int]]) -> dict[str, Any]:
    """A batch of stage one: pixels, tokens, mask, and one id for each different caption."""
    tokens, mask = pad_captions(captions)
    ids = np.unique([" ".join(map(str, c)) for c in captions], return_inverse=True)[1]
    return {"pixels": normalise_pixels(pictures), "tokens": tokens, "mask": mask, "caption_ids": ids}


def language_batch(tokens: Array, weights: Array, visible_from: Array, width: int, few: bool) -> dict[str, Any]:
    """Packed rows of stage two. few: the twin leaves out the work for tokens that carry no loss."""
    return _text_batch(tokens, weights / weights[:, 1:].sum(), visible_from, width, few)


def flamingo_batch(shard: Any, weights: Sequence[float], language: Params, width: int, few: bool) -> dict[str, Any]:
    """A shard of stage three. Each row has its own media, and phi counts within the row.

    slots (B, N): the number of each medium of a row; -1 if the row has fewer than N. few: as in `language_batch`.
    """
    batch = shard.batch
    own = [phi[tokens == IMAGE] for phi, tokens in zip(batch.phi, batch.tokens, strict=True)]  # a row's own media
    slots = np.full((len(own), max(1, *map(len, own))), -1)
    phi = np.zeros_like(batch.phi)
    for row, numbers in enumerate(own):
        slots[row, : len(numbers)] = numbers - 1
        phi[row] = np.where(batch.phi[row] > 0, 1 + np.searchsorted(numbers, batch.phi[row]), 0)
    lambdas = np.array([*weights, 0.0], np.float32)[shard.datasets]  # the last one is for padding
    return _text_batch(batch.tokens, shard.shares * lambdas, batch.visible_from, width, few) | {
        "features": shard.features,
        "slots": slots,
        "phi": phi[:, :-1],
        "language": language,
    }


def _text_batch(tokens, shares, visible_from, width, few):
    """Inputs and targets of packed rows; shares: the weight of each token in the loss."""
    shares = shares[:, 1:].astype(np.float32)
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "shares": shares,
        "visible_from": visible_from[:, :-1],
        "distances": far_first(tokens.shape[1] - 1, width),
    }
    return batch | ({"rows": np.flatnonzero(shares)} if few else {})


def far_first(count: int, width: int) -> Array:
    """The sinusoids (count, width) of `count` distances, the largest first."""
    return sinusoids(count, width)[::-1].copy()
