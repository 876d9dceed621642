"""Stage three: resampler, gated blocks and `<EOC>` learn; encoder and language model are frozen.

Chapter §1 and §4; paper section 2.4 and appendix B.1. Every step takes documents of each data set
(interleaved pages, picture-text pairs, video-text pairs), weights their mean losses by lambda and
sums the gradients before one update. Short documents are packed into one row. Training starts from
gates of exactly 0; their first move follows a gradient averaged over several batches (docs/deviations.md).

Not here: the documents (`data/tinyworld/pages.py`) and the model (`model/flamingo.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.data.tinyworld.pages import page, pair, video
from tinyflamingo.data.tinyworld.pool import Pool, make_pool
from tinyflamingo.data.tinyworld.task_documents import task_page
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.model.flamingo import CHAPTER, Parts, encode_media, flamingo, gates
from tinyflamingo.model.interleave import Batch, Sequence, encode_document, pack_batch, phi, phi_next
from tinyflamingo.model.tokenizer import IMAGE, Tokenizer
from tinyflamingo.ops.tree import half_precision, view_tree
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.losses import token_losses
from tinyflamingo.training.muon import Muon
from tinyflamingo.training.optimiser import AdamW
from tinyflamingo.training.presets import Dataset, FlamingoRecipe, Preset
from tinyflamingo.training.ranks import whole, world
from tinyflamingo.training.shards import drawn, own_jobs, summed_gradient
from tinyflamingo.variants.registry import init_flamingo, parts_of

PARTS = ("vision", "language")  # frozen parts; a recipe can train them too (`trained`)


class MediaPixels:
    """Pixels of a pool; a picture has one frame. They serve an encoder that trains."""

    def __init__(self, pool: Pool) -> None:
        self.pictures: Array = None if pool.pictures is None else pool.pictures[:, None]
        self.videos: Array = pool.videos

    def group(self, medium: Any) -> Any:
        """Media of equal groups share an array, and groups have an order. Here: whether it is a video."""
        return medium.kind != "picture"

    def of(self, media: list) -> list[np.ndarray]:
        """One array (M, F, ...) for each run of media of the same group, in order."""
        runs = groupby(media, key=self.group)
        return [(self.videos if video else self.pictures)[[medium.index for medium in run]] for video, run in runs]


class MediaFeatures(MediaPixels):
    """Frozen features (M, F, S, Dv) of a pool, computed once."""

    def __init__(self, frozen: Params, pool: Pool, config: FlamingoConfig) -> None:
        super().__init__(pool)
        parts = parts_of(config)

        def features(media):
            return whole(lambda run: encode_media(frozen, media[run], config, parts), len(media))

        self.pictures, self.videos = (
            None if media is None else features(media) for media in (self.pictures, self.videos)
        )


Media = tuple[Pool, MediaPixels]  # a pool, and the features or the pixels of its media


class Document(NamedTuple):
    """A document, the number of its data set, and the function that tells which medium a token sees."""

    dataset: int
    sequence: Sequence
    phi_of: Callable  # `phi` or `phi_next`


@dataclass
class Shard:
    """Some documents of a step, ready for the model.

    features: of pictures and of videos, or their pixels if the encoder trains. shares (B, T): weight of each token
    in the mean loss of its data set. datasets (B, T): number of the data set, -1 for padding.
    """

    batch: Batch
    features: list[np.ndarray]
    shares: np.ndarray
    datasets: np.ndarray


def cut(sequence: Sequence, T: int) -> Sequence:
    """The first T tokens of a document, with the media whose tags are among them."""
    tokens = sequence.tokens[:T]
    return Sequence(tokens, sequence.weights[:T], sequence.media[: tokens.count(IMAGE)])


def shard_loss(
    params: Params, shard: Shard, frozen: Params, weights: list[float], config: FlamingoConfig, parts: Parts = CHAPTER
) -> tuple[Array, list[Array]]:
    """A shard's part of the loss: the sum over data sets of lambda (`weights`) times the mean loss.

    Returns (loss, list of the parts of the data sets, before lambda).
    """
    batch, features = shard.batch, shard.features
    frozen = frozen | {name: params[name] for name in PARTS if name in params}
    if "vision" in params:
        features = [encode_media(frozen, pixels, config, parts) for pixels in features]
    visual = parts.resample(params, features, config)
    tokens, phi, visible_from = (x[:, :-1] for x in (batch.tokens, parts.visible(batch), batch.visible_from))
    needed = np.flatnonzero(shard.shares[:, 1:])
    logits = flamingo(params, frozen, tokens, phi, visual, config, visible_from, parts=parts, needed=needed)
    targets, shares, datasets = (x[:, 1:].ravel()[needed] for x in (batch.tokens, shard.shares, shard.datasets))
    losses = token_losses(logits, targets) * shares
    means = [anp.sum(losses * (datasets == i)) for i in range(len(weights))]
    return sum(mean * np.float32(weight) for mean, weight in zip(means, weights, strict=True)), means


def draw_media(rng: np.random.Generator, recipe: FlamingoRecipe, side: int) -> Pool:
    """A pool of TinyWorld's pictures and videos. The recipe gives the number of each kind."""
    r = recipe
    numbers = r.singles, r.pairs, r.counts, r.clips, r.uncoloured, r.wild, r.digits, r.sums
    return make_pool(rng, *numbers, side=side, drawn=drawn)


def make_media(pool: Pool, recipe: FlamingoRecipe, frozen: Params, config: FlamingoConfig) -> Media:
    """The pool, and the features of its media, or their pixels if the encoder trains."""
    return pool, MediaPixels(pool) if "vision" in recipe.trained else MediaFeatures(frozen, pool, config)


class FlamingoStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "flamingo"
    long: tuple[str, ...] = ("pages",)  # data sets whose documents are longer in a long step

    def __init__(
        self, preset: Preset, rng: np.random.Generator, tokenizer: Tokenizer, frozen: Params, media: Media | None = None
    ) -> None:
        """media: the result of `make_media`, if several runs use the same media."""
        self.config, self.recipe, self.tokenizer = preset.config, preset.flamingo, tokenizer
        self.steps, self.frozen, self.parts = self.recipe.steps, frozen, parts_of(self.config)
        self.pool, self.features = media or make_media(self.collect(rng), self.recipe, frozen, self.config)
        params = self.initial(rng) | {name: frozen[name] for name in self.recipe.trained}
        # Weight decay 0 for the resampler, 0.1 for the rest (paper, appendix B.1.2).
        self.optimiser: AdamW = Muon(params, self.recipe.optimiser, no_decay=("resampler",))

    def initial(self, rng: np.random.Generator) -> Params:
        """The parameters at the start: fresh ones, with gates of exactly 0."""
        return init_flamingo(rng, self.config)

    def collect(self, rng: np.random.Generator) -> Pool:
        """The pool of pictures and videos, drawn once."""
        return draw_media(rng, self.recipe, self.config.vision.side)

    def documents(
        self, rng: np.random.Generator, datasets: Iterable[Dataset] | None = None, longer: int = 1
    ) -> list[Document]:
        """This rank's documents of a step, from these data sets or from all. longer: factor on the length of pages."""
        jobs = []
        for dataset in datasets or self.recipe.datasets:
            times = longer if dataset.name in self.long else 1
            rows = max(1, dataset.rows // times) if dataset.rows else 0
            jobs += [(dataset, times, place) for place in range(rows)]
        shared = own_jobs(rng, jobs, cost=lambda job: job[0].length * job[1])
        return [self._document(own, *job) for job, own in shared]

    def _document(self, rng, dataset, longer, place):
        kind, items = self._draw(rng, dataset.name, longer, place)
        sequence = cut(encode_document(items, self.tokenizer), dataset.length * longer)
        ahead = kind == "web_page" and rng.random() < self.recipe.p_next
        return Document(self.recipe.datasets.index(dataset), sequence, phi_next if ahead else phi)

    def _draw(self, rng, name, longer, place):
        """(kind, items) of a document of a data set. place: its number among those of the step."""
        if name == "pages" and rng.random() < self.recipe.tasks:
            return "tasks", task_page(rng, self.pool, longer)
        if name == "pages":
            return page(rng, self.pool, dict(self.recipe.mixture), longer)
        return name, (pair if name == "pairs" else video)(rng, self.pool)

    def shards(self, rng: np.random.Generator, documents: list[Document]) -> list[Shard]:
        """This rank's documents, in one shard for each of its workers. Each shard has its own generator."""
        totals = np.zeros(len(self.recipe.datasets), np.float32)
        for document in documents:
            totals[document.dataset] += sum(document.sequence.weights)
        totals = world().allreduce(totals)
        # Documents with equal groups of media follow each other: few large arrays, so few passes of the resampler.
        documents = sorted(documents, key=lambda d: [self.features.group(medium) for medium in d.sequence.media])
        n = min(ops.workers(), len(documents))
        generators = rng.spawn(ops.workers() * world().size)[ops.workers() * world().rank :]
        work = [(documents[i::n], generators[i]) for i in range(n)]
        return ops.parallel_map(lambda pair: self._shard(totals, *pair), work)

    def _shard(self, totals, documents, rng):
        """The shard of some documents. Noise on the frozen features: new layers must not memorise single pictures."""
        batch = pack_batch([d.sequence for d in documents], [d.phi_of for d in documents])
        features = self.features.of(batch.media)
        for table in features if "vision" not in self.recipe.trained else ():
            table += rng.standard_normal(table.shape, dtype=np.float32) * np.float32(self.recipe.feature_noise)
        datasets = np.array([d.dataset for d in documents] + [-1])[batch.owner]
        totals = np.append(np.maximum(totals, 1), np.float32(1))  # the last one is for padding
        return Shard(batch, features, batch.weights / totals[datasets], datasets)

    def prepare(self, rng: np.random.Generator) -> None:
        """The first move of the gates, from exactly 0.

        At 0 only the gates (and `<EOC>`) have a gradient, and its sign on one batch is noise. So the gradient is
        averaged over several batches, and every gate moves against its sign.
        """
        params = self.optimiser.params
        closed = [name.split("/") for name, size in gates(params).items() if size == 0]
        if not closed:
            return
        total: Array = 0.0
        for _ in range(self.recipe.gate_batches):
            total = total + self.losses_and_gradient(self.shards(rng, self.documents(rng)))[1]
        slopes = view_tree(total, params)
        for name, gate in closed:
            params[name][gate][...] = -np.sign(slopes[name][gate]) * self.recipe.gate_push

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """The gradient vector of one step, over all data sets or one in turn (round-robin), and numbers for the log."""
        datasets = self.recipe.datasets
        if not self.recipe.accumulate:
            datasets = (datasets[step % len(datasets)],)
        longer = self.recipe.longer if step % self.recipe.long_every == self.recipe.long_every - 1 else 1
        losses, gradient = self.losses_and_gradient(self.shards(rng, self.documents(rng, datasets, longer)))
        info = {f"loss_{dataset.name}": losses[dataset.name] for dataset in datasets}
        info["loss"] = sum(info.values()) / len(datasets)
        return gradient, info | {"gates": gates(self.optimiser.params)}

    def losses_and_gradient(self, shards: list[Shard]) -> tuple[dict[str, float], np.ndarray]:
        """The mean loss of every data set, and the gradient vector of their sum weighted by lambda."""
        weights = [dataset.weight for dataset in self.recipe.datasets]

        def loss_of(params, shard):
            return shard_loss(params, shard, self.frozen, weights, self.config, self.parts)

        _, losses, gradient = summed_gradient(loss_of, self.optimiser.params, shards)
        return dict(zip((dataset.name for dataset in self.recipe.datasets), losses, strict=True)), gradient

    def result(self) -> Params:
        """The trained parameters. A part that trained too (`trained`) replaces the frozen one."""
        params = {name: leaf for name, leaf in self.optimiser.params.items() if name not in self.recipe.trained}
        trained = {name: self.optimiser.params[name] for name in self.recipe.trained}
        return {"params": params, **half_precision(trained)}
