"""How much slower this machine is at the moment than the one for which the limits of processor time were chosen.

On a machine that others share, the same work took 1.6 times as many seconds of the processor a few minutes later. So a
limit is multiplied by the time of a fixed work, in Python and in matrix products, over its usual time.
"""

import time

import numpy as np

from tinyflamingo.ops.team import one_team

USUAL = 0.45  # seconds of the processor for `work`; a shared Intel Xeon (emeraldrapids) took 0.54 to 0.89


def slowness() -> float:
    """1 on a usual machine or a faster one, more on a slower one."""
    with one_team():  # threads of BLAS that wait for work use the processor too
        began = time.process_time()
        work()
        return max(1.0, (time.process_time() - began) / USUAL)


def work() -> None:
    """As much Python as arithmetic, as in a notebook."""
    numbers, words, a = {}, [], np.ones((256, 256), np.float32)
    for i in range(2_000_000):
        numbers[i % 1000] = numbers.get(i % 1000, 0) + i
        if i % 4000 == 0:
            a = np.tanh(a @ a)
            words.append(str(i))
