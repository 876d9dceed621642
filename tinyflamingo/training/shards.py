"""The gradient of a batch that is cut into shards, one for each worker (all stages).

Two cases. A loss that is a sum over rows is also a sum over shards, and so is its gradient. A contrastive
loss needs the vectors of all rows at once: each shard goes forward to its vectors, the loss joins them,
and each shard goes backward from its part of the gradient. Sums are taken in the order of the shards, so
the bits depend only on the number of shards. With several ranks each rank has its own shards, and the
result is the sum over all ranks.

Not here: the losses (the stages), the threads (`ops/team.py`), the ranks (`ranks.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.ops.types import Params
from tinyflamingo.training.ranks import own_part, world


def cut_rows(*arrays: np.ndarray) -> list[tuple]:
    """One shard for every worker of this rank: a tuple with nearly equal runs of rows of all arrays."""
    n = min(shard_count(), len(arrays[0]))
    return own_part(list(zip(*(np.array_split(x, n) for x in arrays), strict=True)))


def shard_count() -> int:
    """The number of shards of a batch: one for each worker of each rank."""
    return ops.workers() * world().size


def summed_gradient(loss_fn: Callable, params: Params, shards: list) -> tuple[float, list[float], np.ndarray]:
    """`loss_fn(params, shard) -> (loss, parts)`, summed over all shards of all ranks.

    parts: a sequence of numbers to report beside the loss; it may be empty. Returns (loss, parts, gradient vector).
    """

    def work(shard):
        (loss, parts), gradients = ops.value_and_grad(loss_fn)(params, shard)
        return loss, parts, flatten(gradients)

    losses, parts, vectors = zip(*ops.parallel_map(work, shards), strict=True)
    loss = world().allreduce(np.array([sum(losses)], np.float64))[0]
    sums = world().allreduce(np.asarray(np.sum(parts, axis=0, dtype=np.float64)))
    return float(loss), sums.tolist(), world().allreduce(_sum(vectors))


def joined_gradient(
    rows_fn: Callable, loss_fn: Callable, params: Params, head: Params, shards: list
) -> tuple[float, np.ndarray]:
    """`loss_fn(head, joined) -> loss`, where joined is `rows_fn(params, shard)` of all shards, in order.

    head: the params that the loss itself reads. Returns (loss, gradient vector of the params).
    """
    forward = ops.parallel_map(lambda shard: ops.vjp(rows_fn, params, shard), shards)
    rows = [y for y, _, _ in forward]
    ranks = world().gather(np.concatenate(rows))
    both = {"head": head, "joined": np.concatenate(ranks)}
    loss, gradients = ops.value_and_grad(lambda p: loss_fn(p["head"], p["joined"]))(both)
    own_rows = np.split(gradients["joined"], np.cumsum([len(y) for y in ranks])[:-1])[world().rank]
    pieces = np.split(own_rows, np.cumsum([len(y) for y in rows])[:-1])
    pulls = [pull for _, _, pull in forward]
    work = [(pull, part) for pull, part in zip(pulls, pieces, strict=True)]
    total = world().allreduce(_sum(ops.parallel_map(lambda pair: flatten(pair[0](pair[1])), work)))
    leaves = view_tree(total, params)
    for name, gradient in gradients["head"].items():
        leaves[name] += gradient
    return loss, total


def _sum(vectors):
    total = vectors[0]
    for vector in vectors[1:]:
        total += vector
    return total
