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
from tinyflamingo.model.flamingo import encode_media, flamingo, gates, init_flamingo, see
from tinyflamingo.model.interleave import Batch, Sequence, encode_document, pack_batch, phi, phi_next
from tinyflamingo.model.tokenizer import IMAGE
from tinyflamingo.ops.tree import half_precision, view_tree
from tinyflamingo.training.language_stage import token_losses
from tinyflamingo.training.optimiser import AdamW
from tinyflamingo.training.ranks import mine, world
from tinyflamingo.training.shards import shard_count, summed_gradient

DATASETS = ("pages", "pairs", "videos")
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
        self.pictures, self.videos = (
            None if media is None else encode_media(frozen, media, config) for media in (self.pictures, self.videos)
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


def see_all(params, features, config):
    """Visual tokens of media in order; features: a list from `MediaFeatures.of`, which may be empty."""
    seen = [see(params, table, config) for table in features]
    return anp.concatenate(seen) if seen else see(params, np.zeros((0, 1, 1, 1), np.float32), config)


def shard_loss(params, shard: Shard, frozen, weights, config):
    """A shard's part of the loss: the sum over datasets of lambda (`weights`) times the mean loss.

    Returns (loss, its parts by dataset before lambda).
    """
    batch, features = shard.batch, shard.features
    frozen = frozen | {name: params[name] for name in PARTS if name in params}
    if "vision" in params:
        features = [encode_media(frozen, pixels, config) for pixels in features]
    visual = see_all(params, features, config)
    tokens, phi, start, first = (x[:, :-1] for x in (batch.tokens, batch.phi, batch.start, batch.first))
    logits = flamingo(params, frozen, tokens, phi, visual, config, start, first=first)
    losses = token_losses(logits, batch.tokens[:, 1:]) * shard.shares[:, 1:]
    parts = [anp.sum(losses * (shard.datasets[:, 1:] == i)) for i in range(len(weights))]
    return sum(part * np.float32(weight) for part, weight in zip(parts, weights, strict=True)), parts


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
    datasets = DATASETS

    def __init__(self, preset, rng, tokenizer, frozen, media=None):
        """media: from `make_media`, if several runs share them."""
        self.config, self.recipe, self.tokenizer = preset.config, preset.flamingo, tokenizer
        self.steps, self.frozen = self.recipe.steps, frozen
        self.pool, self.features = media or make_media(self.collect(rng), self.recipe, frozen, self.config)
        params = init_flamingo(rng, self.config) | {name: frozen[name] for name in self.recipe.trained}
        # Weight decay 0 for the resampler, 0.1 for the rest (paper, appendix B.1.2).
        self.optimiser = AdamW(params, self.recipe.optimiser, no_decay=("resampler",))

    def collect(self, rng):
        """The pool of pictures and videos, drawn once."""
        return draw_media(rng, self.recipe, self.config.vision.side)

    def documents(self, rng, names=None, longer=1):
        """The documents of one step, of these datasets or of all; longer: how many times as long its pages are."""
        found = []
        for name in names or self.datasets:
            index = self.datasets.index(name)
            longer_here, rows = longer if name == "pages" else 1, self.recipe.rows[index]
            for _ in range(max(1, rows // longer_here) if rows else 0):
                kind, items = self._draw(rng, name, longer_here)
                sequence = cut(encode_document(items, self.tokenizer), self.recipe.lengths[index] * longer_here)
                ahead = kind == "web_page" and rng.random() < self.recipe.p_next
                found.append(Document(index, sequence, phi_next if ahead else phi))
        return found

    def _draw(self, rng, name, longer):
        if name == "pages":
            return page(rng, self.pool, length=longer)
        return name, (pair if name == "pairs" else video)(rng, self.pool)

    def shards(self, rng, documents):
        """The documents dealt out to the workers, each with a generator of its own; of ranks, its own shards."""
        totals = np.zeros(len(self.datasets), np.float32)
        for document in documents:
            totals[document.dataset] += sum(document.sequence.weights)
        n = min(shard_count(), len(documents))
        hands = mine([(documents[i::n], own) for i, own in enumerate(rng.spawn(n))])
        return ops.share_out(lambda hand: self._shard(*hand, totals), hands)

    def _shard(self, documents, rng, totals):
        """Noise on the frozen features keeps the new layers from learning single pictures by heart."""
        length = max(*self.recipe.lengths, *(len(d.sequence.tokens) for d in documents))
        batch = pack_batch([d.sequence for d in documents], length, [d.phi_of for d in documents])
        features = self.features.of(batch.media)
        for table in features if "vision" not in self.recipe.trained else ():
            table += rng.standard_normal(table.shape, dtype=np.float32) * np.float32(self.recipe.feature_noise)
        datasets = np.array([d.dataset for d in documents] + [-1])[batch.owner]
        totals = np.append(np.maximum(totals, 1), np.float32(1))  # the last is padding's
        return Shard(batch, features, batch.weights / totals[datasets], datasets)

    def gradient(self, rng, step):
        """Gradient vector and what to log: all datasets accumulated, or one in turn (round-robin)."""
        if step == 0:
            self.open_gates(rng)
        names = self.datasets if self.recipe.accumulate else (self.datasets[step % len(self.datasets)],)
        longer = self.recipe.longer if step % self.recipe.long_every == self.recipe.long_every - 1 else 1
        losses, gradient = self.losses_and_gradient(self.shards(rng, self.documents(rng, names, longer)))
        info = {f"loss_{name}": losses[name] for name in names}
        info["loss"] = sum(info.values()) / len(names)
        return gradient, info | {"gates": gates(self.optimiser.params)}

    def losses_and_gradient(self, shards):
        """The mean loss of every dataset, and the gradient vector of their sum weighed by lambda."""

        weights = self.recipe.weights[: len(self.datasets)]

        def loss_of(params, shard):
            return shard_loss(params, shard, self.frozen, weights, self.config)

        _, losses, gradient = summed_gradient(loss_of, self.optimiser.params, shards)
        sums = world().allreduce(np.sum(losses, axis=0, dtype=np.float64))
        return dict(zip(self.datasets, map(float, sums), strict=True)), gradient

    def open_gates(self, rng):
        """The first move, from exactly 0: at zero only the gates have a gradient, and one batch's
        sign is noise. So it is averaged over some steps, and every gate moves along its sign."""
        params = self.optimiser.params
        shut = [name.split("/") for name in gates(params)]
        total = 0.0
        for _ in range(self.recipe.gate_batches if shut else 0):
            total = total + self.losses_and_gradient(self.shards(rng, self.documents(rng)))[1]
        for name, gate in shut:
            slope = view_tree(total, params)[name][gate]
            params[name][gate][...] = -np.sign(slope) * self.recipe.gate_push

    def result(self):
        """What the finished Flamingo adds to the frozen parts, or puts in their place."""
        params = {name: leaf for name, leaf in self.optimiser.params.items() if name not in self.recipe.trained}
        trained = {name: self.optimiser.params[name] for name in self.recipe.trained}
        return {"params": params, **half_precision(trained)}
