"""Stage two: the language model learns from text alone (chapter §4).

Documents are packed into rows; a token sees its own document only. The curriculum matters most: the
first few hundred steps are mostly rows of random tokens that repeat, and the model learns to copy
from its context; then the real mixture follows (docs/deviations.md).

Not here: the documents (`data/tinyworld/text.py`) and the model (`model/language_model.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import autograd.numpy as anp
import numpy as np

from tinyflamingo.data.tinyworld.task_documents import text_task
from tinyflamingo.data.tinyworld.text import episode, random_repeat, text_document
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.language_model import init_language_model, language_model
from tinyflamingo.model.tokenizer import BOS, EOS, IMAGE, PAD, Tokenizer
from tinyflamingo.ops.tree import half_precision
from tinyflamingo.ops.types import Params
from tinyflamingo.training.losses import shares_of, token_losses
from tinyflamingo.training.muon import Muon
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.ranks import world
from tinyflamingo.training.shards import cut_rows, own_jobs, summed_gradient


class LanguageStage:
    """Data, parameters and one step of the stage, for `training/run.py`."""

    name = "language"

    def __init__(self, preset: Preset, rng: np.random.Generator, tokenizer: Tokenizer, frozen: Params) -> None:
        self.config, self.recipe, self.tokenizer = preset.config.language, preset.language, tokenizer
        self.steps = self.recipe.steps
        # Pieces of the random rows: words and syllables, without bytes and reserved ids.
        self.pieces = np.array([i for i in range(IMAGE + 1, len(tokenizer)) if not tokenizer.piece(i).startswith("<")])
        self.optimiser = Muon(self.initial(rng), self.recipe.optimiser)

    def initial(self, rng: np.random.Generator) -> Params:
        """The parameters at the start: fresh ones."""
        return init_language_model(rng, self.config)

    def document(self, rng: np.random.Generator, step: int, longer: int = 1) -> tuple[list[int], list[float]]:
        """One document from `<BOS>` to `<EOS>`: its ids, and the loss weight of each.

        longer: factor on the usual length of repeats, episodes, tasks and quizzes.
        """
        repeats, episodes, tasks = self.shares(step)
        draw = rng.random()
        if draw < repeats:
            return self.repeat(rng, longer)
        if draw < repeats + episodes:
            items = episode(rng, 18 * longer)
        else:
            items = (text_task if draw < repeats + episodes + tasks else text_document)(rng, longer=longer)
        sequence = encode_document(items, self.tokenizer, complete=False)
        return [*sequence.tokens, EOS], [*sequence.weights, 1.0]

    def shares(self, step: int) -> tuple[float, float, float]:
        """The shares of random repeats, of few-shot episodes and of tasks in this step."""
        return next(tuple(shares) for until, *shares in self.recipe.phases if step < until)

    def repeat(self, rng: np.random.Generator, longer: int = 1) -> tuple[list[int], list[float]]:
        """Random tokens, twice. Only the second copy has a loss: the first copy cannot be predicted."""
        shortest, longest = self.recipe.repeat_lengths
        length = int(rng.integers(shortest, longest * longer))
        ids = random_repeat(rng, self.pieces, length, self.tokenizer)
        return [BOS, *ids, EOS], [0.0] * (1 + len(ids) // 2) + [1.0] * (len(ids) // 2 + 1)

    def batch(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This rank's packed rows: tokens, loss weights, and visible_from, the first position of each token's document.

        All (B, T). `<BOS>` has no loss, because the start of a document cannot be predicted.
        """
        r = self.recipe
        longer = r.longer if step >= r.long_from and step % r.long_every == r.long_every - 1 else 1
        T, jobs = r.length * longer, own_jobs(rng, list(range(max(1, r.rows // longer))))
        tokens, weights = np.full((len(jobs), T), PAD), np.zeros((len(jobs), T), np.float32)
        visible_from = np.zeros((len(jobs), T), int)
        for b, (row, own) in enumerate(jobs):
            place, documents = 0, self.documents(own, step, row, longer)
            while place < T:
                ids, learned = next(documents)
                here = slice(place, min(T, place + len(ids)))
                n = here.stop - here.start
                tokens[b, here], weights[b, here], visible_from[b, here] = ids[:n], learned[:n], place
                place += n
        return tokens, weights, visible_from

    def documents(self, rng: np.random.Generator, step: int, row: int, longer: int = 1) -> Iterator[tuple]:
        """The documents of one row of a step, without end."""
        while True:
            yield self.document(rng, step, longer)

    def prepare(self, rng: np.random.Generator) -> None:
        """Nothing to prepare."""

    def gradient(self, rng: np.random.Generator, step: int) -> tuple[np.ndarray, dict]:
        """The gradient vector of one batch, and the numbers for the log."""
        loss, gradient = self.loss_and_gradient(*self.batch(rng, step))
        return gradient, {"loss": loss}

    def loss_and_gradient(
        self, tokens: np.ndarray, weights: np.ndarray, visible_from: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """The mean loss of a batch and its gradient vector."""
        shares = shares_of(weights[:, 1:], world().allreduce(np.sum(weights[:, 1:]).reshape(1)))

        def loss_of(params, shard):
            tokens, shares, visible_from = shard
            needed = np.flatnonzero(shares)
            logits = language_model(params, tokens[:, :-1], self.config, visible_from[:, :-1], needed=needed)
            return anp.sum(token_losses(logits, tokens[:, 1:].ravel()[needed]) * shares.ravel()[needed]), ()

        loss, _, gradient = summed_gradient(loss_of, self.optimiser.params, cut_rows(tokens, shares, visible_from))
        return loss, gradient

    def result(self) -> Params:
        """The language model, which the next stage keeps frozen."""
        return half_precision({"language": self.optimiser.params})
