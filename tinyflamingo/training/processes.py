"""The workers of one machine as ranks: processes that exchange arrays through shared memory (docs/scaling.md).

`on_workers` runs a function in one process for each worker. Processes are faster than threads: in a training step much
of the time is Python, and threads take turns at it. On Linux the processes are forked, so they have all that the first
process has in memory. Elsewhere each starts as a new program and gets pickled arguments.

Rank 0 is the process that called `on_workers`. Two pipes join it to each other rank; they carry no numbers, only "I am
here" and errors. If a rank dies, its pipe ends, so no rank waits for it.

Serves all stages (chapter §2 to §4). Not here: the interface of a group of ranks (`ranks.py`), threads (`ops/team.py`).
"""

from __future__ import annotations

import contextlib
import copy
import gc
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import Stopped, UserError
from tinyflamingo.system import START
from tinyflamingo.training.ranks import Alone, gathered_shapes, joined, world

MEMORY = 1 << 26  # bytes of the shared memory; arrays that are larger than a rank's slot pass in pieces
SECONDS_TO_END = 5  # for a process that has done its work
HERE = None  # the message of `wait`; any other message is an error
DEAD = "a worker process has died, perhaps for lack of memory; what was saved is kept: fewer workers need less memory"
if START == "spawn":
    DEAD = f'{DEAD} (a script that calls `train` needs `if __name__ == "__main__":`)'


class Processes(Alone):
    """A rank among the processes of this machine.

    lines: rank 0 has those to all others, in order; the others have the one to rank 0. memory is shared. It has two
    sets of slots that are used in turn: a slot is written again only when every rank has read it.
    """

    def __init__(self, rank: int, size: int, lines: list, memory: Any, folder: str) -> None:
        self.rank, self.size, self.lines, self.folder = rank, size, lines, Path(folder)
        self.piece = MEMORY // (2 * size) // 64 * 64  # bytes of a slot
        self.slots = np.frombuffer(memory, np.uint8)[: 2 * size * self.piece].reshape(2, size, self.piece)
        self.exchanges = self.joins = 0

    def wait(self) -> None:
        """Wait until all ranks are here. An error in another rank, or its death, is raised in rank 0."""
        for line in self.lines if self.rank == 0 else ():
            _hear(line)
        for line in self.lines:
            _say(line, HERE)
        if self.rank > 0:
            _hear(self.lines[0])

    def allreduce(self, vector: np.ndarray) -> np.ndarray:
        """The sum of a vector over all ranks, in their order, written into the vector and returned."""
        length = self.piece // vector.itemsize
        for piece in np.split(vector, range(length, len(vector), length)):
            slots = self._exchange(piece)[:, : piece.nbytes].view(piece.dtype)
            run = slice(*np.linspace(0, len(piece), self.size + 1).astype(int)[self.rank : self.rank + 2])
            slots[0, run] = slots[:, run].sum(axis=0)
            self.wait()
            piece[:] = slots[0]
        return vector

    def gather(self, rows: np.ndarray) -> list[np.ndarray]:
        """[rows (n, ...) of every rank], in the order of ranks; n may differ, and may be 0."""
        shape = np.array(rows.shape, np.int64)
        shapes = self._exchange(shape)[:, : shape.nbytes].view(np.int64)
        gathered = [np.empty(shape, rows.dtype) for shape in gathered_shapes(shapes)]
        own, all_bytes = _bytes(rows), [_bytes(part) for part in gathered]
        for at in range(0, max(len(part) for part in all_bytes), self.piece):
            for part, slot in zip(all_bytes, self._exchange(own[at : at + self.piece]), strict=True):
                piece = part[at : at + self.piece]
                piece[:] = slot[: len(piece)]
        return gathered

    def join(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all ranks as one array, in a temporary file that all ranks map into memory."""
        counts = [len(part) for part in self.gather(np.zeros((len(rows), 0), np.uint8))]
        path = self.folder / str(self.joins)
        self.joins += 1
        if self.rank == 0:
            path.touch()
        self.wait()
        try:
            with open(path, "r+b") as file:
                file.seek(sum(counts[: self.rank]) * rows[0].nbytes)
                file.write(_bytes(rows).data)
        except OSError as error:
            raise UserError(f"cannot write temporary data in {self.folder.parent}: {error.strerror}") from error
        self.wait()
        whole = np.asarray(np.memmap(path, rows.dtype, "r", shape=(sum(counts), *rows.shape[1:])))
        self.wait()
        if self.rank == 0:
            with contextlib.suppress(OSError):  # Windows keeps it until `on_workers` ends
                path.unlink()
        return whole

    def _exchange(self, own):
        """The slots (size, piece) of all ranks in shared memory, after each has written its own array of at most piece
        bytes."""
        slots = self.slots[self.exchanges % 2]
        self.exchanges += 1
        data = _bytes(own)
        slots[self.rank, : len(data)] = data
        self.wait()
        return slots


def _bytes(array):
    """The bytes of an array, as a view if possible."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


class Line(NamedTuple):
    """A connection to another rank: a pipe for each direction (a socket would be a use of the network)."""

    hear: Any
    say: Any


def _say(line, message):
    try:
        line.say.send(message)
    except OSError:
        raise Stopped(DEAD) from None


def _hear(line):
    """The next message of a rank; an error is raised here."""
    try:
        message = line.hear.recv()
    except (EOFError, OSError):
        raise Stopped(DEAD) from None
    if message is not HERE:
        raise message


def on_workers(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)` in one process for each worker; the result of rank 0.

    With one worker, or if this process is one of several ranks already, it is a call; also in a daemonic process, which
    may not start others: there the workers are threads. An error in one process ends all and is raised here.
    """
    size = ops.workers()
    if size == 1 or world().size > 1 or multiprocessing.current_process().daemon:
        return function(*arguments)
    gc.collect()  # so that no process inherits garbage
    started: list = []
    folder = tempfile.mkdtemp(prefix="tinyflamingo-")
    try:
        memory = multiprocessing.get_context(START).RawArray("B", MEMORY)
        with without_ctrl_c():
            for rank in range(1, size):
                started.append(_start(rank, size, memory, folder, function, arguments))
        group = Processes(0, size, [line for _, line in started], memory, folder)
        with joined(group):
            result = function(*arguments)
            group.wait()  # the others are at their end too, without an error
        for process, _ in started:
            process.join(SECONDS_TO_END)
        return result
    finally:
        for process, line in started:
            process.kill()
            process.join()
            line.hear.close()
            line.say.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(rank, size, memory, folder, function, arguments):
    """(process, the connection to it) of a new rank."""
    context = multiprocessing.get_context(START)
    (hear, their_say), (their_hear, say) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    theirs = Line(their_hear, their_say)
    process = start_process(f"rank {rank}", _run, rank, size, theirs, memory, folder, function, arguments)
    their_hear.close()
    their_say.close()  # only the new process has it, so that its end is noticed
    return process, Line(hear, say)


def start_process(name: str, function: Callable, *arguments: Any) -> Any:
    """A new process that ends with this one."""
    context: Any = multiprocessing.get_context(START)
    process = context.Process(target=function, args=arguments, name=name, daemon=True)
    process.start()
    return process


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """A block that starts processes. Ctrl-C is held back until its end, because Python loses it during a fork.

    Any thread may receive the signal, so a handler notes it. The mask is for the new processes, which inherit it.
    """
    if threading.current_thread() is not threading.main_thread():  # the signal is not for this thread
        yield
        return
    noted: list = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    mask = getattr(signal, "pthread_sigmask", lambda how, signals: ())  # Windows has none
    blocked = mask(getattr(signal, "SIG_BLOCK", 0), [signal.SIGINT])
    try:
        yield
    finally:
        mask(getattr(signal, "SIG_SETMASK", 0), blocked)
        signal.signal(signal.SIGINT, before)
        if noted:
            signal.raise_signal(signal.SIGINT)


def _run(rank, size, line, memory, folder, function, arguments):
    """The life of a process of rank 1 and above."""
    gc.freeze()  # objects from before the fork belong to rank 0: some own threads, which a forked process does not have
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; rank 0 ends the others
    threading.Thread(target=_end_with_rank_0, args=(folder,), daemon=True).start()
    group = Processes(rank, size, [line], memory, folder)
    try:
        with joined(group):
            function(*arguments)
            group.wait()
    except BaseException as error:
        with contextlib.suppress(OSError):  # rank 0 has ended
            _report(line, error)


def _end_with_rank_0(folder):
    """End when rank 0 has ended. If it was killed, nobody else removes the folder."""
    wait_for([multiprocessing.parent_process().sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _report(line, error):
    """Send an error; of one that cannot be made again in another process, the text."""
    try:
        line.say.send(copy.copy(error))  # a copy, too, is made from the class and the message
    except OSError:
        raise
    except Exception:
        text = f"{type(error).__name__}: {error}"
        line.say.send(UserError(str(error)) if isinstance(error, UserError) else RuntimeError(text))
