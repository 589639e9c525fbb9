"""Statistics of few, skewed numbers: returns over seeds.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
arXiv:2108.13264.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TRIMMED = 0.25
"""Share of the numbers left out at each end of an interquartile mean."""


class Interval(NamedTuple):
    """A point estimate and the ends of its confidence interval."""

    point: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.point:.1f} [{self.low:.1f}, {self.high:.1f}]"


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean of the middle half.

    >>> float(iqm(np.array([-100.0, 1.0, 2.0, 300.0])))
    1.5
    """
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(scores, TRIMMED, axis=axis))


def iqm_interval(scores: np.ndarray, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0) -> Interval:
    """The interquartile mean over seeds and tasks, with a stratified percentile-bootstrap interval.

    Args:
        scores: [num_seeds] or [num_seeds, num_tasks]. Seeds are resampled within each task (the strata).
        confidence: of the interval.
        num_resamples: bootstrap resamples.
        seed: of the resampling, so that the same scores always give the same interval.

    Returns:
        The estimate and the interval. A seed that failed has the score −∞ and counts as the worst: an end, or the
        estimate, is −∞ where failed seeds are in the middle half. With a single seed, or a score that is NaN or +∞,
        the interval's ends are NaN.
    """
    from scipy.stats import bootstrap

    strata = np.atleast_2d(np.asarray(scores, np.float64).T)
    point = float(iqm(strata.ravel()))
    if strata.shape[1] < 2 or not (np.isfinite(strata) | np.isneginf(strata)).all():
        return Interval(point, float("nan"), float("nan"))
    if (strata == strata[:, :1]).all():
        return Interval(point, point, point)

    def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return iqm(np.concatenate(samples, axis=axis), axis=axis)

    with np.errstate(invalid="ignore"):  # the standard error, which nobody asked for, is −∞ less itself
        result = bootstrap(
            tuple(strata),
            statistic,
            confidence_level=confidence,
            n_resamples=num_resamples,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
    if np.isfinite(strata).all():
        return Interval(point, float(result.confidence_interval.low), float(result.confidence_interval.high))
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(result.bootstrap_distribution, ends, method="inverted_cdf")  # between −∞ and 1 is nothing
    return Interval(point, float(low), float(high))
