"""Timing in turns: every round runs all once, so that what slows the machine slows all."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
_WARM_UP = 3


def interleaved(
    runs: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Times:
    """Seconds [runs, rounds] by `clock`, after a few rounds that do not count."""
    times = np.empty((len(runs), rounds))
    for round_ in range(-_WARM_UP, rounds):
        for place, run in enumerate(runs):
            start = clock()
            run()
            if round_ >= 0:
                times[place, round_] = clock() - start
    return times
