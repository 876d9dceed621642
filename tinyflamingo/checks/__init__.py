"""Checks of the exercises in the notebooks: ``from tinyflamingo.checks import check_07_1_phi``.

Each notebook has one module, ``nNN_*.py``. A check takes the reader's function and names its mistake. A module is
imported when one of its checks is used.

Not here: the solutions (``notebooks/solutions``) and the tests of the checks (``tests/checks``).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from .core import CheckFailed

__all__ = ["CheckFailed"]


def __getattr__(name: str) -> Any:
    number = name.removeprefix("check_")[:2]
    if name.startswith("check_") and number.isdigit():
        for module in pkgutil.iter_modules(__path__):
            if module.name.startswith(f"n{number}_"):
                return getattr(importlib.import_module(f".{module.name}", __name__), name)
    raise AttributeError(f"there is no check {name!r}")
