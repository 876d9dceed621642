"""The user's own data for a run: options, store, tokenizer, and a preset that fits the data.

Serves chapter §1, §2 and §4. `OwnSource` is the source of `training/run.py` in place of TinyWorld. Not here: the
stages on these data (`stages.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tinyflamingo.data.held_out import MODES
from tinyflamingo.data.items import text_of
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.decode import ALLOWED
from tinyflamingo.data.readers.record import MediaFile, Record
from tinyflamingo.data.store import Store, prepare, remove
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.data.video import FPS
from tinyflamingo.errors import UserError, complain
from tinyflamingo.language import _
from tinyflamingo.model.interleave import encode_document
from tinyflamingo.model.tokenizer import SMALLEST, Tokenizer, fit_tokenizer, least_pieces
from tinyflamingo.own_data.stages import OwnContrastiveStage, OwnFlamingoStage, OwnLanguageStage
from tinyflamingo.own_data.start import check_sizes, fitted, knows_tinyworld, load_start, preset_of, weights_of
from tinyflamingo.training.flamingo_stage import cut
from tinyflamingo.training.presets import Preset, get_preset
from tinyflamingo.training.ranks import world
from tinyflamingo.training.run import TinyWorld, plan
from tinyflamingo.training.state import STATE, load_state

FOLDER, TEST = "data", "test"  # in the folder of a run: the store of its data, and that of --test
TEXTS = 100_000  # most records whose texts train the tokenizer
LOOKED_AT = 200  # records of which it is checked whether the context holds their learned text
FULL = 2000  # records for which a run makes all steps of its preset
FEWEST = 200  # steps of a stage, at least
MIX = 0.7  # share of the data in a run that goes on from a checkpoint which knows TinyWorld
CONTINUED = 600  # steps of a run that goes on from a checkpoint


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
    start: str | None = None  # checkpoint from which the run goes on; None: it begins from nothing
    start_sha256: str | None = None  # of the checkpoint's weights
    steps: int | None = None  # of stage three; the other stages follow in proportion
    hold_out: str = "picture"  # what stays together when records are held out (`data/held_out.py`)
    test: str | None = None  # a separate test set; then nothing is held out
    augment: str = "on"  # random changes of the pictures in stage one; "off": none
    fps: float = FPS  # frames for each second of a video

    def __post_init__(self) -> None:
        if self.hold_out not in MODES or self.augment not in ("on", "off"):
            raise UserError(f"--hold-out must be one of {', '.join(MODES)}, and --augment on or off")
        if not 0 < self.fps <= 120:
            raise UserError(f"--fps is {self.fps:g} but must be above 0 and at most 120")
        if not 0 < self.mix <= 1:
            raise UserError(f"--mix is {self.mix} but must be above 0 and at most 1 (1: these data alone)")
        for name, value, low, high in (
            ("--side", self.side, 16, 512),
            ("--vocab", self.vocab, SMALLEST, 65_536),
            ("--context", self.context, 8, 1024),
            ("--steps", self.steps, 1, 1_000_000),
        ):
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value} but must be from {low} to {high}")


def prepare_store(own: OwnData, vision: Any, folder: str | Path) -> Store:
    """Decode the data, and the test set if there is one, into the folder of the run. vision: of the encoder."""
    folder, side, preparation = Path(folder), own.side or vision.side, vision.preparation
    hold_out = "nothing" if own.test else own.hold_out
    store = prepare(own.path, folder / FOLDER, side, own.format, own.allow_bad, preparation, own.fps, hold_out)
    if own.test:
        prepare(own.test, folder / TEST, side, None, own.allow_bad, preparation, own.fps, "nothing")
    return store


def check_vocabulary(own: OwnData, preset: Preset) -> None:
    """`UserError` if the tokenizer cannot have as few pieces. Only texts are read: no picture is decoded.

    Without any usable record there is no text either: decoding then counts what is wrong.
    """
    texts = [] if own.start else list(islice(texts_of(own.path, own.format), TEXTS))
    if texts:
        _tokenizer(own, preset, lambda: texts)


def about_texts(documents: list[list]) -> Iterator[str]:
    """Lines about texts: how many pieces they need, and how many of them the context of training cuts.

    documents: the items of each record, with None for a medium.
    """
    usual = get_preset("toy").config.language.vocab_size
    texts = [text_of(item) for items in documents for item in items if item is not None]
    if not texts:
        return
    needed = least_pieces(texts)
    yield _(f"vocabulary: the letters need at least {needed} pieces (--vocab; the preset toy has {usual})")
    with suppress(UserError):  # a few letters are not enough for a tokenizer
        yield from _about_context(documents, fit_tokenizer(lambda: texts, max(needed, usual)))


def _about_context(documents, tokenizer):
    context = max(dataset.length for dataset in get_preset("toy").flamingo.datasets)
    if longer := sum(len(encode_document(items, tokenizer).tokens) > context for items in documents):
        yield _(
            f"texts that are longer than the context of training ({context} tokens) and will be cut: {longer} of "
            f"{len(documents)} (--context)"
        )


def texts_of(path: str | Path, name: str | None = None) -> Iterator[str]:
    """All texts of a data set, in order."""
    for record in read_data(path, name)[1]:
        if isinstance(record, Record):
            for item in record.items:
                if not isinstance(item, MediaFile):
                    yield text_of(item)


def _tokenizer(own, preset, texts) -> Tokenizer:
    def lines():
        tinyworld = tokenizer_lines(np.random.default_rng(0)) if own.mix < 1 else ()
        return chain(texts(), tinyworld)

    return fit_tokenizer(lines, own.vocab or preset.config.language.vocab_size)


def scaled(preset: Preset, factor: float) -> Preset:
    """The preset with this share of the steps of every stage, also of the phases of stage two."""

    def times(steps):
        return steps if math.isinf(steps) else max(1, round(factor * steps))

    language = preset.language
    phases = tuple((times(until), *shares) for until, *shares in language.phases)
    return replace(
        preset,
        contrastive=replace(preset.contrastive, steps=times(preset.contrastive.steps)),
        language=replace(language, steps=times(language.steps), long_from=times(language.long_from), phases=phases),
        flamingo=replace(preset.flamingo, steps=times(preset.flamingo.steps)),
    )


def with_steps(own: OwnData, preset: Preset, records: int) -> Preset:
    """The preset with the steps that the user gave, or that fit the number of records: few pictures are soon learned
    by heart."""
    usual = min(preset.flamingo.steps, CONTINUED) if own.start else preset.flamingo.steps
    steps = own.steps or max(min(usual, FEWEST), round(usual * min(1.0, (records / FULL) ** 0.5)))
    return scaled(preset, steps / preset.flamingo.steps)


def with_context(own: OwnData, preset: Preset) -> Preset:
    """The preset with the longest document that the user gave."""
    if own.context is None:
        return preset
    datasets = tuple(replace(dataset, length=own.context) for dataset in preset.flamingo.datasets)
    flamingo, language = replace(preset.flamingo, datasets=datasets), replace(preset.language, length=own.context)
    return replace(preset, flamingo=flamingo, language=language)


def fit(own: OwnData, preset: Preset, store: Store) -> tuple[Preset, Tokenizer]:
    """The preset with the sizes of these data, and the tokenizer of their text."""
    tokenizer = _tokenizer(own, preset, lambda: store.texts(TEXTS))
    config = replace(
        preset.config,
        vision=replace(preset.config.vision, side=store.side),
        language=replace(preset.config.language, vocab_size=len(tokenizer)),
        text_tower=replace(preset.config.text_tower, vocab_size=len(tokenizer)),
    )
    return with_context(own, with_steps(own, replace(preset, config=config), len(store.training))), tokenizer


def check_context(preset: Preset, tokenizer: Tokenizer, store: Store) -> None:
    """`UserError` if in all records the texts before the learned one fill the context; a line if in some."""
    longest = max(dataset.length for dataset in preset.flamingo.datasets)
    numbers = store.training[:: max(1, len(store.training) // LOOKED_AT)].tolist()
    sequences = [encode_document(store.items(n), tokenizer) for n in numbers]
    lost = np.mean([not any(cut(sequence, longest).weights) for sequence in sequences])
    need = 2 + max(np.argmax(np.array(sequence.weights) > 0) for sequence in sequences)
    if lost == 1:
        raise UserError(
            f"in all records the context of {longest} tokens ends before the text that is learned: give "
            f"--context {need} or more"
        )
    if lost and world().rank == 0:
        complain(
            f"in {lost:.0%} of the records the context of {longest} tokens ends before the text that is learned; "
            f"--context {need} holds all of them"
        )


class OwnSource(TinyWorld):
    """The user's own data, alone or mixed with TinyWorld."""

    def __init__(self, own: OwnData) -> None:
        self.own, self.options = own, asdict(own)
        self.preset = preset_of(load_start(own.start, own.start_sha256)) if own.start else "toy"

    def prepare(self, preset: Preset, folder: str | Path) -> None:
        """Check the vocabulary, then decode the data into the folder of the run."""
        own = self.own
        if own.test:
            read_data(own.test)  # an error now, not after the other data are decoded
        check_vocabulary(own, preset)
        config = load_start(own.start, own.start_sha256).config if own.start else preset.config
        prepare_store(own, config.vision, folder)

    def clear(self, folder: str | Path) -> None:
        """Remove the decoded data, and no other file."""
        for name in (FOLDER, TEST) if self.own.test else (FOLDER,):
            remove(Path(folder) / name)

    def plan(self, preset: Preset) -> str:
        """What the run does, one line for each stage."""
        if not self.own.start:
            return plan(preset)
        return _(f"flamingo, {preset.flamingo.steps} steps: resampler and gated blocks go on from {self.own.start}")

    def material(self, preset: Preset, folder: str | Path) -> tuple[Preset, Tokenizer, tuple]:
        """(preset with the sizes of the data, tokenizer, stages)."""
        store = Store(Path(folder) / FOLDER)
        if self.own.start:
            return self._continued(preset, store, load_start(self.own.start, self.own.start_sha256))
        preset, tokenizer = fit(self.own, preset, store)
        check_context(preset, tokenizer, store)
        stages = (
            partial(OwnContrastiveStage, store=store, mix=self.own.mix, augment=self.own.augment == "on"),
            partial(OwnLanguageStage, store=store, mix=self.own.mix),
            partial(OwnFlamingoStage, store=store, mix=self.own.mix),
        )
        return preset, tokenizer, stages

    def _continued(self, preset, store, model):
        """The material of a run that goes on from a model."""
        preset = with_context(self.own, with_steps(self.own, fitted(preset, model), len(store.training)))
        check_context(preset, model.tokenizer, store)
        stage = partial(OwnFlamingoStage, store=store, mix=self.own.mix, start=model)
        return preset, model.tokenizer, (stage,)

    def arguments(self) -> dict:
        """The path, and the options that differ from their defaults."""
        defaults = asdict(OwnData(self.own.path)) | {"start": self.own.start, "start_sha256": self.own.start_sha256}
        changed = {n.replace("_", "-"): value for n, value in asdict(self.own).items() if value != defaults[n]}
        return {"from": self.own.start, "data": self.own.path} | changed


OPTIONS = tuple(f.name for f in fields(OwnData) if f.name not in ("path", "start_sha256"))  # of the command line


def own_data(path: str, preset: str | None, options: dict) -> OwnData:
    """The data at a path with the given options. `UserError` for sizes that do not fit the checkpoint in `start`."""
    own = OwnData(path, **options)
    if own.start is None:
        return own
    model = load_start(own.start)
    check_sizes(model, own.start, preset, own.side, own.vocab)
    mix = options.get("mix", MIX if knows_tinyworld(model) else 1.0)
    return replace(own, mix=mix, start_sha256=weights_of(own.start))


def source_of(own: OwnData | None, folder: str | Path, resume: bool) -> TinyWorld:
    """The source of a run: the given data, or else the data of the resumed run in the folder, or else TinyWorld."""
    if own is None and resume and (Path(folder) / STATE).exists():
        options = load_state(folder)[0].data
        own = OwnData(**options) if options else None
    return OwnSource(own) if own else TinyWorld()
