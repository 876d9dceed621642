"""Nested dicts of arrays: names, flat vectors, counts.

Parameters are nested dicts. An optimiser needs one long vector, a file needs one name for each array. This file
converts between these forms. It implements no section of the chapter.
"""

from __future__ import annotations

import numpy as np

from tinyflamingo.errors import UserError

from .types import Array, Params

DEEPEST = 100  # parts of a name


def named_leaves(tree: Params, prefix: str = "") -> dict[str, Array]:
    """{"a/b/c": array} in the order of the dicts."""
    flat: dict[str, Array] = {}
    for name, value in tree.items():
        flat |= named_leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


def from_named_leaves(flat: dict[str, Array]) -> Params:
    """The inverse of `named_leaves`. Raises `ValueError` for a name with more than `DEEPEST` parts."""
    tree: Params = {}
    for path, value in flat.items():
        if path.count("/") >= DEEPEST:
            raise ValueError(f"the name {path[:40]!r} has more than {DEEPEST} parts")
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def flatten(tree: Params) -> Array:
    """All leaves in one vector of their common dtype."""
    return np.concatenate([np.ravel(leaf) for leaf in named_leaves(tree).values()])


def view_tree(vector: Array, like: Params) -> Params:
    """A tree with the shapes of `like`. Its leaves are views into `vector`: a change in one is in both."""
    flat, start = {}, 0
    for name, leaf in named_leaves(like).items():
        flat[name] = vector[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
    return from_named_leaves(flat)


def count(tree: Params) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(int(np.size(leaf)) for leaf in named_leaves(tree).values())


def half_precision(tree: Params) -> Params:
    """The same tree rounded to float16, in arrays of float32.

    Frozen parts are stored in 16 bits (the paper uses bfloat16): files have half the size, and the later stages train
    with exactly the numbers that are read back from a file. Raises `UserError` as `in_half`.
    """
    return from_named_leaves({name: leaf.astype(np.float32) for name, leaf in in_half(named_leaves(tree)).items()})


def in_half(leaves: dict[str, Array]) -> dict[str, Array]:
    """Named arrays in float16. A number that has no place there, also NaN, is a `UserError` with the array's name."""
    with np.errstate(over="ignore"):
        halves = {name: np.asarray(leaf, np.float16) for name, leaf in leaves.items()}
    for name, half in halves.items():
        if not np.isfinite(half).all():
            raise UserError(f"{name} has a number beyond 65504, the largest of 16 bits, or NaN: train it again")
    return halves
