"""The three stages on data of the user's own, alone or mixed with TinyWorld: same losses, other documents.

Chapters §1, §2 and §4. Stage one learns from pictures and the text beside each, stage two from the texts,
stage three from the records as they are. `mix` is the share of the user's documents in every batch.
Records come shuffled, every one once an epoch (in stage two, whose documents differ in length, about once);
which one comes is a function of seed and step.

Not here: reading (`data/readers/`), the store (`data/store.py`), the losses (the stages these build on).
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.readers.record import OUTPUT
from tinyflamingo.data.store import Store, Stored, shuffled
from tinyflamingo.data.tinyworld.pool import Pool
from tinyflamingo.errors import UserError
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.tokenizer import EOS
from tinyflamingo.own_data.features import StoredFeatures
from tinyflamingo.training.contrastive_stage import FAMILY, STANDARDISE_PICTURES, ContrastiveStage
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Dataset

TRIES = 4  # records looked at for every pair of stage one that is wanted


class Draws:
    """Numbers of a store's records in the order in which training meets them."""

    def __init__(self, store: Store, rng, per_step: int):
        self.numbers, self.seed, self.per_step = store.training, int(rng.integers(1 << 62)), per_step
        self.at(0)

    def at(self, step):
        """Go to where a step begins."""
        self.count = itertools.count(step * self.per_step)

    def next(self) -> int:
        """The next record's number."""
        return int(self.numbers[shuffled(len(self.numbers), self.seed, next(self.count))])


def text_of(item) -> str:
    """The words of an item of text."""
    return item.text if isinstance(item, Quiet) else item


def pairs(items) -> list:
    """(medium, text) for every medium of a record: the text after it, up to the next medium; else that before."""
    found, before = [], ""
    for item in items:
        if isinstance(item, Stored):
            found.append([item, "", before])
            before = ""
        elif item != OUTPUT:
            before = f"{before} {text_of(item)}".strip()
            if found:
                found[-1][1] = before
    return [(medium, after or before) for medium, after, before in found if after or before]


class OwnContrastiveStage(ContrastiveStage):
    """Stage one. A video gives one of its frames; no medium stands twice in a batch."""

    def __init__(self, preset, rng, tokenizer, frozen, store: Store, mix: float):
        self.store, self.tokenizer, whole = store, tokenizer, preset.contrastive
        theirs = round((1 - mix) * whole.batch / FAMILY) * FAMILY
        self.own, self.least = whole.batch - theirs, 3 / whole.batch
        recipe = replace(whole, batch=theirs, families=whole.families if theirs else 0)
        super().__init__(replace(preset, contrastive=recipe), rng, tokenizer, frozen)
        self.draws = Draws(store, rng, self.own)

    def collect(self, rng, tokenizer):
        """TinyWorld's families, where it is mixed in."""
        if self.recipe.batch:
            super().collect(rng, tokenizer)

    def gradient(self, rng, step):
        """Gradient vector and what to log, for one batch."""
        self.draws.at(step)
        return super().gradient(rng, step)

    def batch(self, rng):
        """Pixels (B, Y, X, 3) and captions, B lists of ids."""
        found = self._pairs(rng)
        if len(found) < 2:
            few = (
                "the data have fewer"
                if self.own > 1
                else f"--mix {self.least:.2g} is the least that leaves room for them"
            )
            raise UserError(f"stage one needs at least two pictures with a text beside each in a batch: {few}")
        pictures = np.concatenate([self._frame(rng, medium) for medium, _ in found])
        captions = [self.tokenizer.encode(text)[: self.config.text_tower.context] for _, text in found]
        if not self.recipe.batch:
            return pictures, captions
        theirs, said = super().batch(rng)
        return np.concatenate([theirs, pictures]), said + captions

    def _pairs(self, rng):
        found = {}
        for _ in range(TRIES * self.own):
            if options := pairs(self.store.items(self.draws.next())):
                medium, text = options[int(rng.integers(len(options)))]
                found.setdefault(medium.index, (medium, text))
            if len(found) == self.own:
                break
        return list(found.values())

    def _frame(self, rng, medium):
        return self.store.frames(replace(medium, first=int(rng.integers(medium.frames)), frames=1))

    def sample(self):
        """Frames from all over the store, and TinyWorld's."""
        frames = self.store.pixels
        theirs = [super().sample()] if self.recipe.batch else []
        return np.concatenate([frames[:: max(1, len(frames) // STANDARDISE_PICTURES)], *theirs])


class OwnLanguageStage(LanguageStage):
    """Stage two: what the records say, and random repeats; TinyWorld's texts where it is mixed in."""

    def __init__(self, preset, rng, tokenizer, frozen, store: Store, mix: float):
        super().__init__(preset, rng, tokenizer, frozen)
        self.store, self.mix = store, mix
        self.draws = Draws(store, rng, self.recipe.rows)

    def gradient(self, rng, step):
        """Gradient vector and what to log, for one batch."""
        self.draws.at(step)
        return super().gradient(rng, step)

    def document(self, rng, step, longer=1):
        """One document from `<BOS>` to `<EOS>`: its ids, and the loss weight of each."""
        if rng.random() >= self.mix:
            return super().document(rng, step, longer)
        if rng.random() < self.shares(step)[0]:
            return self.repeat(rng, longer)
        items = [item for item in self.store.items(self.draws.next()) if not isinstance(item, Stored)]
        sequence = encode_document(items, self.tokenizer, complete=False)
        return [*sequence.tokens, EOS], [*sequence.weights, 1.0]


class OwnFlamingoStage(FlamingoStage):
    """Stage three: the records, as a dataset of their own beside TinyWorld's three, or alone."""

    def __init__(self, preset, rng, tokenizer, frozen, store: Store, mix: float, folder):
        self.store, whole = store, preset.flamingo.datasets
        own, self.alone = max(1, round(mix * sum(dataset.rows for dataset in whole))), mix == 1
        rest = tuple(replace(dataset, rows=max(1, round((1 - mix) * dataset.rows))) for dataset in whole)
        self.longest = max(dataset.length for dataset in whole)
        datasets = (*(() if self.alone else rest), Dataset("own", own, self.longest, 1.0))
        recipe = replace(preset.flamingo, datasets=datasets)
        super().__init__(replace(preset, flamingo=recipe), rng, tokenizer, frozen)
        self.features = _Features(self.features, StoredFeatures(frozen, store, self.config, folder))
        self.draws = Draws(store, rng, own)

    def collect(self, rng):
        """TinyWorld's pool, where it is mixed in."""
        return Pool() if self.alone else super().collect(rng)

    def gradient(self, rng, step):
        """Gradient vector and what to log. The first step continues after the records that `prepare` took."""
        if step:
            self.draws.at(step)
        return super().gradient(rng, step)

    def _draw(self, rng, name, longer):
        if name != "own":
            return super()._draw(rng, name, longer)
        items = [self._clip(rng, item) for item in self.store.items(self.draws.next())]
        places = [i for i, item in enumerate(items) if isinstance(item, Stored)]
        if len(places) < 2:
            return "own", items
        if len(encode_document(items, self.tokenizer).tokens) > self.longest:  # begin anywhere on it
            items = items[places[int(rng.integers(len(places)))] :]
        return "web_page", items

    def _clip(self, rng, item):
        """Of a video, as many frames in a row as the resampler has embeddings for (paper, appendix B.1.2)."""
        most = self.config.resampler.frames
        if not isinstance(item, Stored) or item.frames <= most:
            return item
        return replace(item, first=int(rng.integers(item.frames - most + 1)), frames=most)


class _Features:
    """Features of TinyWorld's media and of a store's, in one list."""

    def __init__(self, drawn, stored):
        self.drawn, self.stored = drawn, stored

    def of(self, media):
        """Features (M, F, S, Dv) of every run of media of one kind, in order."""
        runs = itertools.groupby(media, key=lambda medium: isinstance(medium, Stored))
        return [table for own, run in runs for table in (self.stored if own else self.drawn).of(list(run))]
