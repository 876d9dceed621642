"""A user's data set made ready for training: decoded once, on disk, read a record at a time.

Serves all stages on data of one's own (chapters §2 and §4). A folder with four files: `records.jsonl`
(items of each record; media by number), `pixels.u8` (every frame, one after the other), `index.npz`
(where each record and each medium begins) and `store.json`, written last: without it there is no store.
In memory are only the index, 8 bytes a record and a medium. Which record comes when is a function of
seed and count (`shuffled`), so a run that resumes needs no state but its step.

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
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyflamingo.data.items import Quiet
from tinyflamingo.data.readers import read_data
from tinyflamingo.data.readers.decode import ALLOWED, Tally, decoded
from tinyflamingo.data.readers.record import MediaFile, Skipped
from tinyflamingo.errors import UserError
from tinyflamingo.files import replacing, write_atomically

PREPROCESSING = 1  # raised when the same file would give other pixels: stores and features are then made anew
HOLD_OUT = 20220429  # seed of the choice of records that are held out
RECORDS, PIXELS, INDEX, CARD = "records.jsonl", "pixels.u8", "index.npz", "store.json"


@dataclass(frozen=True)
class Stored:
    """A medium of a store, or a run of its frames: number, how many frames (a picture has one), and the first."""

    index: int
    frames: int
    first: int = 0


@functools.lru_cache(maxsize=4)
def _order(n, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(n)


def shuffled(n: int, seed: int, count: int) -> int:
    """Which of n records is drawn as the `count`-th: every one once an epoch, each epoch in another order."""
    epoch, place = divmod(count, n)
    return int(_order(n, seed, epoch)[place])


class Store:
    """An open store. `len(store)`: records; `card`: what `store.json` says."""

    def __init__(self, folder):
        """Raises `UserError` if the folder's files are not those of a finished store."""
        self.folder = Path(folder)
        try:
            self.card = json.loads((self.folder / CARD).read_bytes())
            with np.load(self.folder / INDEX, allow_pickle=False) as index:
                self.offsets, self.firsts = index["offsets"], index["firsts"]
            self.side = int(self.card["side"])
            shape = (int(self.firsts[-1]), self.side, self.side, 3)
            self.pixels = np.memmap(self.folder / PIXELS, np.uint8, "r", shape=shape) if shape[0] else None
            self.records = open(self.folder / RECORDS, "rb")
        except Exception as error:  # a damaged file may fail anywhere inside zipfile, JSON or NumPy
            raise UserError(f"the prepared data in {self.folder} are damaged ({error}); start a new run") from error
        if _digest(self.records) != self.card.get("records_sha256"):
            raise UserError(f"the prepared data in {self.folder} are damaged ({RECORDS}); start a new run")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """Numbers of the records that training never sees: 1 in 20, chosen by chance, none of fewer than 20."""
        return np.sort(_order(len(self), HOLD_OUT, 0)[: len(self) // 20])

    @functools.cached_property
    def training(self) -> np.ndarray:
        """Numbers of all other records."""
        return np.setdiff1d(np.arange(len(self)), self.held_out)

    @property
    def fingerprint(self) -> str:
        """A name of all that the store holds: texts and pixels."""
        return self.card["fingerprint"]

    def items(self, number: int) -> list:
        """A record: str, `Quiet` and `Stored`, in order."""
        self.records.seek(int(self.offsets[number]))
        line = self.records.read(int(self.offsets[number + 1] - self.offsets[number]))
        return [self._item(kind, value) for kind, value in json.loads(line)]

    def _item(self, kind, value):
        if kind == "medium":
            return Stored(value, int(self.firsts[value + 1] - self.firsts[value]))
        return Quiet(value) if kind == "quiet" else value

    def frames(self, medium: Stored) -> np.ndarray:
        """Pixels of a medium, uint8 (F, side, side, 3)."""
        begin = int(self.firsts[medium.index]) + medium.first
        return np.asarray(self.pixels[begin : begin + medium.frames])

    def texts(self, most: int) -> Iterator[str]:
        """Texts of at most `most` records, spread over all: what a tokenizer is trained on."""
        for number in range(0, len(self), max(1, len(self) // most)):
            for item in self.items(number):
                if not isinstance(item, Stored):
                    yield item.text if isinstance(item, Quiet) else item


def _digest(file) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


# ---- making one ----------------------------------------------------------------------------------


def prepare(path, folder, side: int, name=None, allowed=ALLOWED) -> Store:
    """Read, check and decode a data set into `folder`; what is left there of a store is removed first.

    Raises `UserError`, and leaves no folder, if there is nothing to read or more than `allowed` of the
    records are bad; and if the folder holds anything else, or the data themselves, which stay untouched.
    """
    folder = Path(folder)
    _require_ours(folder, Path(path))
    name, found = read_data(path, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _write(folder, name, found, side, allowed)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Store(folder)


def _require_ours(folder, data):
    """A folder that may be removed: there is none, or all in it is a store's, or half of one that a kill left."""
    found = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    ours = [n for n in found if any(n == name or n.startswith(f".{name}.") for name in (RECORDS, PIXELS, INDEX, CARD))]
    odd = sorted(set(found) - set(ours))
    inside = data.resolve().is_relative_to(folder.resolve())
    if odd or inside or (os.path.lexists(folder) and not folder.is_dir()):
        what = "the data themselves" if inside else "other files" if found else "a file of that name"
        raise UserError(f"the prepared data would be written to {folder}, but there are {what}: choose another --out")


def _write(folder, name, found, side, allowed):
    tally, whole, texts = Tally(), hashlib.sha256(), hashlib.sha256()
    offsets, firsts = [0], [0]
    with replacing(folder / RECORDS) as records, replacing(folder / PIXELS) as pixels:
        for outcome in tqdm(decoded(found, side), desc="reading    ", unit=" records", delay=1):
            if isinstance(outcome, Skipped):
                tally.add(outcome)
                continue
            tally.add()
            record, media = outcome
            line = _line(record.items, len(firsts) - 1)
            records.write(line)
            offsets.append(offsets[-1] + len(line))
            texts.update(line)
            for frames in media:
                pixels.write(frames.tobytes())
                firsts.append(firsts[-1] + len(frames))
                whole.update(frames.tobytes())
        tally.check(allowed)
    whole.update(texts.digest())
    with replacing(folder / INDEX) as index:
        np.savez(index, offsets=np.array(offsets), firsts=np.array(firsts))
    card = {
        "format": name,
        "side": side,
        "preprocessing": PREPROCESSING,
        "records": tally.describe(),
        "records_sha256": texts.hexdigest(),
        "fingerprint": whole.hexdigest(),
    }
    write_atomically(folder / CARD, json.dumps(card, indent=1).encode())


def _line(items, medium: int) -> bytes:
    """A record as a line; its media are numbered from `medium` on."""
    written = []
    for item in items:
        if isinstance(item, MediaFile):
            written.append(["medium", medium])
            medium += 1
        else:
            written.append(["quiet", item.text] if isinstance(item, Quiet) else ["text", item])
    return json.dumps(written, ensure_ascii=False).encode() + b"\n"
