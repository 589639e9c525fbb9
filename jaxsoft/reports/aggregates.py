"""Algorithms compared over tasks and seeds: aggregate metrics, profiles and probabilities, with bootstrap intervals.

x_mn is the score of seed n in task m of M. Scores are given task by task, each [..., num_seeds]; the tasks may have
different numbers of seeds, and leading axes are those of resamples. A seed that failed has the score −∞.

Sources: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", arXiv:2108.13264.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from jaxsoft.reports.statistics import FEWEST, NUM_RESAMPLES, Interval, Range, expanded_tail, iqm

Scores = Sequence[np.ndarray] | np.ndarray
"""One array [..., num_seeds] for each task."""

Statistic = Callable[..., np.ndarray]
"""From the scores of one or more algorithms, with leading axes, to [...] or [..., k]."""

NUM_BAND_RESAMPLES = 2_000
"""Resamples for the bands of curves."""

MOST_NUMBERS = 1_000_000
"""Numbers that are resampled at once."""


def interquartile_mean(scores: Scores) -> np.ndarray:
    """The mean of the middle half of all scores of all tasks; [...]."""
    return iqm(np.concatenate(scores, axis=-1))


def mean(scores: Scores) -> np.ndarray:
    """1/M Σ_m mean_n x_mn; [...]."""
    return np.mean(_task_means(scores), axis=-1)


def median(scores: Scores) -> np.ndarray:
    """median_m mean_n x_mn; of a single task, whose mean that is, median_n x_n; [...]."""
    return np.median(scores[0] if len(scores) == 1 else _task_means(scores), axis=-1)


def optimality_gap(scores: Scores, gamma: float = 1.0) -> np.ndarray:
    """1/M Σ_m mean_n max(γ − x_mn, 0): how far scores fall short of γ; [...]."""
    return mean([np.maximum(gamma - x, 0) for x in scores])


def performance_profile(scores: Scores, taus: np.ndarray) -> np.ndarray:
    """F(τ) = 1/M Σ_m mean_n 1[x_mn > τ]; taus [num_taus] -> [..., num_taus]."""
    ordered = [np.sort(x, axis=-1) for x in scores]
    return np.stack([mean([x > tau for x in ordered]) for tau in taus], axis=-1)


def probability_of_improvement(x: Scores, y: Scores) -> np.ndarray:
    """P(X > Y) = 1/M Σ_m mean_ij S(x_mi, y_mj), where S is 1 for x > y, ½ for x = y and 0 for x < y; [...].

    Both algorithms' scores are of the same tasks in the same order.
    """
    pairs = ((a[..., :, None], b[..., None, :]) for a, b in zip(x, y, strict=True))
    return np.mean([np.mean((a > b) + 0.5 * (a == b), axis=(-2, -1)) for a, b in pairs], axis=0)


def _task_means(scores: Scores) -> np.ndarray:
    """mean_n x_mn; [..., M]."""
    return np.stack([np.mean(x, axis=-1) for x in scores], axis=-1)


def confidence_bounds(statistic: Statistic, *samples: Scores, num_resamples: int = NUM_RESAMPLES) -> np.ndarray:
    """The ends of a statistic's 95 % interval: expanded percentiles of a stratified bootstrap, see `iqm_interval`.

    Seeds are resampled within each task of each sample, one algorithm's scores, task by task [num_seeds]; n is the
    smallest number of seeds of any. The same scores always give the same interval.

    Returns:
        [2] or, of a statistic with k entries, [2, k]; NaN where some task has fewer than five seeds.
    """
    num_seeds = min(len(x) for scores in samples for x in scores)
    if num_seeds < FEWEST:
        return np.full((2, *np.shape(statistic(*samples))), np.nan)
    resampled = np.concatenate([statistic(*part) for part in _resample(samples, num_resamples)])
    tail = expanded_tail(num_seeds, 0.95)
    return np.quantile(resampled, (tail, 1 - tail), axis=0, method="inverted_cdf")  # between −∞ and 1 is nothing


def _resample(samples: Sequence[Scores], num_resamples: int) -> Iterator[list[list[np.ndarray]]]:
    """Resamples of the samples, some at a time: of each task [num_some, num_seeds]."""
    rng = np.random.default_rng(0)
    ordered = [[np.sort(x) for x in scores] for scores in samples]
    drawn = [[rng.integers(len(x), size=(num_resamples, len(x)), dtype=np.int32) for x in xs] for xs in ordered]
    size = max(1, MOST_NUMBERS // max(np.prod([len(x) for x in xs]) for xs in zip(*samples, strict=True)))
    for i in range(0, num_resamples, size):
        yield [
            [x[own[i : i + size]] for x, own in zip(xs, numbers, strict=True)]
            for xs, numbers in zip(ordered, drawn, strict=True)
        ]


def interval_of(statistic: Statistic, *samples: Scores) -> Interval:
    """A number with its 95 % interval; where a task has fewer than five seeds a `Range` with ends that are NaN."""
    point = float(statistic(*samples))
    low, high = map(float, confidence_bounds(statistic, *samples))
    return Range(point, low, high) if np.isnan(low) else Interval(point, low, high)


def aggregate_intervals(scores: Scores, gamma: float | None) -> dict[str, Interval]:
    """IQM, median, mean and, for a given γ, optimality gap, by name.

    Where a task has fewer than five seeds the ends are the smallest and the largest score, of the gap max(γ − x, 0);
    of a single score NaN.
    """
    pooled = np.concatenate(scores)
    statistics: dict[str, tuple[Statistic, np.ndarray]] = {
        "iqm": (interquartile_mean, pooled),
        "median": (median, pooled),
        "mean": (mean, pooled),
    }
    if gamma is not None:
        statistics["optimality_gap"] = (partial(optimality_gap, gamma=gamma), np.maximum(gamma - pooled, 0))
    intervals = {}
    for name, (statistic, values) in statistics.items():
        interval = interval_of(statistic, scores)
        if isinstance(interval, Range) and len(values) > 1 and not np.isnan(values).any():
            interval = Range(interval.point, float(values.min()), float(values.max()))
        intervals[name] = interval
    return intervals


def profile_bands(scores: Scores, taus: np.ndarray) -> np.ndarray:
    """The performance profile at thresholds [num_taus] and the ends of its intervals; [num_taus, 3]."""
    profile = partial(performance_profile, taus=taus)
    ends = confidence_bounds(profile, scores, num_resamples=NUM_BAND_RESAMPLES)
    return np.stack([profile(scores), *ends], axis=-1)


def sample_efficiency(curves: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]) -> tuple[np.ndarray, np.ndarray]:
    """The interquartile mean of all scores after t environment steps, with its interval, over t.

    A seed's score after t steps is that of its last report until then. The curve begins where all have reported, and
    ends where the first has come to its end.

    Args:
        curves: for each task, the runs in it: timesteps [num_reports] and scores [num_reports, num_seeds].

    Returns:
        timesteps [n] of all reports, and intervals [n, 3].
    """
    runs = [run for task in curves for run in task]
    first, last = max(steps[0] for steps, _ in runs), min(steps[-1] for steps, _ in runs)
    timesteps = np.unique(np.concatenate([steps for steps, _ in runs]))
    timesteps = timesteps[(timesteps >= first) & (timesteps <= last)]
    intervals = np.empty((len(timesteps), 3))
    for i, timestep in enumerate(timesteps):
        scores = [
            np.concatenate([rows[np.searchsorted(steps, timestep, side="right") - 1] for steps, rows in task])
            for task in curves
        ]
        ends = confidence_bounds(interquartile_mean, scores, num_resamples=NUM_BAND_RESAMPLES)
        intervals[i] = interquartile_mean(scores), *ends
    return timesteps, intervals
