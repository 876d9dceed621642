"""Data of the user's own for a run: options, store, tokenizer, and a preset that fits them.

`OwnSource` is what `training/run.py` learns from in place of TinyWorld. Not here: what the stages do with the
data (`stages.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from tinyflamingo.data.readers.decode import ALLOWED
from tinyflamingo.data.store import Store, prepare
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import Tokenizer, fit_tokenizer
from tinyflamingo.own_data.stages import OwnContrastiveStage, OwnFlamingoStage, OwnLanguageStage
from tinyflamingo.training.presets import Preset
from tinyflamingo.training.run import TinyWorld
from tinyflamingo.training.state import STATE, load_state

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
        datasets = tuple(replace(dataset, length=own.context) for dataset in preset.flamingo.datasets)
        flamingo, language = replace(preset.flamingo, datasets=datasets), replace(preset.language, length=own.context)
        preset = replace(preset, flamingo=flamingo, language=language)
    return preset, tokenizer


class OwnSource(TinyWorld):
    """Data of the user's own, alone or beside TinyWorld."""

    def __init__(self, own: OwnData):
        self.own, self.options = own, asdict(own)

    def prepare(self, preset: Preset, folder):
        """Decodes the data into the folder of the run."""
        prepare_store(self.own, preset, folder)

    def clear(self, folder):
        """Removes the decoded data."""
        shutil.rmtree(Path(folder) / FOLDER, ignore_errors=True)

    def material(self, preset: Preset, folder):
        """(preset with the sizes of the data, tokenizer, stages)."""
        store = Store(Path(folder) / FOLDER)
        preset, tokenizer = fit(self.own, preset, store)
        stages = (
            partial(OwnContrastiveStage, store=store, mix=self.own.mix),
            partial(OwnLanguageStage, store=store, mix=self.own.mix),
            partial(OwnFlamingoStage, store=store, mix=self.own.mix, folder=store.folder),
        )
        return preset, tokenizer, stages

    def arguments(self) -> dict:
        """The options that differ from their defaults, and the path."""
        defaults = asdict(OwnData(self.own.path))
        changed = {n.replace("_", "-"): value for n, value in self.options.items() if value != defaults[n]}
        return {"data": self.own.path} | changed


def source_of(own: OwnData | None, folder, resume: bool) -> TinyWorld:
    """What a run learns from: the data that were given, else those of the run in the folder that is resumed."""
    if own is None and resume and (Path(folder) / STATE).exists():
        options = load_state(folder)[0].data
        own = OwnData(**options) if options else None
    return OwnSource(own) if own else TinyWorld()
