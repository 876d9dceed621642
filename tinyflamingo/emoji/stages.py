"""The three stages on emoji, with TinyWorld mixed in: other documents, and in stage one two more losses.

Chapter §1, §2 and §4. The run goes on from the shipped checkpoint, which knows TinyWorld, so it is short (docs/emoji.md
has its minutes). In stage one the drawings of a concept by two artists are each other's caption, and its name is a
caption of both; a third loss keeps the features of TinyWorld's pictures. Stage two adds the names to TinyWorld's texts.
Stage three learns from few-shot episodes of concepts with invented words, and from drawings with names.

Not here: the losses of TinyWorld's stages (`training/`), the packages (`packages.py`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np

from tinyflamingo import ops
from tinyflamingo.checkpoint import load_checkpoint, shipped_checkpoint
from tinyflamingo.data.augment import augmented, disguised
from tinyflamingo.data.items import Quiet
from tinyflamingo.data.tinyworld.language import PICTURE_WORDS
from tinyflamingo.data.tinyworld.pool import Medium, Pool
from tinyflamingo.emoji.packages import TAUGHT, Concepts, package_files, read_concepts, split
from tinyflamingo.errors import UserError
from tinyflamingo.files import digests
from tinyflamingo.model.contrastive import START_TEMPERATURE, contrastive_loss, embed_captions, unit
from tinyflamingo.model.flamingo import TrainedFlamingo
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.tokenizer import EOS, Tokenizer
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.contrastive_stage import ContrastiveStage, equal_ids, pad_captions
from tinyflamingo.training.flamingo_stage import FlamingoStage
from tinyflamingo.training.language_stage import LanguageStage
from tinyflamingo.training.presets import EmojiRecipe, Preset
from tinyflamingo.training.run import TinyWorld
from tinyflamingo.training.shards import cut_rows, joined_gradient, own_rows

CHUNK = 512  # pictures that are changed at a time


class Emoji(TinyWorld):
    """The source of a run on emoji: the packages, TinyWorld, and the shipped checkpoint as the start."""

    preset = "emoji"

    def __init__(self, folder: str | Path) -> None:
        """folder: with the packages."""
        self.folder = folder

    def material(self, preset: Preset, folder: str | Path) -> tuple[Preset, Tokenizer, tuple]:
        """(preset, tokenizer, the three stages on all concepts except those that are asked)."""
        if not preset.emoji:
            raise UserError(f"preset {preset.name!r} does not learn from emoji: choose --preset emoji")
        start = load_checkpoint(shipped_checkpoint())
        known, _ = split(read_concepts(self.folder, start.config.vision.side, preset.emoji.language))
        given: dict[str, Any] = {"known": known.for_training(), "start": start, "recipe": preset.emoji}
        stages = tuple(partial(stage, **given) for stage in (DrawingsStage, NamesStage, EpisodesStage))
        return replace(preset, config=start.config), start.tokenizer, stages

    def files(self) -> dict:
        """{package: SHA-256}."""
        return digests(package_files(self.folder))

    def arguments(self) -> dict:
        """A placeholder for the folder, which has another name on another machine."""
        return {"data": "DIR"}


def name_text(name: str) -> str:
    """A name as a caption."""
    return f"{name.lower()}."


class OnEmoji:
    """What all three stages have beside the arguments of the stage on TinyWorld."""

    def __init__(self, *args: Any, known: Concepts, start: TrainedFlamingo, recipe: EmojiRecipe) -> None:
        """known: the concepts, with the drawings of training; start: the model from which the run goes on."""
        self.known, self.start, self.emoji = known, start, recipe
        super().__init__(*args)


class DrawingsStage(OnEmoji, ContrastiveStage):
    """Stage one: a batch has two artists' drawings of each of many concepts, and families of TinyWorld."""

    def initial(self, rng: np.random.Generator) -> Params:
        """Both towers of the start. The temperature is that of a new tower: drawings are not yet near each other."""
        temperature = {"log_scale": np.array(-np.log(START_TEMPERATURE), np.float32)}
        return {"vision": self.start.frozen["vision"]} | self.start.frozen["contrastive"] | temperature

    def collect(self, rng: np.random.Generator, tokenizer: Tokenizer) -> None:
        """The names as ids, and TinyWorld's families."""
        context = self.config.text_tower.context
        self.names = [tokenizer.encode(name_text(name))[:context] for name in self.known.names]
        super().collect(rng, tokenizer)

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, list[list[int]]]:
        """Pixels (2 n + m, Y, X, 3) and captions: n concepts by one artist, the same by the other, m of TinyWorld."""
        concepts = rng.choice(len(self.names), size=self.emoji.concepts, replace=False)
        artists = np.argsort(rng.random((len(concepts), TAUGHT)), axis=1)
        drawings = np.concatenate([self.known.pictures[concepts, a] for a in artists.T])
        drawings = disguised(rng, augmented(rng, drawings))
        pictures, captions = super().batch(rng)
        return np.concatenate([drawings, pictures]), [self.names[i] for i in concepts] * TAUGHT + captions

    def loss_and_gradient(self, pictures: np.ndarray, captions: list[list[int]]) -> tuple[float, np.ndarray]:
        """The two-way softmax loss between drawings, plus that between all pictures and captions; its gradient.

        A third term keeps TinyWorld: the features of its pictures should stay those of the start.
        """
        tokens, mask = pad_captions(captions)
        ids, n, e = equal_ids(map(tuple, captions)), self.emoji.concepts, self.emoji
        old = np.arange(len(pictures)) >= n * TAUGHT

        def embed(params, shard):
            pixels, tokens, mask, old = shard
            features, pooled = self.encode(params["vision"], pixels, self.config.vision)
            picture_vectors = unit(ops.linear(pooled, params["picture_projection"]))
            caption_vectors = embed_captions(params, tokens, mask, self.config)
            return anp.concatenate([picture_vectors, caption_vectors, self.moved(features, pixels, old)], axis=1)

        def loss_of(head, vectors):
            J = self.config.text_tower.joint_width
            drawn, written, moved = anp.split(vectors, (J, 2 * J), axis=1)
            between = contrastive_loss(drawn[:n], drawn[n : 2 * n], head["log_scale"], ids[:n])
            named = contrastive_loss(drawn, written, head["log_scale"], ids)
            return between + named * np.float32(e.captions) + anp.sum(moved) * np.float32(e.keep / max(1, old.sum()))

        params = self.optimiser.params
        head = {"log_scale": params["log_scale"]}
        return joined_gradient(embed, loss_of, params, head, cut_rows(*own_rows(pictures, tokens, mask, old)))

    def moved(self, features: Array, pixels: np.ndarray, old: np.ndarray) -> Array:
        """The mean square distance of features (B, S, Dv) from those of the start: (B, 1).

        `old` (B,) is True for TinyWorld's pictures, which are the last ones of a batch; the others get 0. The unit is
        the standard deviation of a channel.
        """
        new = int(np.sum(~old))
        before, _ = self.encode(self.start.frozen["vision"], pixels[new:], self.config.vision)
        change = (features[new:] - before) * self.start.frozen["feature_scale"]
        return anp.concatenate([np.zeros((new, 1), change.dtype), anp.mean(change**2, axis=(1, 2))[:, None]])

    def constants(self) -> Params:
        """The constants that standardise the features are those of the start."""
        return {name: self.start.frozen[name] for name in ("feature_mean", "feature_scale")}


class NamesStage(OnEmoji, LanguageStage):
    """Stage two: TinyWorld's texts, and the names of emoji as captions."""

    def initial(self, rng: np.random.Generator) -> Params:
        """The language model of the start."""
        return self.start.frozen["language"]

    def document(self, rng: np.random.Generator, step: int, longer: int = 1) -> tuple[list[int], list[float]]:
        """One document from `<BOS>` to `<EOS>`: its ids, and the loss weight of each."""
        if rng.random() >= self.emoji.texts:
            return super().document(rng, step, longer)
        name = self.known.names[int(rng.integers(len(self.known.names)))]
        sequence = encode_document([Quiet("Output:"), name_text(name)], self.tokenizer, complete=False)
        return [*sequence.tokens, EOS], [*sequence.weights, 1.0]


class EpisodesStage(OnEmoji, FlamingoStage):
    """Stage three: episodes and names of emoji, beside TinyWorld's data sets. The pool has both worlds' pictures."""

    first = 0  # number of the first drawing in the pool

    def initial(self, rng: np.random.Generator) -> Params:
        """Resampler and gated blocks of the start."""
        return self.start.params

    def collect(self, rng: np.random.Generator) -> Pool:
        """TinyWorld's pool, and behind its pictures the views of every drawing: concept, then artist, then view."""
        pool = super().collect(rng)
        views = np.repeat(self.known.pictures.reshape(-1, *self.known.pictures.shape[2:]), self.emoji.views, axis=0)
        changed = [augmented(rng, views[i : i + CHUNK]) for i in range(0, len(views), CHUNK)]
        self.first = len(pool.scenes)
        pool.pictures = np.concatenate([pool.pictures, *changed])
        return pool

    def result(self) -> Params:
        """The trained parameters, moved a part of the way back to those of the start.

        Such a mean forgets less than training alone, and loses little of what is new (Wortsman et al. 2022).
        """
        result = super().result()
        before, after = flatten(self.start.params), flatten(result["params"])
        mean = before + np.float32(self.emoji.moved) * (after - before)
        return result | {"params": view_tree(mean, result["params"])}

    def view(self, rng: np.random.Generator, concept: int, artist: int) -> Medium:
        """A random view of a drawing."""
        drawing = concept * TAUGHT + artist
        return Medium("picture", self.first + drawing * self.emoji.views + int(rng.integers(self.emoji.views)))

    def _draw(self, rng, name, longer, place):
        if name == "emoji episodes":
            return "episode", self.episode(rng)
        if name == "emoji names":
            concept = int(rng.integers(len(self.known.names)))
            picture = self.view(rng, concept, int(rng.integers(TAUGHT)))
            return "emoji", [picture, Quiet("Output:"), name_text(self.known.names[concept])]
        return super()._draw(rng, name, longer, place)

    def episode(self, rng: np.random.Generator) -> list:
        """Examples of some concepts in random order, each followed by the invented word of its concept, then queries.

        The artist of an example is random. A query is by the artist who drew the fewer examples of its concept. The
        first occurrence of a word has no loss, because it cannot be predicted.
        """
        e = self.emoji
        ways, shots = (int(rng.integers(low, high + 1)) for low, high in (e.ways, e.shots))
        concepts = rng.choice(len(self.known.names), ways, replace=False)
        words = [f"{word}." for word in rng.choice(PICTURE_WORDS, ways, replace=False)]
        artists = rng.integers(TAUGHT, size=(ways, shots))
        items: list = []
        shown: set = set()
        for place in rng.permutation(ways * shots):
            way, shot = divmod(int(place), shots)
            items += [
                self.view(rng, concepts[way], artists[way, shot]),
                words[way] if way in shown else Quiet(words[way]),
            ]
            shown.add(way)
        for way in rng.integers(ways, size=e.queries):
            rarer = int(artists[way].mean() < 0.5)
            items += [self.view(rng, concepts[way], rarer), words[way]]
        return items
