"""Threads: one team of workers, and each worker computes one part of the batch.

The rows of a batch are independent until their gradients are added. So a training step is split by rows: every worker
runs its rows forward and backward, with BLAS on one thread, and waits for the others only at the end. The alternative,
many threads inside every matrix product, leaves all other work serial and synchronises hundreds of times in a step.
NumPy, BLAS and our kernels release Python's lock while they work.

Only this file starts threads that compute: kernels are serial, and two teams never use the same cores. Outside of
``parallel_map`` and ``one_team`` BLAS keeps its own number of threads. Implements no section of the chapter.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import ThreadpoolController

from tinyflamingo.errors import UserError

MOST = 256  # workers; a larger number is a typing error
ENOUGH = 16  # workers by default on a machine with many cores: the toy's batches have 16 rows

default_workers: int | None = None  # None: the number of cores, at most `ENOUGH`

_workers: int | None = None
_thread = threading.local()  # works: True in the threads of the team


def workers() -> int:
    """Number of parts that a batch is cut into: the chosen number, by default one for each core."""
    return chosen_workers() or default_workers or min(_cores(), ENOUGH)


def chosen_workers() -> int | None:
    """The number that `use_workers` or else TINYFLAMINGO_THREADS sets; None if neither does.

    Raises `UserError` if TINYFLAMINGO_THREADS is not a whole number from 1 to `MOST`.
    """
    if _workers is not None:
        return _workers
    text = os.environ.get("TINYFLAMINGO_THREADS", "")
    if text and not (text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= MOST):
        raise UserError(f"TINYFLAMINGO_THREADS must be a whole number from 1 to {MOST}, not {text[:40]!r}")
    return int(text) if text else None


def _cores():
    """Number of cores that this process may use: those of its affinity, and no more than its container may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas()])))


def _quotas():
    """The limits in cores of the control groups of this process (Linux; a container has one)."""
    for folder in dict.fromkeys(_control_groups()):
        facts = _words(f"{folder}/cpu.max")  # version 2; else version 1
        facts = facts or _words(f"{folder}/cpu.cfs_quota_us") + _words(f"{folder}/cpu.cfs_period_us")
        if len(facts) == 2 and all(fact.isdecimal() for fact in facts):  # no limit: "max" or -1
            yield int(facts[0]) / max(1, int(facts[1]))


def _control_groups():
    """The folders of the groups, and of the groups around them. In a container its own group is the root."""
    for line in ["0::/", "0:cpu:/", *_words("/proc/self/cgroup")]:
        _, kinds, path = line.split(":", 2) if line.count(":") >= 2 else ("", "none", "")
        if kinds == "" or "cpu" in kinds.split(","):
            parts = [part for part in path.split("/") if part]
            for n in range(len(parts) + 1):
                yield "/".join(["/sys/fs/cgroup", *(["cpu"] if kinds else []), *parts[:n]])


def _words(path):
    """The words of a small text file; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except (OSError, ValueError):
        return []


@contextlib.contextmanager
def use_workers(n: int) -> Iterator[None]:
    """Use n workers inside a ``with`` block."""
    global _workers
    before, _workers = _workers, n
    try:
        yield
    finally:
        _workers = before


def one_team() -> contextlib.AbstractContextManager:
    """A ``with`` block in which BLAS starts no threads, also between two calls of ``parallel_map``.

    After a product, threads of BLAS wait actively for more work, on the cores that the workers need.
    """
    return _blas().limit(limits=1, user_api="blas")


def parallel_map(function: Callable, shards: Iterable) -> list[Any]:
    """``[function(shard) for shard in shards]``, in the order of the shards; each shard is computed by one worker.

    With one worker, or if called by a worker, this thread computes them one after another. BLAS uses one thread in both
    cases, so the bits of the results depend on how the work is cut, not on who does it. An exception in a worker is
    raised here.
    """
    shards = list(shards)
    with one_team():
        if min(len(shards), workers()) <= 1 or getattr(_thread, "works", False):
            return [function(shard) for shard in shards]
        return list(_pool(workers()).map(function, shards))


def spread(costs: Sequence[float], n: int) -> list[int]:
    """Jobs with these costs in n groups of nearly equal cost: the number of each job's group.

    The largest jobs first, each to the group that has the least so far.
    """
    work, group = [0.0] * n, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        group[i] = work.index(min(work))
        work[group[i]] += costs[i]
    return group


@functools.cache
def _blas():
    return ThreadpoolController()


@functools.cache
def _pool(n):
    return ThreadPoolExecutor(n, "tinyflamingo", initializer=lambda: setattr(_thread, "works", True))


def blas_libraries() -> list[str]:
    """Name, version and processor type of every BLAS library in this process."""
    blas = [lib for lib in _blas().info() if lib["user_api"] == "blas"]
    return [f"{lib['internal_api']} {lib['version']} for {lib.get('architecture') or 'any processor'}" for lib in blas]


@functools.cache
def keep_memory() -> bool:
    """Ask glibc to keep freed memory for the next array, in one arena for all threads. Returns whether it worked.

    By default glibc returns large arrays to the system as soon as they are freed. Every new array then costs one page
    fault for each 4 KB: up to a fifth of a training step with two workers. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # numbers in malloc.h
    settings = {mmap_threshold: 1 << 25, trim_threshold: (1 << 31) - 1, top_pad: 1 << 26, arena_max: 1}
    return all([mallopt(name, value) for name, value in settings.items()])
