"""One exercise in the catalogue of answers, ``cards_NN.py``: CARDS = [Card(...), ...].

    Card(
        key="07.1",
        check=check_07_1_phi,
        wrong=[
            (counts_tags_before, "its own image"),  # the answer, and a regex of the hint that it must get
            (counts_from_zero, "0 means"),
        ],
        right=[with_a_loop],  # other ways to the same result, which must pass
    )

The solution and the untouched stub come from the notebook's source, not from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Card:
    """An exercise's number, its check, at least two wrong answers, each with its hint, and other right answers."""

    key: str
    check: Callable
    wrong: list = field(default_factory=list)
    right: list = field(default_factory=list)
