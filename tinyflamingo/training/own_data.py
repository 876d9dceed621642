"""Data of the user's own for a run: options, store, tokenizer, and a preset that fits them.

Serves `training/run.py`. Not here: what the stages do with it (`own_stages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from tinyflamingo.data.readers.decode import ALLOWED
from tinyflamingo.data.store import Store, prepare
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import Tokenizer, fit_tokenizer
from tinyflamingo.training.own_stages import OwnContrastiveStage, OwnFlamingoStage, OwnLanguageStage
from tinyflamingo.training.presets import Preset

FOLDER = "data"  # in the folder of a run
TEXTS = 100_000  # records whose texts the tokenizer is trained on, at most


@dataclass(frozen=True)
class OwnData:
    """Where the data are and how to use them; None: as the preset has it."""

    path: str
    format: str | None = None  # None: found out
    mix: float = 1.0  # share of these data in training, beside TinyWorld; 1: they alone
    side: int | None = None  # pixels a side
    vocab: int | None = None  # pieces, at most
    context: int | None = None  # tokens of a document that training reads
    allow_bad: float = ALLOWED  # share of records

    def __post_init__(self):
        if not 0 < self.mix <= 1:
            raise UserError(f"--mix is {self.mix} but must be above 0 and at most 1 (these data alone)")
        for name, value, low, high in (
            ("--side", self.side, 16, 512),
            ("--vocab", self.vocab, 262, 65_536),
            ("--context", self.context, 8, 1024),
        ):
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value} but must be from {low} to {high}")


def prepare_store(own: OwnData, preset: Preset, folder) -> Store:
    """The data, decoded, in the folder of the run."""
    return prepare(own.path, Path(folder) / FOLDER, own.side or preset.config.vision.side, own.format, own.allow_bad)


def fit(own: OwnData, preset: Preset, store: Store) -> tuple[Preset, Tokenizer]:
    """The preset with the sizes of these data, and the tokenizer of their text."""

    def lines():
        theirs = tokenizer_lines(np.random.default_rng(0)) if own.mix < 1 else ()
        return chain(store.texts(TEXTS), theirs)

    tokenizer = fit_tokenizer(lines, own.vocab or preset.config.language.vocab_size)
    config = replace(
        preset.config,
        vision=replace(preset.config.vision, side=store.side),
        language=replace(preset.config.language, vocab_size=len(tokenizer)),
        text_tower=replace(preset.config.text_tower, vocab_size=len(tokenizer)),
    )
    preset = replace(preset, config=config)
    if own.context is not None:
        flamingo = replace(preset.flamingo, lengths=(own.context,) * len(preset.flamingo.lengths))
        preset = replace(preset, flamingo=flamingo, language=replace(preset.language, length=own.context))
    return preset, tokenizer


def own_stages(own: OwnData, store: Store) -> tuple:
    """The three stages, as functions (preset, rng, tokenizer, frozen) -> stage."""
    return (
        partial(OwnContrastiveStage, store=store, mix=own.mix),
        partial(OwnLanguageStage, store=store, mix=own.mix),
        partial(OwnFlamingoStage, store=store, mix=own.mix, folder=store.folder),
    )
