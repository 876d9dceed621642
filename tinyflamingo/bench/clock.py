"""Times taken in turn, A B A B, as medians (serves every line of the benchmark).

Not here: what is timed and what the times mean.
"""

from __future__ import annotations

import math
import time

import numpy as np

SECONDS = 4.0  # spent on all rounds, about
ROUNDS = (7, 60)  # fewest and most
PAUSE = 0.01  # seconds between the sides: until the other side's idle threads have stopped spinning
TURN = 0.05  # least length of a turn: what is shorter runs several times, or waking up would count most


def milliseconds(sides, seconds=SECONDS) -> list:
    """Median milliseconds of one call of each side. Two calls before the first round warm up."""
    repeats = [max(1, math.ceil(TURN / min(_seconds(side), _seconds(side)))) for side in sides]
    began, times = time.perf_counter(), [[] for _ in sides]
    while len(times[0]) < ROUNDS[0] or (time.perf_counter() - began < seconds and len(times[0]) < ROUNDS[1]):
        for side, n, found in zip(sides, repeats, times, strict=True):
            time.sleep(PAUSE)
            found.append(_seconds(side, n))
    return [float(np.median(found)) * 1e3 for found in times]


def _seconds(side, n=1):
    """Seconds of a call, over n calls."""
    start = time.perf_counter()
    for _ in range(n):
        side()
    return (time.perf_counter() - start) / n
