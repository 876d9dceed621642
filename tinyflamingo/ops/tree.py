"""Nested dicts of arrays: names, flat vectors, counts.

Parameters are plain nested dicts. An optimiser would rather have one long vector, a file one name an
array; this file goes back and forth. It implements no section of the chapter.
"""

from __future__ import annotations

import numpy as np


def named_leaves(tree, prefix="") -> dict:
    """{"a/b/c": array} in the order of the dicts."""
    flat = {}
    for name, value in tree.items():
        flat |= named_leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


def from_named_leaves(flat: dict) -> dict:
    """The inverse of `named_leaves`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def flatten(tree):
    """All leaves in one vector of their common dtype."""
    return np.concatenate([np.ravel(leaf) for leaf in named_leaves(tree).values()])


def view_tree(vector, like) -> dict:
    """A tree shaped as `like` whose leaves are views into `vector`: change one, change both."""
    flat, place = {}, 0
    for name, leaf in named_leaves(like).items():
        flat[name] = vector[place : place + leaf.size].reshape(leaf.shape)
        place += leaf.size
    return from_named_leaves(flat)


def count(tree) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(int(np.size(leaf)) for leaf in named_leaves(tree).values())


def half_precision(tree):
    """The same tree rounded to what 16 bits hold, in arrays of float32.

    Frozen parts are kept so (the paper stores them in bfloat16): files are half the size, and the
    stages that follow train against exactly the numbers that a file gives back.
    """
    return from_named_leaves(
        {name: np.asarray(leaf, np.float16).astype(np.float32) for name, leaf in named_leaves(tree).items()}
    )
