"""A user's data set prepared for training: decoded once, kept on disk, read one record at a time.

Serves all stages that train on own data (chapter §2 and §4). A store is a folder with four files:
`records.jsonl` (the items of each record; media by number), `pixels.u8` (all frames, one after another),
`index.npz` (where each record and each medium begins, groups and classes) and `store.json`. `store.json` is
written last: a folder without it is not a store. Only the index is in memory: 32 bytes for each record, 8 for each
medium. A medium that several records show is decoded and kept once; while a store is made, the keys of all media are in
memory too. Records with equal texts are one class, if the data name no class. `held_out.py` decides which records
training never sees.
The order of records is a function of seed and count (`shuffled`), so a resumed run needs only its step.

Not here: formats (`readers/`), features of the frozen encoder (`own_data/features.py`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo.data.held_out import held_out
from tinyflamingo.data.items import Quiet, text_of
from tinyflamingo.data.preparation import PAD_TO_SQUARE, Preparation
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.decode import ALLOWED, Tally, decoded
from tinyflamingo.data.readers.record import MediaFile, Record, Skipped
from tinyflamingo.data.video import FPS
from tinyflamingo.errors import UserError
from tinyflamingo.files import digest, open_regular, read_json, replacing, write_atomically
from tinyflamingo.language import _

PREPROCESSING = 2  # to be raised if the same file gives other pixels: stores and features are then made again
RECORDS, PIXELS, INDEX, CARD = "records.jsonl", "pixels.u8", "index.npz", "store.json"
FEATURES = "features-*.f16"  # of an encoder that has read the pixels (`own_data/features.py`)


@dataclass(frozen=True)
class Stored:
    """A medium of a store, or some of its frames: its number, the count of frames (1: a picture), the first frame."""

    index: int
    frames: int
    first: int = 0


@functools.lru_cache(maxsize=4)
def _order(n, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(n)


def shuffled(n: int, seed: int, count: int) -> int:
    """The number of the record that is drawn as the `count`-th. Each epoch draws all n records, in a new order."""
    epoch, place = divmod(count, n)
    return int(_order(n, seed, epoch)[place])


class Store:
    """An open store. `len(store)`: number of records; `card`: the content of `store.json`."""

    def __init__(self, folder: str | Path) -> None:
        """Raises `UserError` if the folder does not hold the files of a finished store."""
        self.folder = Path(folder)
        try:
            self.card = read_json(self.folder / CARD)
            with open_regular(self.folder / INDEX) as file, np.load(file, allow_pickle=False) as index:
                self.offsets, self.firsts, self.same_picture = index["offsets"], index["firsts"], index["groups"]
                self.groups, self.classes = index["sources"], index["classes"]
            self.side = int(self.card["side"])
            shape = (int(self.firsts[-1]), self.side, self.side, 3)
            with open_regular(self.folder / PIXELS) as file:
                self.pixels = np.memmap(file, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)
            self.records = open_regular(self.folder / RECORDS)
        except Exception as error:  # a damaged file can fail anywhere inside zipfile, JSON or NumPy
            raise UserError(f"the prepared data in {self.folder} are damaged ({error}); start a new run") from error
        if digest(self.records) != self.card.get("records_sha256"):
            raise UserError(f"the prepared data in {self.folder} are damaged ({RECORDS}); start a new run")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """Numbers of the records that training never sees (`held_out.py`)."""
        return held_out(self.same_picture, self.groups, self.classes, self.card["hold_out"])

    @functools.cached_property
    def training(self) -> np.ndarray:
        """Numbers of all other records."""
        return np.setdiff1d(np.arange(len(self)), self.held_out)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the store holds: texts and pixels."""
        return self.card["fingerprint"]

    def items(self, number: int) -> list:
        """The items of a record in order: str, `Quiet` and `Stored`."""
        return [self._item(kind, value) for kind, value in self._line(number) if kind != "answers"]

    def answers(self, number: int) -> tuple:
        """The answers of all people to the question of a record; () if the data do not have them."""
        return tuple(answer for kind, value in self._line(number) if kind == "answers" for answer in value)

    def _line(self, number):
        self.records.seek(int(self.offsets[number]))
        return json.loads(self.records.read(int(self.offsets[number + 1] - self.offsets[number])))

    def _item(self, kind, value):
        if kind == "medium":
            return Stored(value, int(self.firsts[value + 1] - self.firsts[value]))
        return Quiet(value) if kind == "quiet" else value

    def frames(self, medium: Stored) -> np.ndarray:
        """Pixels of a medium, uint8 (F, side, side, 3)."""
        begin = int(self.firsts[medium.index]) + medium.first
        return np.asarray(self.pixels[begin : begin + medium.frames])

    def texts(self, most: int) -> Iterator[str]:
        """Texts of at most `most` training records, evenly spaced. The tokenizer is trained on them."""
        for number in self.training[:: max(1, -(-len(self.training) // most))]:
            for item in self.items(int(number)):
                if not isinstance(item, Stored):
                    yield text_of(item)


# ---- making a store ------------------------------------------------------------------------------


def prepare(
    path: str | Path,
    folder: str | Path,
    side: int,
    name: str | None = None,
    allowed: float = ALLOWED,
    preparation: Preparation = PAD_TO_SQUARE,
    fps: float = FPS,
    hold_out: str = "picture",
) -> Store:
    """Read, check and decode a data set into `folder`. A store that is already there is removed first.

    fps: frames for each second of a video. hold_out: one of `held_out.MODES`. Raises `UserError` and leaves no folder
    if there is nothing to read or to hold out, or if the share of bad records is above `allowed`. Raises `UserError`
    and changes nothing if the folder holds other files or the data.
    """
    folder = Path(folder)
    _require_removable(folder, Path(path))
    name, records = read_data(path, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _write(folder, decoded(records, side, preparation, fps), allowed, format=name, side=side, hold_out=hold_out)
        store = Store(folder)
        store.held_out  # noqa: B018 - raises an error if nothing can be held out
        return store
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def remove(folder: Path) -> None:
    """Remove a store, also a half-written one. A folder with other files stays."""
    if folder.is_dir() and any(folder.iterdir()) and not _foreign(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _foreign(folder):
    """The names in a folder that are no files of a store, not even half-written ones."""
    present = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    names = [PIXELS, INDEX, CARD, FEATURES, *(f".{name}.*" for name in (RECORDS, PIXELS, INDEX, CARD, FEATURES))]
    if PIXELS in present:
        names.append(RECORDS)  # it gets its name after the pixels, so alone it is somebody else's
    return [n for n in present if not any(fnmatch(n, name) for name in names)]


def _require_removable(folder, data):
    """`UserError` unless the folder is absent, or holds only files of a store (also half-written ones)."""
    foreign, inside = _foreign(folder), data.resolve().is_relative_to(folder.resolve())
    if foreign or inside or (os.path.lexists(folder) and not folder.is_dir()):
        why = _("the data are in it") if inside else _("other files are in it" if foreign else "it is not a folder")
        raise UserError(f"cannot write the prepared data to {folder}: {why}; choose another --out")


def _write(folder, outcomes, allowed, **facts):
    """All files of a store. The card is written last."""
    tally = Tally()
    with replacing(folder / RECORDS) as records, replacing(folder / PIXELS) as pixels:
        writer = _Writer(records, pixels)
        for outcome in tqdm(outcomes, desc="reading    ", unit=" records", delay=1):
            if isinstance(outcome, Skipped):
                tally.add(outcome)
            else:
                tally.add()
                writer.add(*outcome)
        tally.check(allowed)
    with replacing(folder / INDEX) as index:
        np.savez(index, **writer.index())
    card = {**facts, "preprocessing": PREPROCESSING, "records": tally.describe(str), **writer.digests()}
    write_atomically(folder / CARD, json.dumps(card, indent=1).encode())


class _Writer:
    """Writes records and pixels into open files, and collects the index."""

    def __init__(self, records, pixels):
        self.records, self.pixels = records, pixels
        self.texts, self.frames = hashlib.sha256(), hashlib.sha256()
        self.offsets, self.firsts = [0], [0]
        self.numbers, self.same_picture, self.names = {}, _Groups(), []  # of media by key; (group, class) of records

    def add(self, record, media):
        """The next record, with the frames of its media; None for a medium that is already written."""
        for medium, frames in zip(record.media, media, strict=True):
            if frames is not None:
                self.numbers[medium.key] = len(self.numbers)
                self.pixels.write(frames.tobytes())
                self.frames.update(frames.tobytes())
                self.firsts.append(self.firsts[-1] + len(frames))
                self.same_picture.show(frames)
        self.same_picture.add([self.numbers[medium.key] for medium in record.media])
        self.names.append((record.group or None, _class(record)))
        line = _line(record, self.numbers)
        self.records.write(line)
        self.texts.update(line)
        self.offsets.append(self.offsets[-1] + len(line))

    def index(self):
        """The arrays of the index. "groups": records that show the same picture; "sources": the groups of the data."""
        sources, classes = (_numbered(column) for column in zip(*self.names, strict=True))
        places = {"offsets": np.array(self.offsets), "firsts": np.array(self.firsts)}
        return places | {"groups": self.same_picture.numbers(), "sources": sources, "classes": classes}

    def digests(self):
        """Checksums for the card: of the texts alone, and of pixels and texts."""
        both = self.frames.copy()
        both.update(self.texts.digest())
        return {"records_sha256": self.texts.hexdigest(), "fingerprint": both.hexdigest()}


class _Groups:
    """Groups of records (union-find): two records that show the same picture are in one group."""

    def __init__(self):
        self.parents = []  # for each record a record of its group; itself: the root
        self.pictures, self.shown = {}, []  # the first records that show some pixels: by their hash, by medium

    def show(self, frames):
        """The next medium, shown by the next record. Media that share a frame are the same picture.

        Frames of one colour only, such as a black beginning, do not make two videos the same.
        """
        parts = [frames, *(frame for frame in frames if (frame != frame[0, 0]).any())]
        digests = [hashlib.sha256(part.tobytes()).digest() for part in parts]
        self.shown.append({self.pictures.setdefault(digest, len(self.parents)) for digest in digests})

    def add(self, media):
        """The next record, with the numbers of its media."""
        self.parents.append(len(self.parents))
        for other in (other for medium in media for other in self.shown[medium]):
            self.parents[self.root(len(self.parents) - 1)] = self.root(other)

    def root(self, record):
        while self.parents[record] != record:
            self.parents[record] = self.parents[self.parents[record]]  # halves the path for the next call
            record = self.parents[record]
        return record

    def numbers(self):
        """The group of each record."""
        return np.array([self.root(record) for record in range(len(self.parents))])


def _class(record: Record) -> tuple | None:
    """What records of one class have in common: the class that the data name, or else equal texts beside one medium."""
    if record.label:
        return ("class", record.label)
    texts = [text_of(item) for item in record.items if not isinstance(item, MediaFile)]
    return ("texts", *texts) if len(record.media) == 1 and texts else None


def _numbered(names) -> np.ndarray:
    """A number for each name, the same for equal names, also in another store; -1 for None."""
    digests = (None if name is None else hashlib.sha256(json.dumps(name).encode()).digest() for name in names)
    return np.array([-1 if d is None else int.from_bytes(d[:8], "big") >> 2 for d in digests], np.int64)


def _line(record: Record, numbers: dict) -> bytes:
    """A record as a line of JSON. numbers: of the media, by key."""
    written: list = [["answers", record.answers]] if record.answers else []
    for item in record.items:
        if isinstance(item, MediaFile):
            written.append(["medium", numbers[item.key]])
        else:
            written.append(["quiet", item.text] if isinstance(item, Quiet) else ["text", item])
    return json.dumps(written, ensure_ascii=False).encode() + b"\n"
