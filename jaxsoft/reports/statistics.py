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

AT_ONCE = 1 << 16
"""Resampled scores that fit the cache of a core."""


class Interval(NamedTuple):
    """A point estimate and the ends of its 95 % confidence interval."""

    point: float
    low: float
    high: float

    _ends = "[{}, {}]"

    def in_words(self, spec: str = ".1f") -> str:
        """`2.0 [1.0, 3.0]`, of a range `2.0 (1.0 – 3.0)`, numbers as `spec` formats them; without ends the point."""
        point, *ends = (f"{x:{spec}}" for x in self)
        return point if np.isnan(self.low) else f"{point} {self._ends.format(*ends)}"

    def __str__(self) -> str:
        return self.in_words()


class Range(Interval):
    """A point estimate of too few numbers for an interval, and the smallest and the largest of them; NaN of one."""

    __slots__ = ()
    _ends = "({} – {})"


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
    resamples = _resample(tuple(tasks[np.argsort(scores, axis=None, kind="stable")].tolist()), seed)
    tail = expanded_tail(num_seeds, confidence)
    # between −∞ and 1 is nothing, so a quantile is one of the means
    ranks = np.quantile(np.arange(NUM_RESAMPLES), (tail, 1 - tail), method="inverted_cdf").tolist()
    low, high = _ranked_means(ordered, resamples, ranks)
    return Interval(point, float(low), float(high))


def expanded_tail(num_seeds: int, confidence: float) -> float:
    """Probability beyond each end of an expanded percentile interval."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-stdtrit(num_seeds - 1, (1 + confidence) / 2)))


class _Resamples(NamedTuple):
    """The middle halves of resamples: the same ones whatever the scores are.

    Attributes:
        positions: of the scores in them, in ascending order; [NUM_RESAMPLES, ⌈num_scores / 2⌉] or so.
        first: the lowest of all positions.
        counts: how often a score is in them; [NUM_RESAMPLES, all positions from the lowest to the highest], float32.
    """

    positions: np.ndarray
    first: int
    counts: np.ndarray


@lru_cache(maxsize=4)
def _resample(tasks: tuple[int, ...], seed: int) -> _Resamples:
    """Draws resamples; `tasks` [num_scores] are those of the scores in ascending order."""
    rng, task_numbers = np.random.default_rng(seed), np.array(tasks)
    drawn = []
    for task in np.unique(task_numbers):
        own = np.flatnonzero(task_numbers == task).astype(np.int32)
        drawn.append(own[rng.integers(len(own), size=(NUM_RESAMPLES, len(own)), dtype=np.int32)])
    ordered, trimmed = np.sort(np.concatenate(drawn, axis=1), axis=1), int(TRIMMED * len(tasks))
    positions = ordered[:, trimmed : len(tasks) - trimmed].astype(np.min_scalar_type(len(tasks)))
    first, last = int(positions.min()), int(positions.max())
    counts = np.array([np.bincount(row - first, minlength=last - first + 1) for row in positions], np.float32)
    return _Resamples(positions, first, counts)


def _ranked_means(ordered: np.ndarray, resamples: _Resamples, ranks: Sequence[int]) -> list[float]:
    """The means of resamples that have these ranks among all.

    A product in float32 gives all sums within a bound, a mean in float64 then those that are so near to one of the
    ranks, which count from 0, the lowest; scores [num_scores] are in ascending order. Thousands of seeds take
    milliseconds so, and the result is that of all means in float64.
    """
    positions, first, counts = resamples
    num_scores = counts.shape[1]
    scores = ordered[first : first + num_scores]
    if scores[0] == scores[-1]:
        positions, counts, ranks = positions[:1], counts[:1], [0] * len(ranks)
    with np.errstate(invalid="ignore", over="ignore"):
        centred = (scores - scores[num_scores // 2]).astype(np.float32)
        sums = np.einsum("ij,j", counts, centred)  # BLAS would wait for threads, whose cores may be busy training
        error = (num_scores + 2) * np.finfo(np.float32).eps * positions.shape[1] * float(np.abs(centred).max())
    if not np.isfinite(sums).all():  # a seed has failed, or float32 is too small
        sums, error = np.zeros(len(counts), np.float32), 0.0
    found, in_order = [], np.partition(sums, ranks).astype(np.float64)
    for rank in ranks:
        near = np.flatnonzero(np.abs(sums - in_order[rank]) <= 2 * error)
        parts = np.array_split(near, -(-near.size * positions.shape[1] // AT_ONCE))
        means = np.concatenate([ordered.take(positions[part].astype(np.intp)).mean(axis=1) for part in parts])
        num_below = int(np.sum(sums < in_order[rank] - 2 * error))
        found.append(float(np.partition(means, rank - num_below)[rank - num_below]))
    return found
