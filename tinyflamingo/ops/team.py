"""Who owns the processor's cores: one team of threads, each with a shard of the batch.

Rows of a batch do not meet before their gradients are added, so a step is split by rows: every
worker takes its shard forward and backward from end to end, with BLAS on one thread. Kernels and
NumPy's passes run in parallel too that way, and nobody waits for anybody but at the end. The other
way, a team inside every matrix product, leaves all of them serial and meets hundreds of times a
step. NumPy, BLAS and our kernels let go of Python's lock while they work.

Nothing else here starts threads: kernels are serial, and two teams never share the cores. Outside
of ``parallel_map`` and ``one_team`` BLAS keeps whatever number of threads it was given.
"""

import contextlib
import ctypes
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import ThreadpoolController

from tinyflamingo.errors import UserError

MOST = 4096  # workers; more are a slip of the hand

_workers = None
_thread = threading.local()  # works: True in the threads of the team


def workers():
    """How many shards a batch is cut into: TINYFLAMINGO_THREADS, or as many as there are cores.

    Raises `UserError` if TINYFLAMINGO_THREADS is no number from 1 to `MOST`.
    """
    if _workers is not None:
        return _workers
    asked = os.environ.get("TINYFLAMINGO_THREADS", "")
    if asked and not (asked.isdecimal() and len(asked) <= 9 and 1 <= int(asked) <= MOST):
        raise UserError(f"TINYFLAMINGO_THREADS must be a whole number from 1 to {MOST}, not {asked[:40]!r}")
    return int(asked) if asked else _cores()


def _cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def use_workers(n):
    """Another number of workers for the length of a ``with`` block."""
    global _workers
    before, _workers = _workers, n
    try:
        yield
    finally:
        _workers = before


def one_team():
    """A ``with`` block in which BLAS starts no threads of its own, even between shared-out pieces.

    Its threads look for work for a while after a product, on the cores that the workers need.
    """
    return _blas().limit(limits=1, user_api="blas")


def parallel_map(function, shards):
    """``[function(shard) for shard in shards]``, a worker each, in the order of the shards.

    With one worker, and in a worker: in turn, in this thread. BLAS runs on one thread either way, so
    the bits of the results depend on how the work was cut and not on who did it. An exception in a
    worker is raised here.
    """
    shards = list(shards)
    with one_team():
        if min(len(shards), workers()) <= 1 or getattr(_thread, "works", False):
            return [function(shard) for shard in shards]
        return list(_pool(workers()).map(function, shards))


@functools.cache
def _blas():
    return ThreadpoolController()


@functools.cache
def _pool(n):
    return ThreadPoolExecutor(n, "tinyflamingo", initializer=lambda: setattr(_thread, "works", True))


def blas_libraries() -> list:
    """Name, version and kind of processor of each BLAS that is loaded."""
    found = [lib for lib in _blas().info() if lib["user_api"] == "blas"]
    return [f"{lib['internal_api']} {lib['version']} for {lib.get('architecture') or 'any processor'}" for lib in found]


@functools.cache
def keep_memory():
    """Ask glibc to keep freed memory for the next array, in one arena for all threads.

    By default it gives large arrays back to the system as soon as they are freed, and every new one
    then costs a page fault for each 4 KB: up to a fifth of a training step with two workers. Costs
    nothing where the C library is another. Returns whether it was done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # numbers in malloc.h
    settings = {mmap_threshold: 1 << 25, trim_threshold: (1 << 31) - 1, top_pad: 1 << 26, arena_max: 1}
    return all([mallopt(name, value) for name, value in settings.items()])
