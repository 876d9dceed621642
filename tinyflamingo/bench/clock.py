"""Times of several sides, measured in turns (A B A B), as medians. Every line of the benchmark uses them.

Not here: what is timed and what the times mean. Implements no section of the chapter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

SECONDS = 4.0  # approximate time for all rounds
ROUNDS = (7, 60)  # smallest and largest number
PAUSE = 0.01  # seconds between the sides: until the idle threads of the other side have stopped spinning
TURN = 0.05  # shortest turn in seconds: a shorter side runs several times, otherwise its wake-up time dominates


def milliseconds(sides: Sequence[Callable], seconds: float = SECONDS, rounds: tuple[int, int] = ROUNDS) -> list[float]:
    """Median milliseconds of one call of each side. Two calls before the first round are for warm-up."""
    repeats = [max(1, math.ceil(TURN / min(_seconds(side), _seconds(side)))) for side in sides]
    times: list[list[float]] = [[] for _ in sides]
    began = time.perf_counter()
    while len(times[0]) < rounds[0] or (time.perf_counter() - began < seconds and len(times[0]) < rounds[1]):
        for side, n, own_times in zip(sides, repeats, times, strict=True):
            time.sleep(PAUSE)
            own_times.append(_seconds(side, n))
    return [float(np.median(own_times)) * 1e3 for own_times in times]


def _seconds(side, n=1):
    """Seconds of one call: the mean of n calls."""
    start = time.perf_counter()
    for _ in range(n):
        side()
    return (time.perf_counter() - start) / n
