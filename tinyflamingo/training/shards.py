"""The gradient of a batch that was cut into shards, a worker each (all stages).

Two cases. A loss that is a sum over rows is a sum over shards, and so is its gradient. A contrastive
loss needs the vectors of all rows at once: shards go forward to their vectors, the loss joins them,
and each shard goes backward from its part of the gradient. Sums are taken in the order of the
shards, so the bits depend on the number of shards and on nothing else. With several ranks each has its
own shards, and what comes back is the sum over all ranks.

Not here: the losses (the stages), the threads (`ops/team.py`), the ranks (`ranks.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.tree import flatten, view_tree
from tinyflamingo.training.ranks import mine, world


def cut_rows(*arrays):
    """A shard for every worker: equal runs of rows of all arrays, as a list of tuples; of ranks, its own shards."""
    n = min(shard_count(), len(arrays[0]))
    return mine(list(zip(*(np.array_split(x, n) for x in arrays), strict=True)))


def shard_count() -> int:
    """How many shards a batch falls into: one for each worker of each rank."""
    return ops.workers() * world().size


def summed_gradient(loss_fn, params, shards):
    """`loss_fn(params, shard) -> (loss, parts)`, summed over all shards of all ranks.

    parts: a sequence of numbers, to be reported beside the loss; it may be empty. Returns (loss, parts, gradient
    vector).
    """

    def work(shard):
        (loss, parts), gradients = ops.value_and_grad(loss_fn)(params, shard)
        return loss, parts, flatten(gradients)

    losses, parts, vectors = zip(*ops.parallel_map(work, shards), strict=True)
    loss = world().allreduce(np.array([sum(losses)], np.float64))[0]
    parts = world().allreduce(np.sum(parts, axis=0, dtype=np.float64))
    return float(loss), parts.tolist(), world().allreduce(_sum(vectors))


def joined_gradient(rows_fn, loss_fn, params, head, shards):
    """`loss_fn(head, joined) -> loss`, where joined is `rows_fn(params, shard)` of all shards, in order.

    head: those of the params that the loss itself reads. Returns (loss, gradient vector of the params).
    """
    forward = ops.parallel_map(lambda shard: ops.vjp(rows_fn, params, shard), shards)
    rows = [y for y, _, _ in forward]
    ranks = world().gather(np.concatenate(rows))
    both = {"head": head, "joined": np.concatenate(ranks)}
    loss, gradients = ops.value_and_grad(lambda p: loss_fn(p["head"], p["joined"]))(both)
    mine_alone = np.split(gradients["joined"], np.cumsum([len(y) for y in ranks])[:-1])[world().rank]
    pieces = np.split(mine_alone, np.cumsum([len(y) for y in rows])[:-1])
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
