"""The state of a training run on disk: enough to go on after a kill -9 as if nothing had happened.

Serves all three stages. One file, `state.npz`, replaced atomically: frozen parts so far, the vector
of the current stage's parameters, both moments, and a JSON of where the run stands. Random numbers
need no state: every step draws from a Generator seeded by (seed, stage, step).

Not here: the finished model's folder (`checkpoint.py`).
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.files import write_atomically
from tinyflamingo.ops.tree import from_named_leaves, named_leaves

STATE, LOG = "state.npz", "log.jsonl"


@dataclass
class Progress:
    """Where a run stands. stage counts from 0; step is the next step of it."""

    preset: str
    seed: int
    stage: int = 0
    step: int = 0
    log_bytes: int = 0
    seconds: dict = field(default_factory=dict)  # {stage name: seconds so far}
    data: dict | None = None  # options of the user's own data (`own_data.OwnData`)


def save_state(folder, progress: Progress, frozen, optimiser=None):
    """Write everything; optimiser None: between two stages."""
    arrays = {f"frozen/{name}": leaf for name, leaf in named_leaves(frozen).items()}
    if optimiser is not None:
        arrays |= {"vector": optimiser.vector, "m": optimiser.m, "v": optimiser.v}
    arrays["progress"] = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    write_atomically(Path(folder) / STATE, packed.getvalue())


def load_state(folder):
    """(Progress, frozen tree, {"vector", "m", "v"} or {}) of a run; a damaged file is a `UserError`."""
    path = Path(folder) / STATE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        progress = Progress(**json.loads(arrays.pop("progress").tobytes()))
        moments = {name: arrays[name] for name in (("vector", "m", "v") if progress.step else ())}
    except FileNotFoundError:
        raise UserError(f"nothing to resume: {path} does not exist; start a run without --resume") from None
    except Exception as error:  # a damaged file may fail anywhere inside zipfile or NumPy
        raise UserError(f"cannot resume: {path} is damaged ({error}); start a new run in another folder") from error
    frozen = {n.removeprefix("frozen/"): a for n, a in arrays.items() if n.startswith("frozen/")}
    return progress, from_named_leaves(frozen), moments


class Log:
    """A JSONL file, one line a record; on resume it is cut back to what the state knows."""

    def __init__(self, folder, keep_bytes=0):
        self.path = Path(folder) / LOG
        try:
            self.file = open(self.path, "ab")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        if self.file.tell() < keep_bytes:  # truncating would fill it up with zeros
            raise UserError(f"cannot resume: {self.path} is cut or missing; start a new run in another folder")
        self.file.truncate(keep_bytes)

    def write(self, **record):
        """Append one record."""
        self._told(self.file.write, json.dumps(record).encode() + b"\n")

    def flush(self) -> int:
        """Bytes written so far, all of them on the disk: the state that follows relies on them."""
        self._told(self.file.flush)
        self._told(os.fsync, self.file.fileno())
        return self.file.tell()

    def _told(self, work, *arguments):
        try:
            work(*arguments)
        except OSError as error:
            why = f"{error.strerror}; the state that was saved last is untouched"
            raise UserError(f"cannot write {self.path}: {why}") from error

    def close(self):
        """Close the file; the log cannot be written to any more."""
        self.file.close()


class NoLog:
    """What a rank has that does not write."""

    def write(self, **record):
        """Nothing."""

    def close(self):
        """Nothing."""


def read_log(folder):
    """All records of a run's log."""
    with open(Path(folder) / LOG, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
