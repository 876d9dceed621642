"""Muon: hidden matrices move by orthogonal matrices, all other parameters as AdamW says (Jordan 2024).

A gradient of a matrix has few large singular values and many small ones, so a usual step moves the matrix in few
directions. Muon replaces the momentum by the orthogonal matrix nearest to it: all singular values become about 1, and
every direction that the momentum has moves alike. All stages learn more in the same steps (docs/deviations.md). Serves
chapter §2 and §4. Not here: AdamW itself and the schedule (`optimiser.py`).
"""

from __future__ import annotations

import numpy as np

from tinyflamingo import ops
from tinyflamingo.ops.tree import named_leaves
from tinyflamingo.ops.types import Array, Params
from tinyflamingo.training.optimiser import AdamW, OptimiserConfig, learning_rate
from tinyflamingo.training.ranks import own_run, world

# Coefficients of x, x^3 and x^5 in three polynomials. One after the other they take singular values in [0.01, 1] to
# 1 +- 0.27. Each is the best approximation of 1 on the interval that the one before leaves (Amsel et al. 2025).
QUINTICS = (8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526)
WIDE = 1.5  # if the long side is more than this many times the short one, one product with all factors is faster
SIZE = 0.2  # root mean square of a move at rate 1, as AdamW's moves have: one learning rate serves both


class Muon(AdamW):
    """AdamW for all parameters except hidden matrices and kernels (`is_moved`), which Muon moves.

    Their momentum is AdamW's first moment.
    """

    def __init__(self, params: Params, config: OptimiserConfig, no_decay: tuple[str, ...] = ()) -> None:
        super().__init__(params, config, no_decay)
        self.matrices, place = [], 0  # (place in the vector, shape) of each
        for name, leaf in named_leaves(params).items():
            if is_moved(name):
                shape = -1, leaf.shape[-1]  # a kernel is a matrix too: from taps and channels to channels
                self.matrices.append((slice(place, place + leaf.size), shape))
            place += leaf.size

    def step(self, gradient: np.ndarray, step: int, steps: int) -> float:
        """One update by a gradient vector; returns the norm of the gradient before clipping. See `AdamW.step`.

        AdamW's rule changes the matrices too, so each rank keeps a part of them as they were, and moves that part.
        """
        own = self.matrices[own_run(len(self.matrices))]
        before = [self.vector[part].copy() for part, _ in own]
        norm = super().step(gradient, step, steps)
        rate = np.float32(learning_rate(self.config, step, steps))
        moved = ops.parallel_map(lambda pair: self._moved(pair[0], pair[1], rate), list(zip(own, before, strict=True)))
        all_moved = np.concatenate(world().gather(np.concatenate([np.zeros(0, np.float32), *moved])))
        place = 0
        for part, _ in self.matrices:
            size = part.stop - part.start
            self.vector[part] = all_moved[place : place + size]
            place += size
        return norm

    def _moved(self, matrix, before, rate):
        """A matrix after its move, as a vector."""
        part, shape = matrix
        change = muon_move(self.m[part].reshape(shape)).ravel()
        change += self.decay[part] * before
        change *= rate
        return np.subtract(before, change, out=change)


def is_moved(name: str) -> bool:
    """Whether a parameter is a hidden matrix or a kernel, by its name."""
    last = name.rpartition("/")[2]
    return last == "w" or last.startswith("w_")


def muon_move(momentum: Array) -> Array:
    """The move of a matrix at rate 1. (m, n) -> (m, n)"""
    return orthogonalised(momentum) * np.float32(SIZE * max(momentum.shape) ** 0.5)


def orthogonalised(matrix: Array) -> Array:
    """About U V^T for a matrix U S V^T: the same singular vectors, with singular values near 1.

    (m, n) -> (m, n). A Newton-Schulz iteration, which needs only products of matrices. Singular values below 0.01 of
    the matrix's norm grow at most 78 times, so they stay below 1.
    """
    rows, columns = matrix.shape
    if columns < rows <= WIDE * columns:
        return orthogonalised(matrix.T).T  # the smaller square costs less
    x = matrix / ((matrix * matrix).sum() ** np.float32(0.5) + np.float32(1e-7))
    if columns > WIDE * rows:
        return _joint_factor(x @ x.T) @ x
    if rows > WIDE * columns:
        return x @ _joint_factor(x.T @ x)
    for coefficients in QUINTICS:
        x = _factor(x @ x.T, *coefficients) @ x
    return x


def _factor(square, a, b, c):
    """a I + b S + c S^2 for S = x x^T. Times x it is the polynomial of x: a x + b x x^T x + c x x^T x x^T x.

    For S = x^T x, x times it is the same.
    """
    factor = square @ square
    factor *= np.float32(c)
    factor += np.float32(b) * square
    factor.ravel()[:: len(factor) + 1] += np.float32(a)  # the diagonal
    return factor


def _joint_factor(square):
    """The product of the factors of all iterations, from S = x x^T alone: if x becomes F x, S becomes F S F^T.

    All matrices here are polynomials of S, so they are symmetric, and their order in a product does not matter.
    """
    joint = factor = _factor(square, *QUINTICS[0])
    for coefficients in QUINTICS[1:]:
        square = square @ (factor @ factor)
        factor = _factor(square, *coefficients)
        joint = factor @ joint
    return joint
