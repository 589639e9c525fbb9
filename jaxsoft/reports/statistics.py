"""Statistics of few, skewed numbers: returns over seeds.

Sources: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
arXiv:2108.13264 (interquartile mean, stratified bootstrap). Hesterberg 2015, "What teachers should know about the
bootstrap", arXiv:1411.5279 (expanded percentiles).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

TRIMMED = 0.25
"""Share of the numbers left out at each end of an interquartile mean."""

FEWEST = 5
"""Seeds below which no interval covers what it says: there the ends are the smallest and the largest number."""

NUM_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A point estimate and the ends of its 95 % confidence interval."""

    point: float
    low: float
    high: float

    def in_words(self, spec: str = ".1f") -> str:
        """`2.0 [1.0, 3.0]`, numbers as `spec` formats them; without an interval the point alone."""
        ends = "" if np.isnan(self.low) else f" [{self.low:{spec}}, {self.high:{spec}}]"
        return f"{self.point:{spec}}{ends}"

    def __str__(self) -> str:
        return self.in_words()


class Range(Interval):
    """A point estimate of too few numbers for an interval, and the smallest and the largest of them; NaN of one."""

    __slots__ = ()

    def in_words(self, spec: str = ".1f") -> str:
        """`2.0 (1.0 – 3.0)`."""
        ends = "" if np.isnan(self.low) else f" ({self.low:{spec}} – {self.high:{spec}})"
        return f"{self.point:{spec}}{ends}"


def count_in_words(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def ends_in_words(num_seeds: int) -> str:
    """What `iqm_interval` gives beside its point for so many seeds, for a table's header; nothing for one seed.

    >>> ends_in_words(8), ends_in_words(4), ends_in_words(1)
    (' [95 % interval]', ' (min – max)', '')
    """
    return " [95 % interval]" if num_seeds >= FEWEST else " (min – max)" * (num_seeds > 1)


def json_numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, which has no infinity and no NaN: they are None."""
    return [float(x) if np.isfinite(x) else None for x in values]


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean of the middle half.

    >>> float(iqm(np.array([-100.0, 1.0, 2.0, 300.0])))
    1.5
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=axis)
    num = ordered.shape[axis]
    trimmed = int(TRIMMED * num)
    return np.asarray(np.mean(np.take(ordered, np.arange(trimmed, num - trimmed), axis=axis), axis=axis))


def rank(scores: Sequence[Any]) -> np.ndarray:
    """Positions of the scores from the highest to the lowest; NaN is the lowest, and of equal ones the first leads.

    >>> rank([1.0, np.nan, 3.0, 3.0]).tolist()
    [2, 3, 0, 1]
    """
    return np.argsort(-np.nan_to_num(np.asarray(scores, float), nan=-np.inf), kind="stable")


def iqm_interval(scores: np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The interquartile mean over seeds and tasks, with the expanded percentile interval of a stratified bootstrap.

    Its ends are the quantiles Φ(∓t) of the resampled means, for n seeds and t that of Student's distribution with n − 1
    degrees of freedom. The plain percentiles, Φ(∓z), take the spread of n numbers for that of all there could be: with
    8 seeds their 95 % cover the truth in 92 % of cases, these in 96 % (`benchmarks/coverage.md`), and with a further
    factor √(n/(n − 1)) of t, as Hesterberg has it, in 97 %.

    Args:
        scores: [num_seeds] or [num_seeds, num_tasks]. Seeds are resampled within each task (the strata).
        confidence: of the interval.
        seed: of the resampling, so that the same scores always give the same interval.

    Returns:
        The estimate and its interval; below five seeds a `Range`. A seed that failed has the score −∞ and counts as
        the worst: an end, or the estimate, is −∞ where failed seeds are in the middle half. With a single seed, or a
        score that is NaN or +∞, the ends are NaN.
    """
    scores = np.asarray(scores, np.float64)
    num_seeds, ordered = len(scores), np.sort(scores, axis=None)
    point = float(iqm(ordered))
    kind = Interval if num_seeds >= FEWEST else Range
    if num_seeds < 2 or not (np.isfinite(ordered) | np.isneginf(ordered)).all():
        return kind(point, float("nan"), float("nan"))
    if num_seeds < FEWEST:
        return Range(point, float(ordered[0]), float(ordered[-1]))
    tasks = np.broadcast_to(np.arange(scores[0].size), (num_seeds, scores[0].size)).ravel()
    middle = _resampled_middles(tuple(tasks[np.argsort(scores, axis=None, kind="stable")].tolist()), seed)
    means = ordered[middle].mean(axis=1)
    tail = expanded_tail(num_seeds, confidence)
    low, high = np.quantile(means, (tail, 1 - tail), method="inverted_cdf")  # between −∞ and 1 is nothing
    return Interval(point, float(low), float(high))


def expanded_tail(num_seeds: int, confidence: float) -> float:
    """Probability beyond each end of an expanded percentile interval."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-stdtrit(num_seeds - 1, (1 + confidence) / 2)))


@lru_cache(maxsize=4)
def _resampled_middles(tasks: tuple[int, ...], seed: int) -> np.ndarray:
    """Which scores the middle half of each resample consists of: the same ones whatever the scores are.

    Args:
        tasks: of the scores in ascending order, [num_scores].
        seed: of the resampling.

    Returns:
        Positions in ascending order, [NUM_RESAMPLES, ⌈num_scores / 2⌉] or so, int32.
    """
    rng, task_numbers = np.random.default_rng(seed), np.array(tasks)
    drawn = []
    for task in np.unique(task_numbers):
        own = np.flatnonzero(task_numbers == task).astype(np.int32)
        drawn.append(own[rng.integers(len(own), size=(NUM_RESAMPLES, len(own)), dtype=np.int32)])
    positions, trimmed = np.sort(np.concatenate(drawn, axis=1), axis=1), int(TRIMMED * len(tasks))
    return np.ascontiguousarray(positions[:, trimmed : len(tasks) - trimmed])
