"""Checks of the notebooks' exercises: ``from tinyflamingo.checks import check_07_1_phi``.

One module a notebook, ``nNN_*.py``; a check takes the reader's own function and says what is wrong with it. A
module is imported when one of its checks is asked for, not before.

Not here: the solutions (``notebooks/solutions``), and the proof that the checks notice (``tests/checks``).
"""

import importlib
import pkgutil

from .core import CheckFailed

__all__ = ["CheckFailed"]


def __getattr__(name):
    number = name.removeprefix("check_")[:2]
    if name.startswith("check_") and number.isdigit():
        for module in pkgutil.iter_modules(__path__):
            if module.name.startswith(f"n{number}_"):
                return getattr(importlib.import_module(f".{module.name}", __name__), name)
    raise AttributeError(f"there is no check called {name!r}")
