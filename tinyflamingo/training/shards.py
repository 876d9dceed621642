"""The gradient of a batch that is cut into shards, one for each worker (all stages).

Two cases. A loss that is a sum over rows is also a sum over shards, and so is its gradient. A contrastive
loss needs the vectors of all rows at once: each shard goes forward to its vectors, the loss joins them,
and each shard goes backward from its part of the gradient. Sums are taken in the order of the shards, so
the bits depend only on the number of shards. With several ranks each rank has its own shards, and may have
none; the result is the sum over all ranks.

Pictures are drawn here too: every rank draws a part of them.

Not here: the losses (the stages), the threads (`ops/team.py`), the ranks (`ranks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.team import spread
from tinyflamingo.ops.tree import count, flatten, view_tree
from tinyflamingo.ops.types import Params
from tinyflamingo.training.ranks import own_run, whole, world

BLOCK = 64  # pictures that are drawn with one generator


def own_jobs(rng: np.random.Generator, jobs: list, cost: Callable = lambda job: 1) -> list[tuple]:
    """This rank's part of the jobs of a step, as pairs (job, generator).

    Every job has its own generator. So a rank draws only its own part, and what is drawn does not depend on the ranks.
    cost: (job) -> its work, in any unit: all ranks get about the same.
    """
    owners = spread([cost(job) for job in jobs], world().size)
    pairs = zip(jobs, rng.spawn(len(jobs)), strict=True)
    return [pair for pair, owner in zip(pairs, owners, strict=True) if owner == world().rank]


class Drawings:
    """Pictures that are drawn when they are first needed, so that training begins soon.

    Every rank draws a part of them. Every block has its own generator, so its pictures do not depend on the order.
    """

    def __init__(self, rng: np.random.Generator, draw: Callable, things: list) -> None:
        """draw(generator, thing) -> one picture."""
        self.draw = draw
        self.blocks = [things[i : i + BLOCK] for i in range(0, len(things), BLOCK)]
        self.rngs = rng.spawn(len(self.blocks))
        self.pictures: dict[int, np.ndarray] = {}  # number of a block -> its pictures

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """The pictures with these numbers, stacked. All ranks ask for the same."""
        missing = sorted({int(n) // BLOCK for n in numbers} - self.pictures.keys())
        if missing:
            ends = np.cumsum([len(self.blocks[b]) for b in missing])[:-1]
            new = np.array(self.drawn(missing))  # a copy: what ranks join is a file, which stays open while it is used
            self.pictures.update(zip(missing, np.split(new, ends), strict=True))
        return np.stack([self.pictures[n // BLOCK][n % BLOCK] for n in numbers])

    def drawn(self, blocks: Sequence[int]) -> np.ndarray:
        """The pictures of some blocks, stacked. A block is drawn once: its generator would then give other pictures."""
        return whole(
            lambda run: np.stack([self.draw(self.rngs[b], thing) for b in blocks[run] for thing in self.blocks[b]]),
            len(blocks),
        )


def drawn(rng: np.random.Generator, draw: Callable, things: list) -> np.ndarray:
    """`draw(generator, thing)` of all things, stacked. Every rank draws a part of them."""
    drawings = Drawings(rng, draw, things)
    return drawings.drawn(range(len(drawings.blocks)))


def own_rows(*arrays: np.ndarray) -> tuple:
    """This rank's run of rows of all arrays."""
    return tuple(x[own_run(len(x))] for x in arrays)


def cut_rows(*arrays: np.ndarray) -> list[tuple]:
    """One shard for every worker of this rank: a tuple with nearly equal runs of rows of this rank's arrays."""
    n = min(ops.workers(), len(arrays[0]))
    return list(zip(*(np.array_split(x, n) for x in arrays), strict=True)) if n else []


def summed_gradient(loss_fn: Callable, params: Params, shards: list) -> tuple[float, list[float], np.ndarray]:
    """`loss_fn(params, shard) -> (loss, parts)`, summed over all shards of all ranks.

    parts: a sequence of numbers to report beside the loss; it may be empty. Returns (loss, parts, gradient vector).
    """

    def work(shard):
        (loss, parts), gradients = ops.value_and_grad(loss_fn)(params, shard)
        return loss, parts, flatten(gradients)

    results = ops.parallel_map(work, shards)
    numbers = np.array([[loss, *parts] for loss, parts, _ in results] or np.zeros((0, 0)), np.float64)
    loss, *sums = np.concatenate(world().gather(numbers)).sum(axis=0).tolist()
    return loss, sums, world().allreduce(_sum([vector for _, _, vector in results], params))


def joined_gradient(
    rows_fn: Callable, loss_fn: Callable, params: Params, head: Params, shards: list
) -> tuple[float, np.ndarray]:
    """`loss_fn(head, joined) -> loss`, where joined is `rows_fn(params, shard)` of all shards, in order.

    head: the params that the loss itself reads. Returns (loss, gradient vector of the params).
    """
    forward = ops.parallel_map(lambda shard: ops.vjp(rows_fn, params, shard), shards)
    rows = [y for y, _, _ in forward]
    ranks = world().gather(np.concatenate(rows) if rows else np.zeros((0, 0), np.float32))
    both = {"head": head, "joined": np.concatenate(ranks)}
    loss, gradients = ops.value_and_grad(lambda p: loss_fn(p["head"], p["joined"]))(both)
    own_rows = np.split(gradients["joined"], np.cumsum([len(y) for y in ranks])[:-1])[world().rank]
    pieces = np.split(own_rows, np.cumsum([len(y) for y in rows])[:-1]) if rows else []
    pulls = [pull for _, _, pull in forward]
    work = [(pull, part) for pull, part in zip(pulls, pieces, strict=True)]
    total = world().allreduce(_sum(ops.parallel_map(lambda pair: flatten(pair[0](pair[1])), work), params))
    leaves = view_tree(total, params)
    for name, gradient in gradients["head"].items():
        leaves[name] += gradient
    return loss, total


def _sum(vectors, params):
    """The sum of gradient vectors; zeros for a rank without a shard."""
    if not vectors:
        return np.zeros(count(params), np.float32)
    total = vectors[0]
    for vector in vectors[1:]:
        total += vector
    return total
