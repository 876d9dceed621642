"""What the bits of a run depend on beside its seed: the number of workers, the machine, and the versions of packages.

A run and a growing report (`studies/growing_report.py`) keep their conditions. They go on with the same number of
workers, and one line says so if anything else is different. Serves chapter §1.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tinyflamingo import ops
from tinyflamingo.errors import complain
from tinyflamingo.ops.team import blas_libraries, chosen_workers
from tinyflamingo.training.ranks import world
from tinyflamingo.version import VERSION


def versions() -> dict:
    """Versions of Python and of the packages that the results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    known = {"tinyflamingo": VERSION, "python": platform.python_version()}
    for name in ("numpy", "autograd", "numba", "llvmlite", "sentencepiece"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed"
    return known


def conditions() -> dict:
    """{name: value} of everything that the bits of a run depend on, beside its seed, preset and data."""
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})  # type: ignore[call-overload]
    return {
        "workers": ops.workers(),
        "ranks": world().size,
        "engine": ops.engine(),
        "processor": f"{platform.machine()} {_cpu()}",
        "vectors": _vectors(),
        "numpy kernels": " ".join(simd.get("found", [])),
        "BLAS": ", ".join(sorted(blas_libraries())),
        "system": " ".join((platform.system(), *platform.libc_ver())).strip(),
        **versions(),
    }


def _cpu():
    """The kind of processor for which Numba compiles; it also says whether it compiles at all."""
    try:
        from llvmlite.binding import get_host_cpu_name
        from numba import config
    except ImportError:
        return platform.processor()
    name = config.CPU_NAME or get_host_cpu_name()
    return f"{name}, not compiled" if config.DISABLE_JIT else name


def _vectors():
    """Which vectors LLVM may use in the kernels (`use_full_vectors` in `ops/jit.py`)."""
    try:
        from numba import config
    except ImportError:
        return "those of NumPy"
    return "512 bits" if (config.CPU_FEATURES or "").endswith("-prefer-256-bit") else "as LLVM prefers"


@contextmanager
def going_on(where: str | Path, kept: list[dict]) -> Iterator[None]:
    """A block that adds to work on disk: with its number of workers, unless another one is chosen.

    kept: the conditions of the work so far, in order. If those of now differ, they are added, and one line says so.
    """
    before = kept[-1] if kept else {}
    with ops.use_workers(chosen_workers() or before.get("workers") or ops.workers()):
        now = conditions()
        if now != before:
            kept.append(now)
            if world().rank == 0:
                changes = _changes(before, now)
                complain(f"warning: {where} goes on, but its bits will be different, because this changed: {changes}")
        yield


def _changes(before, now):
    """ "workers 1, now 2; numpy 2.2, now 2.3" """
    return "; ".join(f"{k} {before.get(k, 'unknown')}, now {v}" for k, v in now.items() if before.get(k) != v)
