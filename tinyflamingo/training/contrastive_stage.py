"""Stage one: contrastive training on pictures and captions (chapter §2; paper appendix B.1.3).

A batch consists of families: a picture, and three in which one property is drawn again (a colour, a place, the
direction of a relation, a number). To match them with their captions, the encoder has to see every
property that a caption can name. After the stage, the encoder is frozen.

Not here: the loss and both towers (`model/contrastive.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cache, partial

import autograd.numpy as anp
import numpy as np

from tinyflamingo.data.tinyworld.language import caption, details
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
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.contrastive import (
    MAX_LOGIT_SCALE,
    contrastive_loss,
    embed_captions,
    embed_pictures,
    init_contrastive,
)
from tinyflamingo.model.tokenizer import PAD, Tokenizer
from tinyflamingo.ops.tree import half_precision, view_tree
from tinyflamingo.ops.types import Params
from tinyflamingo.training.muon import Muon
from tinyflamingo.training.optimiser import AdamW, adaptive_clip
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.shards import Drawings, cut_rows, joined_gradient, own_rows
from tinyflamingo.variants.registry import init_part, parts_of

FAMILY = 4  # pictures in a family
STANDARDISE_PICTURES = 1024  # pictures that give the mean and the scale of the features

# Kinds of families and their shares. In "things" only the thing changes; in "single" the size or the place may change.
FAMILY_KINDS = {
    "single": 0.23, "things": 0.09, "pair": 0.29, "count": 0.14, "uncoloured": 0.11, "wild": 0.06, "digit": 0.03,
    "sum": 0.05,
}  # fmt: skip
SAMPLERS: dict[str, Callable[..., Scene]] = {
    "single": sample_single, "things": sample_single, "pair": sample_pair, "count": sample_count, "wild": sample_wild,
    "digit": sample_digit, "sum": sample_sum,
}  # fmt: skip


def sample_family(rng: np.random.Generator) -> list[Scene]:
    """Four scenes of one kind: a scene and three variants of it, or four uncoloured scenes."""
    kind = list(FAMILY_KINDS)[int(rng.choice(len(FAMILY_KINDS), p=list(FAMILY_KINDS.values())))]
    if kind == "uncoloured":
        return [sample_uncoloured(rng) for _ in range(FAMILY)]
    first = SAMPLERS[kind](rng)
    return [first, *(_vary(rng, first, kind) for _ in range(FAMILY - 1))]


def _vary(rng, scene: Scene, kind):
    """The scene with one property drawn again; it may come out the same."""
    thing = scene.things[0]
    if kind == "sum":
        return _vary_sum(rng, scene)
    known = {"wild": WILD_THINGS, "digit": WRITTEN}.get(kind, KNOWN)
    same, other = (thing.kind,), (_other_thing(rng, thing.kind, known),)
    if kind in ("wild", "digit"):
        return SAMPLERS[kind](rng, other)
    if kind == "pair":
        return _vary_pair(rng, scene, other[0])
    if kind == "count":
        return sample_count(rng, other, len(scene.things)) if rng.random() < 0.4 else sample_count(rng, same)
    change = rng.integers(3 if kind == "single" else 1)
    if change == 0:
        return sample_single(rng, other, thing.size, thing.position)
    if change == 1:
        return sample_single(rng, same, pick(rng, tuple(SIZES)), thing.position)
    return sample_single(rng, same, thing.size, pick(rng, tuple(POSITIONS)))


def _vary_pair(rng, scene, other):
    """A pair with another relation, with its two things exchanged, or with another first or second thing."""
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
        kinds[1] = _other_thing(rng, kinds[1])
    return sample_pair(rng, kinds=kinds, relation=relation)


def _vary_sum(rng, scene):
    """A sum in the same colour, with another first or second digit, or with the two digits exchanged."""
    pair = list(scene.digits)
    change = int(rng.integers(3))
    if change < 2:
        pair[change] = int(rng.integers(10))
    else:
        pair.reverse()
    return sample_sum(rng, (tuple(pair),), scene.things[0].colour)


def _other_thing(rng, kind, known=KNOWN):
    """Another thing (shape, colour): it has the same shape or the same colour."""
    return pick(rng, _alike(kind, 0 if rng.random() < 0.5 else 1, known))


@cache
def _alike(kind, same, known):
    """All other things that are equal in one of the two: 0, the shape, or 1, the colour."""
    return [other for other in known if other != kind and other[same] == kind[same]]


def describe(rng: np.random.Generator, scene: Scene) -> str:
    """The caption of a picture. For most pictures of one thing, it gives size and place too."""
    return details(scene) if scene.kind == "single" and rng.random() < 0.6 else caption(scene)


class ContrastiveStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "contrastive"

    def __init__(self, preset: Preset, rng: np.random.Generator, tokenizer: Tokenizer, frozen: Params) -> None:
        self.config, self.recipe = preset.config, preset.contrastive
        self.steps = self.recipe.steps
        self.collect(rng, tokenizer)
        self.encode = parts_of(self.config).encode
        self.optimiser: AdamW = Muon(self.initial(rng), self.recipe.optimiser)

    def initial(self, rng: np.random.Generator) -> Params:
        """The parameters at the start: fresh ones."""
        return init_contrastive(rng, self.config, init_part(rng, self.config.vision))

    def collect(self, rng: np.random.Generator, tokenizer: Tokenizer) -> None:
        """Sample the data of the whole stage: families of scenes, and their captions as ids."""
        families = [sample_family(rng) for _ in range(self.recipe.families)]
        self.captions = [[tokenizer.encode(describe(rng, s)) for s in family] for family in families]
        scenes = [scene for family in families for scene in family]
        self.pictures = Drawings(rng, partial(draw_scene, side=self.config.vision.side), scenes)

    def prepare(self, rng: np.random.Generator) -> None:
        """Nothing to prepare."""

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """The gradient vector of one batch, and the numbers for the log."""
        log_scale = self.optimiser.params["log_scale"]
        np.minimum(log_scale, np.float32(np.log(MAX_LOGIT_SCALE)), out=log_scale)  # as in CLIP: above it no gradient
        loss, gradient = self.loss_and_gradient(*self.batch(rng))
        self.clip(gradient)
        return gradient, {"loss": loss, "scale": float(np.exp(self.optimiser.params["log_scale"]))}

    def clip(self, gradient: np.ndarray) -> None:
        """Adaptive clipping of the encoder's part of a gradient vector, in place."""
        if self.recipe.optimiser.agc:
            tree = view_tree(gradient, self.optimiser.params)
            adaptive_clip(tree["vision"], self.optimiser.params["vision"], self.recipe.optimiser.agc)

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, list[list[int]]]:
        """Different families, each complete: pixels (B, Y, X, 3) and captions, B lists of ids."""
        chosen = rng.choice(len(self.captions), size=self.recipe.batch // FAMILY, replace=False)
        return self.of_families(chosen), [c for f in chosen for c in self.captions[f]]

    def of_families(self, families: np.ndarray) -> np.ndarray:
        """The pictures (4 n, Y, X, 3) of n families, by their numbers."""
        return self.pictures.take(np.add.outer(families * FAMILY, np.arange(FAMILY)).ravel())

    def loss_and_gradient(self, pictures: np.ndarray, captions: list[list[int]]) -> tuple[float, np.ndarray]:
        """The loss and its gradient vector. Both towers work on shards; the loss needs all rows."""
        tokens, mask = pad_captions(captions)
        ids = np.stack([equal_ids(map(tuple, captions)), equal_ids(picture.tobytes() for picture in pictures)])

        def embed(params, shard):
            pixels, tokens, mask = shard
            picture_vectors = embed_pictures(params, pixels, self.config, self.encode)
            return anp.concatenate([picture_vectors, embed_captions(params, tokens, mask, self.config)], axis=1)

        def loss_of(head, vectors):
            return contrastive_loss(*anp.split(vectors, 2, axis=1), head["log_scale"], ids)

        params = self.optimiser.params
        head = {"log_scale": params["log_scale"]}
        return joined_gradient(embed, loss_of, params, head, cut_rows(*own_rows(pictures, tokens, mask)))

    def sample(self) -> np.ndarray:
        """About STANDARDISE_PICTURES pictures (n, Y, X, 3) of all kinds."""
        families = len(self.captions)
        return self.of_families(np.arange(0, families, max(1, families * FAMILY // STANDARDISE_PICTURES)))

    def result(self) -> Params:
        """The parts that the later stages keep frozen: the encoder, and the constants that standardise its features.

        The text tower and the projections are kept for zero-shot classification; Flamingo does not use them.
        """
        params = self.optimiser.params
        towers = {"contrastive": {k: v for k, v in params.items() if k != "vision"}}
        return half_precision({"vision": params["vision"], **self.constants(), **towers})

    def constants(self) -> Params:
        """The constants that standardise the features."""
        return standardiser(self.optimiser.params["vision"], self.sample(), self.config)


def standardiser(vision: Params, pictures: np.ndarray, config: FlamingoConfig) -> Params:
    """Mean and inverse standard deviation of each feature channel of an encoder, on pictures, uint8 (n, Y, X, 3)."""
    encode = parts_of(config).encode
    pieces = [encode(vision, pictures[i : i + 64], config.vision)[0] for i in range(0, len(pictures), 64)]
    features = np.concatenate(pieces).reshape(-1, config.vision.width)
    return {"feature_mean": features.mean(axis=0), "feature_scale": 1 / (features.std(axis=0) + np.float32(1e-3))}


def equal_ids(values: Iterable[Hashable]) -> np.ndarray:
    """A number for each value, the same for equal values."""
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def pad_captions(captions: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lists of ids -> tokens (B, T) padded on the right, and mask (B, T), True on real tokens."""
    T = max(len(c) for c in captions)
    tokens = np.full((len(captions), T), PAD)
    for row, ids in zip(tokens, captions, strict=True):
        row[: len(ids)] = ids
    return tokens, np.arange(T) < np.array([len(c) for c in captions])[:, None]
