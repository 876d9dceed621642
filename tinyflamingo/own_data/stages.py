"""The three stages on the user's own data, alone or mixed with TinyWorld: same losses, other documents.

Chapter §1, §2 and §4. Stage one learns from pictures and the text next to each, stage two from the texts,
stage three from whole records. `mix` is the share of the user's documents in every batch. Records come in
random order, each once in an epoch (in stage two about once, because documents differ in length). The
order is a function of seed and step.

Not here: reading (`data/readers/`), the store (`data/store.py`), the losses (`training/`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from tinyflamingo.data.augment import augmented
from tinyflamingo.data.items import text_of
from tinyflamingo.data.readers.record import OUTPUT
from tinyflamingo.data.store import Store, Stored, shuffled
from tinyflamingo.data.tinyworld.pool import Pool
from tinyflamingo.errors import UserError
from tinyflamingo.language import _
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.tokenizer import EOS, Tokenizer
from tinyflamingo.ops.types import Params
from tinyflamingo.own_data.episodes import classes_of, episode, share_of_episodes
from tinyflamingo.own_data.features import StoredFeatures
from tinyflamingo.training.contrastive_stage import FAMILY, STANDARDISE_PICTURES, ContrastiveStage
from tinyflamingo.training.flamingo_stage import Document, FlamingoStage, MediaPixels
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Dataset, Preset

FRAMES = 8  # of a video in training, if the resampler does not count them
TRIES = 4  # most records that stage one reads for each pair of its batch


class Draws:
    """A store's records in the order of training: all in a random order, then all in another one, and so on."""

    def __init__(self, store: Store, rng: np.random.Generator) -> None:
        self.store, self.numbers, self.seed = store, store.training, int(rng.integers(1 << 62))

    def __getitem__(self, n: int) -> list:
        """The items of the n-th record, counted from 0."""
        return self.store.items(int(self.numbers[shuffled(len(self.numbers), self.seed, n)]))


def pairs(items: list) -> list[tuple[Stored, str]]:
    """(medium, text) for every medium of a record: the text up to the next medium, or else the text before it."""
    triples: list = []  # [medium, text after it, text before it]
    text = ""
    for item in items:
        if isinstance(item, Stored):
            triples.append([item, "", text])
            text = ""
        elif item != OUTPUT:
            text = f"{text} {text_of(item)}".strip()
            if triples:
                triples[-1][1] = text
    return [(medium, after or before) for medium, after, before in triples if after or before]


class OwnContrastiveStage(ContrastiveStage):
    """Stage one. A video gives one of its frames; a batch holds a medium at most once, with one of its texts."""

    def __init__(
        self,
        preset: Preset,
        rng: np.random.Generator,
        tokenizer: Tokenizer,
        frozen: Params,
        store: Store,
        mix: float,
        augment: bool = True,
    ) -> None:
        """augment: whether the pictures of the store change at random (`data/augment.py`)."""
        self.store, self.tokenizer, self.augment, whole = store, tokenizer, augment, preset.contrastive
        tinyworld_rows = round((1 - mix) * whole.batch / FAMILY) * FAMILY
        self.own_rows, self.least_mix = whole.batch - tinyworld_rows, 3 / whole.batch
        recipe = replace(whole, batch=tinyworld_rows, families=whole.families if tinyworld_rows else 0)
        super().__init__(replace(preset, contrastive=recipe), rng, tokenizer, frozen)
        self.draws, self.first = Draws(store, rng), 0

    def collect(self, rng: np.random.Generator, tokenizer: Tokenizer) -> None:
        """Draw TinyWorld's families, if it is mixed in."""
        if self.recipe.batch:
            super().collect(rng, tokenizer)

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """The gradient vector of one batch, and the numbers for the log."""
        self.first = step * self.own_rows
        return super().gradient(rng, step)

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, list[list[int]]]:
        """Pixels (B, Y, X, 3) and captions, B lists of ids."""
        chosen = self._pairs(rng)
        if len(chosen) < 2:
            reason = _("the data have fewer" if self.own_rows > 1 else f"give --mix {self.least_mix:.2g} or more")
            raise UserError(f"stage one needs at least two pictures with a text in each batch: {reason}")
        pictures = np.concatenate([self._frame(rng, medium) for medium, _ in chosen])
        if self.augment:
            pictures = augmented(rng, pictures)
        captions = [self.tokenizer.encode(text)[: self.config.text_tower.context] for _, text in chosen]
        if not self.recipe.batch:
            return pictures, captions
        tinyworld_pictures, tinyworld_captions = super().batch(rng)
        return np.concatenate([tinyworld_pictures, pictures]), tinyworld_captions + captions

    def _pairs(self, rng):
        """Up to `own_rows` pairs (medium, text) of media with different pixels."""
        chosen: dict = {}
        for i in range(TRIES * self.own_rows):
            if options := pairs(self.draws[self.first + i]):
                medium, text = options[int(rng.integers(len(options)))]
                chosen.setdefault(self.store.frames(medium).tobytes(), (medium, text))
            if len(chosen) == self.own_rows:
                break
        return list(chosen.values())

    def _frame(self, rng, medium):
        return self.store.frames(replace(medium, first=int(rng.integers(medium.frames)), frames=1))

    def sample(self) -> np.ndarray:
        """First frames of the training records, at equal distances, and TinyWorld's pictures if it is mixed in."""
        numbers = self.store.training[:: max(1, len(self.store.training) // STANDARDISE_PICTURES)]
        media = dict.fromkeys(item for n in numbers for item in self.store.items(int(n)) if isinstance(item, Stored))
        frames = [self.store.frames(replace(medium, frames=1)) for medium in media]
        tinyworld = [super().sample()] if self.recipe.batch else []
        return np.concatenate([*frames, *tinyworld])


class OwnLanguageStage(LanguageStage):
    """Stage two: the texts of the records, random repeats, and TinyWorld's texts if it is mixed in."""

    def __init__(
        self, preset: Preset, rng: np.random.Generator, tokenizer: Tokenizer, frozen: Params, store: Store, mix: float
    ) -> None:
        super().__init__(preset, rng, tokenizer, frozen)
        self.mix, self.draws = mix, Draws(store, rng)
        self.records: Iterator = iter(())

    def documents(self, rng: np.random.Generator, step: int, row: int, longer: int = 1) -> Iterator[tuple]:
        """The documents of one row of a step: after its first record, those that the row would have one run later,
        two runs later, and so on. So rows that are near each other share no record.
        """
        run = self.steps * self.recipe.rows
        self.records = (self.draws[n] for n in itertools.count(step * self.recipe.rows + row, run))
        return super().documents(rng, step, row, longer)

    def document(self, rng: np.random.Generator, step: int, longer: int = 1) -> tuple[list[int], list[float]]:
        """One document from `<BOS>` to `<EOS>`: its ids, and the loss weight of each."""
        if rng.random() >= self.mix:
            return super().document(rng, step, longer)
        if rng.random() < self.shares(step)[0]:
            return self.repeat(rng, longer)
        items = [item for item in next(self.records) if not isinstance(item, Stored)]
        sequence = encode_document(items, self.tokenizer, complete=False)
        return [*sequence.tokens, EOS], [*sequence.weights, 1.0]


class OwnFlamingoStage(FlamingoStage):
    """Stage three: the records and episodes of their classes, beside TinyWorld's three data sets, or alone.

    In a long step the records of several documents are one document: the model learns from examples in the prompt.
    """

    long = ("pages", "own", "episodes")

    def __init__(
        self,
        preset: Preset,
        rng: np.random.Generator,
        tokenizer: Tokenizer,
        frozen: Params,
        store: Store,
        mix: float,
        start: TrainedFlamingo | None = None,
    ) -> None:
        """start: the model from which the run goes on; None: resampler and gated blocks begin from nothing."""
        self.store, self.alone, self.start, whole = store, mix == 1, start, preset.flamingo.datasets
        self.longest = max(dataset.length for dataset in whole)
        self.classes = classes_of(store, store.training)
        rows = max(1, round(mix * sum(dataset.rows for dataset in whole)))
        episodes = round(rows * share_of_episodes(self.classes, len(store.training)))
        self.own_rows, self.first = max(1, rows - episodes), 0
        datasets = [Dataset("own", self.own_rows, self.longest, 1.0)]
        datasets += [Dataset("episodes", episodes, self.longest, 1.0)] if episodes else []
        if not self.alone:
            datasets[:0] = [replace(dataset, rows=max(1, round((1 - mix) * dataset.rows))) for dataset in whole]
        recipe = replace(preset.flamingo, datasets=tuple(datasets))
        frozen = start.frozen if start else frozen
        super().__init__(replace(preset, flamingo=recipe), rng, tokenizer, frozen)
        self.features = _Features(self.features, StoredFeatures(frozen, store, self.config, store.folder))
        self.draws = Draws(store, rng)

    def initial(self, rng: np.random.Generator) -> Params:
        """The parameters of the model from which the run goes on, or new ones."""
        return self.start.params if self.start else super().initial(rng)

    def result(self) -> Params:
        """The trained parameters, and the frozen parts of the model from which the run goes on."""
        return (self.start.frozen if self.start else {}) | super().result()

    def collect(self, rng: np.random.Generator) -> Pool:
        """TinyWorld's pool, if it is mixed in."""
        return Pool() if self.alone else super().collect(rng)

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """The gradient vector, and numbers for the log. The first step continues after the records of `prepare`."""
        if step:
            self.first = step * self.own_rows
        return super().gradient(rng, step)

    def documents(
        self, rng: np.random.Generator, datasets: Iterable[Dataset] | None = None, longer: int = 1
    ) -> list[Document]:
        """This rank's documents of a step. The next batch goes on after their records."""
        documents = super().documents(rng, datasets, longer)
        self.first += self.own_rows
        return documents

    def _draw(self, rng, name, longer, place):
        if name == "episodes":
            length = self.longest * longer
            items = episode(rng, self.store, self.classes, self.tokenizer, length)
            return "episode", [self._clip(rng, item) for item in items]
        if name != "own":
            return super()._draw(rng, name, longer, place)
        documents = max(1, self.own_rows // longer)
        records = np.array_split(np.arange(self.own_rows), documents)[place]
        kinds, items = zip(*(self._record(rng, self.first + int(n)) for n in records), strict=True)
        return kinds[0] if len(kinds) == 1 else "examples", [item for record in items for item in record]

    def _record(self, rng, number):
        """(kind, items) of a record."""
        items = [self._clip(rng, item) for item in self.draws[number]]
        places = [i for i, item in enumerate(items) if isinstance(item, Stored)]
        if len(places) < 2:
            return "own", items
        if len(encode_document(items, self.tokenizer).tokens) > self.longest:  # begin at a random medium
            items = items[places[int(rng.integers(len(places)))] :]
        return "web_page", items

    def _clip(self, rng, item):
        """A video cut to the number of frames for which the resampler has embeddings (paper, appendix B.1.2)."""
        most = getattr(self.config.resampler, "frames", 0) or FRAMES
        if not isinstance(item, Stored) or item.frames <= most:
            return item
        return replace(item, first=int(rng.integers(item.frames - most + 1)), frames=most)


class _Features(MediaPixels):
    """Features of TinyWorld's media and of a store's media."""

    def __init__(self, drawn, stored):
        self.drawn, self.stored = drawn, stored

    def group(self, medium):
        """(whether it is stored, its group there)."""
        own = isinstance(medium, Stored)
        return own, (self.stored if own else self.drawn).group(medium)

    def of(self, media):
        """Arrays (M, F, S, Dv) of all media, in order."""
        runs = itertools.groupby(media, key=self.group)
        return [table for (own, _), run in runs for table in (self.stored if own else self.drawn).of(list(run))]
