"""How Numba compiles the kernels: settings shared by ``kernels_numba.py`` and ``product_kernels_numba.py``.

``SUMS`` lets the compiler reorder additions, so that a dot product uses the full width of a vector register.
``fastmath=True`` would also assume that no number is NaN or infinite, but our masked scores are -inf. Implements no
section of the chapter. Not here: the kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features

from tinyflamingo.language import _

SUMS = {"reassoc", "contract", "nsz"}
EXACT: set[str] = set()
config: Any = numba.config  # mypy does not know its names
SHARED = [Path(__file__).with_name(f"{name}.py") for name in ("register_tile", "kernels_numba")]  # in other files' code
FEW = 4  # kernels that are compiled without a word


class _Cache(FunctionCache):
    """Numba's cache. Files that a crash has cut are made again, and a full disk is no error."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # a cut file can fail anywhere inside pickle
            with suppress(OSError):
                self.flush()
            return None

    def _index_key(self, *arguments: Any) -> tuple:
        return (*super()._index_key(*arguments), *(file.stat().st_mtime_ns for file in SHARED))

    def save_overload(self, *arguments: Any) -> None:
        with suppress(OSError):
            super().save_overload(*arguments)


def kernel(fastmath: set[str], **more: Any) -> Callable:
    """numba.njit with our settings. If Numba finds no folder for its cache, it compiles without one."""

    def decorate(function):
        options = {"fastmath": fastmath, "error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True, **more}
        compiled = numba.njit(**options)(function)
        with suppress(RuntimeError, AttributeError):  # no folder for a cache; NUMBA_DISABLE_JIT gives a plain function
            compiled._cache = _Cache(compiled.py_func)
        return compiled

    return decorate


def helper(fastmath: set[str]) -> Callable:
    """A function that only kernels call; Numba inserts its body into each of them.

    If it were called instead, Numba would compile it once for each caller, with the additions in different orders, and
    the copy that runs would depend on what was loaded first. Bits must not depend on a cache.
    """
    return kernel(fastmath, forceinline=True)


def has(feature: str) -> bool:
    """Whether the kernels are compiled for a processor with a feature, by LLVM's name for it."""
    chosen = config.CPU_FEATURES  # "" for NUMBA_CPU_NAME=generic
    return f"+{feature}" in (get_host_cpu_features() if chosen is None else chosen).split(",")


def use_full_vectors() -> None:
    """Let LLVM use vectors of 512 bits where it has them, unless the user chose a processor or its features.

    For many of Intel's processors it prefers 256 bits, because the first ones lowered their clock for 512. It must be
    called before the first compilation. The features are part of the keys of Numba's cache.
    """
    if config.CPU_NAME is None and config.CPU_FEATURES is None and has("avx512f"):
        config.CPU_FEATURES = f"{get_host_cpu_features()},-prefer-256-bit"


def tile_size() -> tuple[int, int]:
    """Rows of a register tile, and numbers of float32 in a vector. A row has 3 vectors: 12 or 24 sums."""
    sizes = {"avx512f": (8, 16), "neon": (8, 4), "avx": (4, 8)}
    return next((size for feature, size in sizes.items() if has(feature)), (4, 4))


class _Announcement(event.Listener):
    """Says once why nothing moves. Numba calls it for every kernel that is compiled, not for one from its cache."""

    compiled = 0

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}."):
            self.compiled += 1
            if self.compiled == FEW + 1 and not current_process().name.startswith("rank"):  # no worker says it again
                line = _("tinyflamingo: compiling the kernels, once on this machine (about 10 s)")
                with suppress(OSError, ValueError):  # a closed stderr, or one on a full disk
                    print(line, file=sys.__stderr__ or sys.stderr, flush=True)  # not that of a notebook or a test

    def on_end(self, event: Any) -> None:
        pass


use_full_vectors()
event.register("numba:compile", _Announcement())
