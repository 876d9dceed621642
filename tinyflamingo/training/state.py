"""The state of a training run on disk: a run that was killed (kill -9) continues from it with the same bits.

Serves all three stages (chapter §2 to §4). One file, `state.npz`, is replaced atomically. It contains the frozen parts
so far, the parameter vector of the current stage, both moments, and a JSON with the progress. Random numbers need no
state: every step draws from a Generator seeded by (seed, stage, step).

Not here: the finished model's folder (`checkpoint.py`).
"""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyflamingo.array_files import unpacked
from tinyflamingo.errors import UserError, complain
from tinyflamingo.files import open_regular, read_regular, write_atomically
from tinyflamingo.language import _
from tinyflamingo.ops.tree import from_named_leaves, named_leaves
from tinyflamingo.ops.types import Params
from tinyflamingo.training.optimiser import AdamW

STATE, LOG = "state.npz", "log.jsonl"


@dataclass
class Progress:
    """The progress of a run. stage counts from 0; step is the next step of this stage."""

    preset: str
    seed: int
    stage: int = 0
    step: int = 0
    log_bytes: int = 0
    seconds: dict = field(default_factory=dict)  # {stage name: seconds so far}
    data: dict | None = None  # options of the user's own data (`own_data.options.OwnData`)
    files: dict = field(default_factory=dict)  # {name: SHA-256} of the files that a resumed run reads again
    conditions: list[dict] = field(default_factory=list)  # under which it was made, in order (`conditions.py`)


def save_state(folder: str | Path, progress: Progress, frozen: Params, optimiser: AdamW | None = None) -> None:
    """Write the state. optimiser: None between two stages."""
    arrays = {f"frozen/{name}": leaf for name, leaf in named_leaves(frozen).items()}
    if optimiser is not None:
        arrays |= {"vector": optimiser.vector, "m": optimiser.m, "v": optimiser.v}
    arrays["progress"] = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    write_atomically(Path(folder) / STATE, packed.getvalue())


def load_state(folder: str | Path) -> tuple[Progress, Params, Params]:
    """(Progress, frozen tree, {"vector", "m", "v"} or {}) of a run. A damaged file raises `UserError`."""
    path = Path(folder) / STATE
    try:
        with open_regular(path) as file:
            arrays = unpacked(file)
        progress = Progress(**json.loads(arrays.pop("progress").tobytes()))
        frozen = from_named_leaves({n.removeprefix("frozen/"): a for n, a in arrays.items() if n.startswith("frozen/")})
        moments = {name: arrays[name] for name in (("vector", "m", "v") if progress.step else ())}
    except FileNotFoundError:
        raise UserError(f"nothing to resume: {path} does not exist; start a run without --resume") from None
    except Exception as error:  # a damaged file can fail anywhere inside zipfile or NumPy
        raise UserError(f"cannot resume: {path} is damaged ({error}); start a new run in another folder") from error
    return progress, frozen, moments


class Log:
    """A JSONL file with one line for each record. A resumed run first cuts it to the length that the state holds.

    No weight depends on the log. So a run with a damaged log goes on with the records that are whole, and one line says
    what is lost.
    """

    def __init__(self, folder: str | Path, keep_bytes: int = 0) -> None:
        self.path = Path(folder) / LOG
        try:
            data = read_regular(self.path)[:keep_bytes] if self.path.exists() else b""
            self.file = open(self.path, "ab")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        lines = dict.fromkeys(line for line in io.BytesIO(data) if _is_whole(line))  # each one once
        whole = b"".join(lines)
        if len(whole) < keep_bytes:
            lost = _(f"{keep_bytes - len(whole)} of its {keep_bytes} bytes are lost")
            complain(
                f"warning: {self.path} is damaged: {lost}; {len(lines)} whole records are kept, also in the figures"
            )
        self.file.truncate(0 if data != whole else len(whole))
        self.file.write(whole if data != whole else b"")
        self.file.seek(0, os.SEEK_END)

    def write(self, **record: Any) -> None:
        """Append one record."""
        self._on_disk(self.file.write, json.dumps(record).encode() + b"\n")

    def flush(self) -> int:
        """Put all records on the disk, because the next state relies on them. Returns the length of the file."""
        self._on_disk(self.file.flush)
        self._on_disk(os.fsync, self.file.fileno())
        return self.file.tell()

    def _on_disk(self, work, *arguments):
        try:
            work(*arguments)
        except OSError as error:
            why = _(f"{error.strerror}; the last saved state is untouched")
            raise UserError(f"cannot write {self.path}: {why}") from error

    def close(self) -> None:
        """Close the file. After an error of the disk it cannot say anything new."""
        with suppress(OSError):
            self.file.close()


class NoLog:
    """The log of a rank that writes no file."""

    def write(self, **record: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _is_whole(line):
    """Whether a line of the log is one record, with all that its figures need."""
    try:
        record = json.loads(line)
        numbers = [record["step"], record["loss"], *record.get("gates", {}).values()]
        return (
            line.endswith(b"\n")
            and isinstance(record["stage"], str)
            and all(isinstance(n, int | float) for n in numbers)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def read_log(folder: str | Path) -> list[dict]:
    """All records of the log of a run."""
    return [json.loads(line) for line in read_regular(Path(folder) / LOG).splitlines()]
