"""Names of types for hints: an array is NumPy's or autograd's box of one; parameters are nested dicts of arrays.

Implements no section of the chapter. Not here: shapes (``shapes.py``).
"""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any  # numpy.ndarray, or an autograd box that holds one
Params: TypeAlias = dict[str, Any]  # {name: Array, or Params}
Cache: TypeAlias = dict[str, Any] | None  # what completion keeps between calls (`ops/cache.py`); None: nothing
