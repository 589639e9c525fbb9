"""Times of work that is repeated: warm-up, repeats that last long enough, median and range."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

MOST_GROWTH = 16
"""A repeat is made at most so many times longer at once: the first rounds may be slower than those that follow."""


class Spread(NamedTuple):
    """The median and the range of a quantity over repeats."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(*(x * factor for x in self))


class Effort(NamedTuple):
    """Seconds of a repeat, about, and the number of repeats."""

    seconds: float = 1.0
    repeats: int = 5


QUICK = Effort(0.2, 3)
SHORT = Effort(0.5, 5)


def measure_rate(call: Callable[[int], object], effort: Effort) -> tuple[Spread, int]:
    """Rounds per second, and how many rounds a repeat has; `call(n)` runs n rounds and waits for the device."""
    call(1)  # the first call of a program allocates
    num_rounds, seconds = 1, _seconds(call, 1)
    while seconds < 0.7 * effort.seconds:
        growth = min(MOST_GROWTH, effort.seconds / max(seconds, 1e-9))
        num_rounds = max(num_rounds + 1, int(num_rounds * growth))
        seconds = _seconds(call, num_rounds)
    rates = [num_rounds / _seconds(call, num_rounds) for _ in range(effort.repeats)]
    return Spread(statistics.median(rates), min(rates), max(rates)), num_rounds


def _seconds(call: Callable[[int], object], num_rounds: int) -> float:
    began = time.perf_counter()
    call(num_rounds)
    return time.perf_counter() - began
