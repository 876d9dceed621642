"""The user's own data for a run: options, store, tokenizer, and a preset that fits the data.

Serves chapter §1, §2 and §4. `OwnSource` is the source of `training/run.py` in place of TinyWorld. Not here: the
stages on these data (`stages.py`).
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
TEXTS = 100_000  # most records whose texts train the tokenizer


@dataclass(frozen=True)
class OwnData:
    """Where the data are and how to use them. None: the value of the preset."""

    path: str
    format: str | None = None  # None: detected from the files
    mix: float = 1.0  # share of these data in training, the rest is TinyWorld; 1: these data alone
    side: int | None = None  # side of a picture in pixels
    vocab: int | None = None  # most pieces of the tokenizer
    context: int | None = None  # most tokens of a document in training
    allow_bad: float = ALLOWED  # largest share of records that cannot be read

    def __post_init__(self) -> None:
        if not 0 < self.mix <= 1:
            raise UserError(f"--mix is {self.mix} but must be above 0 and at most 1 (1: these data alone)")
        for name, value, low, high in (
            ("--side", self.side, 16, 512),
            ("--vocab", self.vocab, 262, 65_536),
            ("--context", self.context, 8, 1024),
        ):
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value} but must be from {low} to {high}")


def prepare_store(own: OwnData, preset: Preset, folder: str | Path) -> Store:
    """Decode the data into the folder of the run."""
    vision = preset.config.vision
    side = own.side or vision.side
    return prepare(own.path, Path(folder) / FOLDER, side, own.format, own.allow_bad, vision.preparation)


def fit(own: OwnData, preset: Preset, store: Store) -> tuple[Preset, Tokenizer]:
    """The preset with the sizes of these data, and the tokenizer of their text."""

    def lines():
        tinyworld = tokenizer_lines(np.random.default_rng(0)) if own.mix < 1 else ()
        return chain(store.texts(TEXTS), tinyworld)

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
    """The user's own data, alone or mixed with TinyWorld."""

    def __init__(self, own: OwnData) -> None:
        self.own, self.options = own, asdict(own)

    def prepare(self, preset: Preset, folder: str | Path) -> None:
        """Decode the data into the folder of the run."""
        prepare_store(self.own, preset, folder)

    def clear(self, folder: str | Path) -> None:
        """Remove the decoded data."""
        shutil.rmtree(Path(folder) / FOLDER, ignore_errors=True)

    def material(self, preset: Preset, folder: str | Path) -> tuple[Preset, Tokenizer, tuple]:
        """(preset with the sizes of the data, tokenizer, stages)."""
        store = Store(Path(folder) / FOLDER)
        preset, tokenizer = fit(self.own, preset, store)
        stages = (
            partial(OwnContrastiveStage, store=store, mix=self.own.mix),
            partial(OwnLanguageStage, store=store, mix=self.own.mix),
            partial(OwnFlamingoStage, store=store, mix=self.own.mix),
        )
        return preset, tokenizer, stages

    def arguments(self) -> dict:
        """The path, and the options that differ from their defaults."""
        defaults = asdict(OwnData(self.own.path))
        changed = {n.replace("_", "-"): value for n, value in asdict(self.own).items() if value != defaults[n]}
        return {"data": self.own.path} | changed


def source_of(own: OwnData | None, folder: str | Path, resume: bool) -> TinyWorld:
    """The source of a run: the given data, or else the data of the resumed run in the folder, or else TinyWorld."""
    if own is None and resume and (Path(folder) / STATE).exists():
        options = load_state(folder)[0].data
        own = OwnData(**options) if options else None
    return OwnSource(own) if own else TinyWorld()
