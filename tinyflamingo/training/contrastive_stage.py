"""Stage one: pictures and captions, contrastively (chapter §2; paper appendix B.1.3).

Batches are made of families: four pictures that differ in one property (a colour, a place, the
direction of a relation, a number), so that to tell a family apart the encoder has to see
everything a caption can say. Afterwards the encoder is frozen and the text tower thrown away.

Not here: the loss and both towers (`model/contrastive.py`).
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.glyphs import DIGITS
from tinyflamingo.data.tinyworld.scenes import (
    KNOWN,
    POSITIONS,
    RELATIONS,
    SIZES,
    WILD_THINGS,
    WRITTEN,
    Scene,
    draw_scene,
    pick,
    sample_count,
    sample_digit,
    sample_pair,
    sample_single,
    sample_sum,
    sample_uncoloured,
    sample_wild,
)
from tinyflamingo.model.contrastive import contrastive_loss, embed_captions, embed_pictures, init_contrastive
from tinyflamingo.model.tokenizer import PAD
from tinyflamingo.ops.tree import half_precision, view_tree
from tinyflamingo.training.optimiser import AdamW, adaptive_clip
from tinyflamingo.training.shards import cut_rows, joined_gradient
from tinyflamingo.variants.registry import init_part, parts_of

FAMILY = 4
STANDARDISE_PICTURES = 1024  # pictures from which the features' mean and scale are taken


# Kinds of families and their shares. In "things" only the thing changes, in "single" also size or place.
FAMILIES = {
    "single": 0.23, "things": 0.09, "pair": 0.29, "count": 0.14, "uncoloured": 0.11, "wild": 0.06, "digit": 0.03,
    "sum": 0.05,
}  # fmt: skip
FIRST = {
    "single": sample_single, "things": sample_single, "pair": sample_pair, "count": sample_count, "wild": sample_wild,
    "digit": sample_digit, "sum": sample_sum,
}  # fmt: skip


def sample_family(rng):
    """Four scenes of one kind; each of the last three changes one property of the first."""
    kind = list(FAMILIES)[int(rng.choice(len(FAMILIES), p=list(FAMILIES.values())))]
    if kind == "uncoloured":
        return [sample_uncoloured(rng) for _ in range(FAMILY)]
    first = FIRST[kind](rng)
    return [first, *(_vary(rng, first, kind) for _ in range(FAMILY - 1))]


def _vary(rng, scene: Scene, kind):
    """A fresh scene that shares all but one property with `scene`."""
    mine = scene.things[0]
    if kind == "sum":
        return _vary_sum(rng, scene)
    known = {"wild": WILD_THINGS, "digit": WRITTEN}.get(kind, KNOWN)
    same, other = (mine.kind,), (_other_thing(rng, *mine.kind, known),)
    if kind in ("wild", "digit"):
        return FIRST[kind](rng, other)
    if kind == "pair":
        return _vary_pair(rng, scene, other[0])
    if kind == "count":
        return sample_count(rng, other, len(scene.things)) if rng.random() < 0.4 else sample_count(rng, same)
    change = rng.integers(3 if kind == "single" else 1)
    if change == 0:
        return sample_single(rng, other, mine.size, mine.position)
    if change == 1:
        return sample_single(rng, same, pick(rng, tuple(SIZES)), mine.position)
    return sample_single(rng, same, mine.size, pick(rng, tuple(POSITIONS)))


def _vary_pair(rng, scene, other):
    """A pair with another relation, with its things exchanged, or with one of them replaced."""
    kinds = [scene.things[0].kind, scene.things[1].kind]
    relation = scene.relation
    change = rng.integers(4)
    if change == 0:
        relation = pick(rng, tuple(RELATIONS))
    elif change == 1:
        kinds.reverse()
    elif change == 2:
        kinds[0] = other
    else:
        kinds[1] = _other_thing(rng, *kinds[1])
    return sample_pair(rng, kinds=kinds, relation=relation)


def _vary_sum(rng, scene):
    """One of the two digits is another, or they change places; the colour stays."""
    pair = [DIGITS.index(thing.shape) for thing in scene.things]
    change = int(rng.integers(3))
    if change < 2:
        pair[change] = int(rng.integers(10))
    else:
        pair.reverse()
    return sample_sum(rng, (tuple(pair),), scene.things[0].colour)


def _other_thing(rng, shape, colour, known=KNOWN):
    """A known thing with either the same shape or the same colour."""
    same_shape = rng.random() < 0.5
    options = [t for t in known if t != (shape, colour) and (t[0] == shape if same_shape else t[1] == colour)]
    return pick(rng, options)


def describe(rng, scene):
    """The caption that stands beside a picture: with size and place for most of the single things."""
    return say.details(scene) if scene.kind == "single" and rng.random() < 0.6 else say.caption(scene)


class ContrastiveStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "contrastive"

    def __init__(self, preset, rng, tokenizer, frozen):
        self.config, self.recipe = preset.config, preset.contrastive
        self.steps = self.recipe.steps
        self.collect(rng, tokenizer)
        self.encode = parts_of(self.config).encode
        params = init_contrastive(rng, self.config, init_part(rng, self.config.vision))
        self.optimiser = AdamW(params, self.recipe.optimiser)

    def collect(self, rng, tokenizer):
        """The data, once: families of pictures and of their captions."""
        families = [sample_family(rng) for _ in range(self.recipe.families)]
        self.captions = [[tokenizer.encode(describe(rng, s)) for s in family] for family in families]
        side = self.config.vision.side
        self.pictures = np.stack([[draw_scene(rng, s, side) for s in family] for family in families])

    def prepare(self, rng):
        """Nothing to prepare."""

    def gradient(self, rng, step):
        """Gradient vector and what to log, for one batch."""
        loss, gradient = self.loss_and_gradient(*self.batch(rng))
        self.clip(gradient)
        return gradient, {"loss": loss, "scale": float(np.exp(self.optimiser.params["log_scale"]))}

    def clip(self, gradient):
        """Adaptive clipping of the encoder's part of a gradient vector, in place."""
        if self.recipe.optimiser.agc:
            tree = view_tree(gradient, self.optimiser.params)
            adaptive_clip(tree["vision"], self.optimiser.params["vision"], self.recipe.optimiser.agc)

    def batch(self, rng):
        """Whole families, no two alike: pixels (B, Y, X, 3) and captions, B lists of ids."""
        chosen = rng.choice(len(self.captions), size=self.recipe.batch // FAMILY, replace=False)
        pictures = self.pictures[chosen].reshape(-1, *self.pictures.shape[2:])
        return pictures, [c for f in chosen for c in self.captions[f]]

    def loss_and_gradient(self, pictures, captions):
        """The loss and its gradient vector. Both towers work on shards; the loss needs all rows."""
        tokens, mask = pad_captions(captions)
        ids = np.unique([" ".join(map(str, c)) for c in captions], return_inverse=True)[1]

        def embed(params, shard):
            pixels, words, real = shard
            seen = embed_pictures(params, pixels, self.config, self.encode)
            return anp.concatenate([seen, embed_captions(params, words, real, self.config)], axis=1)

        def loss_of(head, both):
            return contrastive_loss(*anp.split(both, 2, axis=1), head["log_scale"], ids)

        params = self.optimiser.params
        head = {"log_scale": params["log_scale"]}
        return joined_gradient(embed, loss_of, params, head, cut_rows(pictures, tokens, mask))

    def sample(self):
        """Pictures (n, Y, X, 3) of all kinds, about STANDARDISE_PICTURES of them."""
        sample = self.pictures[:: max(1, len(self.pictures) * FAMILY // STANDARDISE_PICTURES)]
        return sample.reshape(-1, *sample.shape[2:])

    def result(self):
        """What later stages keep, frozen: the encoder and the constants that standardise its features.

        The towers' projections come too, for zero-shot classification; Flamingo does not use them.
        """
        params = self.optimiser.params
        constants = standardiser(params["vision"], self.sample(), self.config)
        towers = {"contrastive": {k: v for k, v in params.items() if k != "vision"}}
        return half_precision({"vision": params["vision"], **constants, **towers})


def standardiser(vision, pictures, config):
    """The mean and one over the spread of each channel of an encoder's features, on pictures, uint8 (n, Y, X, 3)."""
    encode = parts_of(config).encode
    found = [encode(vision, pictures[i : i + 64], config.vision)[0] for i in range(0, len(pictures), 64)]
    features = np.concatenate(found).reshape(-1, config.vision.width)
    return {"feature_mean": features.mean(axis=0), "feature_scale": 1 / (features.std(axis=0) + np.float32(1e-3))}


def pad_captions(captions):
    """Lists of ids -> tokens (B, T) padded on the right, and mask (B, T), True on real tokens."""
    T = max(len(c) for c in captions)
    tokens = np.full((len(captions), T), PAD)
    for row, ids in zip(tokens, captions, strict=True):
        row[: len(ids)] = ids
    return tokens, np.arange(T) < np.array([len(c) for c in captions])[:, None]
