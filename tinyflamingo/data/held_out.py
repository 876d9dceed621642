"""Which records of the user's own data training never sees: one function decides it for all stages and scores.

Serves chapter §5: a score says something only about pictures that no stage has seen. Records that show the same
picture stay together, directly or over other records. Records of one group (an artist, a scene) or of one class can
be held out together too. The choice is a function of the records alone, so every run on the same data has the same.

Not here: the store that keeps the records (`store.py`), and the scores (`own_data/scores.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.ops.types import Array

SEED = 20220429  # of the random order in which records are held out
PART = 20  # one record in 20 is held out, or one group, or one class
LEAST = {"group": 1, "class": 5}  # fewest groups, and fewest classes, so that there are five ways
MOST_CLASSES = 5  # at most one class in 5 is held out
MODES = ("picture", "group", "class", "nothing")


def held_out(pictures: Array, groups: Array, classes: Array, by: str = "picture") -> np.ndarray:
    """Numbers of the records that training never sees, in order.

    pictures (n,): equal numbers for records that show the same picture; groups and classes (n,): their groups and
    classes by number, -1: none. by: one of `MODES`. Raises `UserError` if there are too few groups or classes.
    """
    if by == "nothing":
        return np.zeros(0, int)
    order = np.random.default_rng([SEED, 0]).permutation(len(pictures))
    if by == "picture":
        return np.flatnonzero(np.isin(pictures, _small_units(pictures, order, len(pictures) // PART)))
    named = groups if by == "group" else classes
    units = joined(pictures, named)
    present = list(dict.fromkeys(units[order][named[order] >= 0].tolist()))
    most = len(present) // 2 if by == "group" else len(present) // MOST_CLASSES
    number = min(most, max(LEAST[by], len(present) // PART))
    if not number:
        least = "two groups" if by == "group" else f"{MOST_CLASSES} classes"
        raise UserError(
            f"--hold-out {by} needs at least {least} that share no picture, but there are {len(present)}: "
            f"add the field {by!r} to the records, or choose another --hold-out"
        )
    return np.flatnonzero(np.isin(units, present[:number]))


def _small_units(units, order, room):
    """Units in random order, as long as all their records fit into the room."""
    sizes, chosen = np.bincount(units), []
    for unit in dict.fromkeys(units[order].tolist()):
        if sizes[unit] <= room:
            room -= sizes[unit]
            chosen.append(unit)
    return chosen


def joined(pictures: Array, named: Array) -> np.ndarray:
    """Equal numbers for records that are connected: by a picture or by a name, over any number of records.

    named: -1 connects nothing.
    """
    units = np.asarray(pictures)
    own = named.max(initial=-1) + 1 + np.arange(len(named))
    names = np.where(named >= 0, named, own)
    while True:  # each pass gives all records of a name, then all of a picture, their smallest number
        smaller = _smallest(_smallest(units, names), pictures)
        if np.array_equal(smaller, units):
            return units
        units = smaller


def _smallest(values, keys):
    """For each record the smallest value among the records with its key."""
    _, places = np.unique(keys, return_inverse=True)
    smallest = np.full(places.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, places, values)
    return smallest[places]
