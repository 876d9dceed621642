"""Stage three: resampler, gated blocks and `<EOC>` learn; encoder and language model are frozen.

Chapter §1 and §4; paper section 2.4 and appendix B.1. Every step takes documents of each dataset
(interleaved pages, picture-text pairs, video-text pairs), weighs their mean losses by lambda and
adds up the gradients before one update. Short documents share rows. Training starts from gates of
exactly 0; their first move follows the gradient averaged over some steps (docs/deviations.md).

Not here: the documents (`data/tinyworld/pages.py`) and the model (`model/flamingo.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pages import page, pair, video
from tinyflamingo.data.tinyworld.pool import make_pool
from tinyflamingo.model.flamingo import encode_media, flamingo, gates
from tinyflamingo.model.interleave import Batch, Sequence, encode_document, pack_batch, phi, phi_next
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import half_precision, view_tree
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.optimiser import AdamW
from tinyflamingo.training.ranks import mine
from tinyflamingo.training.shards import shard_count, summed_gradient
from tinyflamingo.variants.registry import init_flamingo, parts_of

PARTS = ("vision", "language")  # frozen, unless the recipe says that they train too


class MediaPixels:
    """Pixels of a pool, one frame for a picture; for an encoder that changes with every step."""

    def __init__(self, pool):
        self.pictures = pool.pictures[:, None] if pool.scenes else None
        self.videos = pool.videos if pool.clips else None

    def of(self, media):
        """Arrays (M, F, ...) of every run of media of one kind, in order."""
        tables = {"picture": self.pictures, "clip": self.videos}
        runs = groupby(media, key=lambda medium: medium.kind)
        return [tables[kind][[medium.index for medium in run]] for kind, run in runs]


class MediaFeatures(MediaPixels):
    """Frozen features (M, F, S, Dv) of a pool, computed once."""

    def __init__(self, frozen, pool, config):
        super().__init__(pool)
        parts = parts_of(config)
        self.pictures, self.videos = (
            None if media is None else encode_media(frozen, media, config, parts)
            for media in (self.pictures, self.videos)
        )


class Document(NamedTuple):
    """A document, the number of its dataset, and how its tokens see: `phi` or `phi_next`."""

    dataset: int
    sequence: Sequence
    phi_of: object


@dataclass
class Shard:
    """Some documents of a step, ready for the model.

    features: of pictures and of videos, or their pixels if the encoder trains; shares (B, T): of each
    token in the mean loss of its dataset; datasets (B, T): number of the dataset, -1 for padding.
    """

    batch: Batch
    features: list
    shares: np.ndarray
    datasets: np.ndarray


def cut(sequence: Sequence, T) -> Sequence:
    """The first T tokens of a document, with the media whose tags are among them."""
    tokens = sequence.tokens[:T]
    return Sequence(tokens, sequence.weights[:T], sequence.media[: tokens.count(IMAGE)])


def shard_loss(params, shard: Shard, frozen, weights, config, parts):
    """A shard's part of the loss: the sum over data sets of lambda (`weights`) times the mean loss.

    Returns (loss, its parts by data set before lambda).
    """
    batch, features = shard.batch, shard.features
    frozen = frozen | {name: params[name] for name in PARTS if name in params}
    if "vision" in params:
        features = [encode_media(frozen, pixels, config, parts) for pixels in features]
    visual = parts.resample(params, features, config)
    tokens, phi, visible_from = (x[:, :-1] for x in (batch.tokens, parts.visible(batch), batch.visible_from))
    logits = flamingo(params, frozen, tokens, phi, visual, config, visible_from, parts=parts)
    losses = token_losses(logits, batch.tokens[:, 1:]) * shard.shares[:, 1:]
    means = [anp.sum(losses * (shard.datasets[:, 1:] == i)) for i in range(len(weights))]
    return sum(mean * np.float32(weight) for mean, weight in zip(means, weights, strict=True)), means


def draw_media(rng, recipe, side):
    """A pool of TinyWorld's pictures and videos, as many of each kind as the recipe says."""
    r = recipe
    return make_pool(rng, r.singles, r.pairs, r.counts, r.clips, r.uncoloured, r.wild, r.digits, r.sums, side=side)


def make_media(pool, recipe, frozen, config):
    """The pool, and the features of its media, or their pixels if the encoder trains."""
    return pool, MediaPixels(pool) if "vision" in recipe.trained else MediaFeatures(frozen, pool, config)


class FlamingoStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "flamingo"

    def __init__(self, preset, rng, tokenizer, frozen, media=None):
        """media: from `make_media`, if several runs share them."""
        self.config, self.recipe, self.tokenizer = preset.config, preset.flamingo, tokenizer
        self.steps, self.frozen, self.parts = self.recipe.steps, frozen, parts_of(self.config)
        self.pool, self.features = media or make_media(self.collect(rng), self.recipe, frozen, self.config)
        params = init_flamingo(rng, self.config) | {name: frozen[name] for name in self.recipe.trained}
        # Weight decay 0 for the resampler, 0.1 for the rest (paper, appendix B.1.2).
        self.optimiser = AdamW(params, self.recipe.optimiser, no_decay=("resampler",))

    def collect(self, rng):
        """The pool of pictures and videos, drawn once."""
        return draw_media(rng, self.recipe, self.config.vision.side)

    def documents(self, rng, datasets=None, longer=1):
        """The documents of one step, of these data sets or of all; longer: how many times as long its pages are."""
        drawn = []
        for dataset in datasets or self.recipe.datasets:
            index = self.recipe.datasets.index(dataset)
            times = longer if dataset.name == "pages" else 1
            for _ in range(max(1, dataset.rows // times) if dataset.rows else 0):
                kind, items = self._draw(rng, dataset.name, times)
                sequence = cut(encode_document(items, self.tokenizer), dataset.length * times)
                ahead = kind == "web_page" and rng.random() < self.recipe.p_next
                drawn.append(Document(index, sequence, phi_next if ahead else phi))
        return drawn

    def _draw(self, rng, name, longer):
        """(kind, items) of one document of a data set."""
        if name == "pages":
            return page(rng, self.pool, length=longer)
        return name, (pair if name == "pairs" else video)(rng, self.pool)

    def shards(self, rng, documents):
        """The documents dealt out to the workers, each with a generator of its own; a rank makes its own shards."""
        totals = np.zeros(len(self.recipe.datasets), np.float32)
        for document in documents:
            totals[document.dataset] += sum(document.sequence.weights)
        n = min(shard_count(), len(documents))
        hands = mine([(documents[i::n], own) for i, own in enumerate(rng.spawn(n))])
        return ops.parallel_map(lambda hand: self._shard(*hand, totals), hands)

    def _shard(self, documents, rng, totals):
        """One worker's documents. Noise on the frozen features keeps the new layers from memorising single pictures."""
        lengths = [dataset.length for dataset in self.recipe.datasets]
        length = max(*lengths, *(len(d.sequence.tokens) for d in documents))
        batch = pack_batch([d.sequence for d in documents], length, [d.phi_of for d in documents])
        features = self.features.of(batch.media)
        for table in features if "vision" not in self.recipe.trained else ():
            table += rng.standard_normal(table.shape, dtype=np.float32) * np.float32(self.recipe.feature_noise)
        datasets = np.array([d.dataset for d in documents] + [-1])[batch.owner]
        totals = np.append(np.maximum(totals, 1), np.float32(1))  # the last one is for padding
        return Shard(batch, features, batch.weights / totals[datasets], datasets)

    def prepare(self, rng):
        """The first move of the gates, from exactly 0.

        At 0 only the gates have a gradient, and the sign of one batch's gradient is noise. So the gradient is
        averaged over some batches, and every gate moves along its sign.
        """
        params = self.optimiser.params
        closed = [name.split("/") for name in gates(params)]
        total = 0.0
        for _ in range(self.recipe.gate_batches if closed else 0):
            total = total + self.losses_and_gradient(self.shards(rng, self.documents(rng)))[1]
        for name, gate in closed:
            slope = view_tree(total, params)[name][gate]
            params[name][gate][...] = -np.sign(slope) * self.recipe.gate_push

    def gradient(self, rng, step):
        """Gradient vector and what to log: all data sets accumulated, or one in turn (round-robin)."""
        datasets = self.recipe.datasets
        if not self.recipe.accumulate:
            datasets = (datasets[step % len(datasets)],)
        longer = self.recipe.longer if step % self.recipe.long_every == self.recipe.long_every - 1 else 1
        losses, gradient = self.losses_and_gradient(self.shards(rng, self.documents(rng, datasets, longer)))
        info = {f"loss_{dataset.name}": losses[dataset.name] for dataset in datasets}
        info["loss"] = sum(info.values()) / len(datasets)
        return gradient, info | {"gates": gates(self.optimiser.params)}

    def losses_and_gradient(self, shards):
        """The mean loss of every data set, and the gradient vector of their sum weighted by lambda."""
        weights = [dataset.weight for dataset in self.recipe.datasets]

        def loss_of(params, shard):
            return shard_loss(params, shard, self.frozen, weights, self.config, self.parts)

        _, losses, gradient = summed_gradient(loss_of, self.optimiser.params, shards)
        return dict(zip((dataset.name for dataset in self.recipe.datasets), losses, strict=True)), gradient

    def result(self):
        """What the finished Flamingo adds to the frozen parts, or puts in their place."""
        params = {name: leaf for name, leaf in self.optimiser.params.items() if name not in self.recipe.trained}
        trained = {name: self.optimiser.params[name] for name in self.recipe.trained}
        return {"params": params, **half_precision(trained)}
