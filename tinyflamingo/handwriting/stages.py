"""Stages one and three on handwriting: the losses and the loop are those of TinyWorld, the pictures are not.

Chapter §1, §2 and §4. Handwriting has no captions. So in stage one, two drawings of a character by two
people serve as caption of each other; stage three learns from few-shot episodes (docs/deviations.md).
Stage two is TinyWorld's: from its texts the language model learns to bind a word to the text before it.

Not here: the losses (`training/`), drawings and episodes (`drawings.py`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tinyflamingo.data.tinyworld.pool import Pool
from tinyflamingo.errors import UserError
from tinyflamingo.files import digests
from tinyflamingo.handwriting.drawings import TURNS, Sheet, draw_varied, picture_episode, sheet
from tinyflamingo.handwriting.omniglot import DRAWERS, background_files, read_background
from tinyflamingo.model.contrastive import contrastive_loss, embed_pictures
from tinyflamingo.model.tokenizer import Tokenizer
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.contrastive_stage import STANDARDISE_PICTURES, ContrastiveStage
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.run import TinyWorld, tinyworld_tokenizer
from tinyflamingo.training.shards import cut_rows, joined_gradient, own_rows


class Handwriting(TinyWorld):
    """The source of a run on Omniglot: its drawings, and TinyWorld's texts."""

    preset = "omniglot"

    def __init__(self, folder: str | Path) -> None:
        """folder: the folder of the data set."""
        self.folder = folder

    def material(self, preset: Preset, folder: str | Path) -> tuple[Preset, Tokenizer, tuple]:
        """(preset, tokenizer, the three stages on all alphabets except those held out)."""
        if not preset.handwriting:
            raise UserError(f"preset {preset.name!r} does not learn from Omniglot: choose --preset omniglot")
        characters = [c for c in read_background(self.folder) if c.alphabet not in preset.handwriting.held_out]
        page = sheet(np.concatenate([c.drawings for c in characters]))
        episodes = partial(EpisodesStage, page=page, alphabets=[c.alphabet for c in characters])
        return preset, tinyworld_tokenizer(preset), (partial(DrawingsStage, page=page), LanguageStage, episodes)

    def files(self) -> dict:
        """{file: SHA-256}."""
        return digests(background_files(self.folder))

    def arguments(self) -> dict:
        """A placeholder for the folder, which has another name on another machine."""
        return {"data": "DIR"}


class DrawingsStage(ContrastiveStage):
    """Stage one: a batch has two drawings of each of many classes (a character in one turn)."""

    def __init__(
        self, preset: Preset, rng: np.random.Generator, tokenizer: Tokenizer, frozen: Params, page: Sheet
    ) -> None:
        self.page = page
        super().__init__(preset, rng, tokenizer, frozen)

    def collect(self, rng: np.random.Generator, tokenizer: Tokenizer) -> None:
        """Draw nothing in advance: every step makes new pictures."""

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, Array]:
        """Pictures (2, n, Y, X, 3), drawings of n classes by two people each, and the classes (n,)."""
        classes = rng.choice(len(self.page.ink) // DRAWERS * TURNS, size=self.recipe.batch // 2, replace=False)
        people = np.argsort(rng.random((len(classes), DRAWERS)), axis=1)[:, :2].T
        index = (classes // TURNS * DRAWERS + people).reshape(-1)
        pictures = draw_varied(rng, self.page, index, self.config.vision.side, np.tile(classes % TURNS, 2))
        return pictures.reshape(2, len(classes), *pictures.shape[1:]), classes

    def loss_and_gradient(self, pictures: np.ndarray, classes: Array) -> tuple[float, np.ndarray]:
        """The two-way softmax loss between first and second drawings, and its gradient vector."""
        n = len(classes)

        def embed(params, shard):
            return embed_pictures(params, shard[0], self.config, self.encode)

        def loss_of(head, vectors):
            return contrastive_loss(vectors[:n], vectors[n:], head["log_scale"], classes)

        params = self.optimiser.params
        head = {"log_scale": params["log_scale"]}
        shards = cut_rows(*own_rows(pictures.reshape(2 * n, *pictures.shape[2:])))
        return joined_gradient(embed, loss_of, params, head, shards)

    def sample(self) -> np.ndarray:
        """Varied pictures of all alphabets."""
        rng = np.random.default_rng(0)
        index = np.linspace(0, len(self.page.ink) - 1, STANDARDISE_PICTURES).astype(int)
        return draw_varied(rng, self.page, index, self.config.vision.side, rng.integers(TURNS, size=len(index)))


class EpisodesStage(FlamingoStage):
    """Stage three: few-shot episodes of pictures from a pool, which holds every drawing in every turn."""

    def __init__(
        self,
        preset: Preset,
        rng: np.random.Generator,
        tokenizer: Tokenizer,
        frozen: Params,
        page: Sheet,
        alphabets: list,
    ) -> None:
        """alphabets: the name of every character's alphabet, in the order of the page."""
        assert preset.handwriting is not None  # `Handwriting.material` has refused other presets
        self.page, self.episodes = page, preset.handwriting
        self.alphabets = [np.flatnonzero(np.array(alphabets) == name) for name in sorted(set(alphabets))]
        super().__init__(preset, rng, tokenizer, frozen)

    def collect(self, rng: np.random.Generator) -> Pool:
        """A varied picture of every drawing in every turn: number (character * TURNS + turn) * DRAWERS + drawer."""
        drawings = np.arange(len(self.page.ink)).reshape(-1, 1, DRAWERS)
        index, turns = (x.reshape(-1) for x in np.broadcast_arrays(drawings, np.arange(TURNS)[:, None]))
        parts = np.array_split(np.arange(len(index)), max(1, len(index) // 1024))
        pictures = [draw_varied(rng, self.page, index[p], self.config.vision.side, turns[p]) for p in parts]
        return Pool(pictures=np.concatenate(pictures))

    def classes(self, rng: np.random.Generator, ways: int) -> np.ndarray:
        """The classes of an episode: in most episodes those of one alphabet in one turn, in the others all."""
        fitting = [a for a in self.alphabets if len(a) >= ways]
        if not fitting or rng.random() < self.episodes.mixed:
            return np.arange(len(self.page.ink) // DRAWERS * TURNS)
        return fitting[int(rng.integers(len(fitting)))] * TURNS + int(rng.integers(TURNS))

    def _draw(self, rng, name, longer, place):
        e = self.episodes
        ways = int(rng.integers(e.ways[0], e.ways[1] + 1))
        return "episode", picture_episode(rng, self.classes(rng, ways), ways, e.queries)
