"""Which floor runs the operations: ``reference.py``, the readable one, or ``fast.py``, which gives the same numbers.

The environment variable TINYFLAMINGO_OPS is ``reference`` or ``fast`` (the default). It is read at the first
operation. ``use`` overrides it inside a ``with`` block. Only ``fast`` loads Numba. This file implements no section of
the chapter.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tinyflamingo.errors import UserError

_current: ModuleType | None = None
_notes: tuple[Callable[[str, tuple], None], ...] = ()  # what `watching` calls


def _load(name, what="the floor", error=ValueError):
    if name not in ("reference", "fast"):
        raise error(f"{what} must be 'reference' or 'fast', not {name!r}")
    return importlib.import_module(f"{__package__}.{name}")


def backend() -> ModuleType:
    """The module that computes: ``ops.reference`` or ``ops.fast``."""
    global _current
    if _current is None:
        _current = _load(os.environ.get("TINYFLAMINGO_OPS", "fast"), "TINYFLAMINGO_OPS", UserError)
    return _current


def backend_name() -> str:
    """Return "reference" or "fast"."""
    return backend().__name__.rpartition(".")[2]


def run(name: str, *args: Any) -> Any:
    """Run the operation ``name`` on the current floor. Every operation of ``ops`` goes through here."""
    for note in _notes:
        note(name, args)
    return getattr(backend(), name)(*args)


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Run a ``with`` block on the floor ``"reference"`` or ``"fast"``."""
    global _current
    before, _current = _current, _load(name)
    try:
        yield
    finally:
        _current = before


@contextlib.contextmanager
def watching(note: Callable[[str, tuple], None]) -> Iterator[None]:
    """Call ``note(name, args)`` before every operation inside a ``with`` block; blocks may be nested.

    ``args`` are all arguments of the operation, in order, autograd boxes included. The workers of ``parallel_map`` are
    watched too, so ``note`` may run in several threads at once (``list.append`` is safe). Backward calls no operation.
    """
    global _notes
    before, _notes = _notes, (*_notes, note)
    try:
        yield
    finally:
        _notes = before
