"""Which floor the operations run on: the readable reference, or the fast one that equals it.

The environment variable TINYFLAMINGO_OPS says ``reference`` or ``fast`` (the default) and is read
at the first call; ``use`` overrides it inside a ``with`` block. Numba is loaded only by ``fast``.
"""

import contextlib
import importlib
import os

from tinyflamingo.errors import UserError

NAMES = ("reference", "fast")
_current = None


def _load(name):
    if name not in NAMES:
        raise ValueError(f"the operations' floor is 'reference' or 'fast', not {name!r}")
    return importlib.import_module(f"{__package__}.{name}")


def backend():
    """The module that does the work: ``ops.reference`` or ``ops.fast``."""
    global _current
    if _current is None:
        asked = os.environ.get("TINYFLAMINGO_OPS", "fast")
        if asked not in NAMES:
            raise UserError(f"TINYFLAMINGO_OPS must be 'reference' or 'fast', not {asked!r}")
        _current = _load(asked)
    return _current


def backend_name():
    """ "reference" or "fast"."""
    return backend().__name__.rpartition(".")[2]


@contextlib.contextmanager
def use(name):
    """Run a ``with`` block on the ``"reference"`` or on the ``"fast"`` floor."""
    global _current
    before, _current = _current, _load(name)
    try:
        yield
    finally:
        _current = before
