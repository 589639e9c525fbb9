"""The interquartile mean and its stratified bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from jaxsoft.reports import statistics
from jaxsoft.reports.statistics import Range, ends_in_words, iqm, iqm_interval

SCORES = np.random.default_rng(0).gamma(2.0, 10.0, 16)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, 2, 3, 4], 2.5),
        ([1000, 2, 3, -1000], 2.5),  # outliers do not count
        ([7], 7),
        ([1, 3], 2),
        ([1, 2, 30], 11),  # of fewer than four none is left out
        ([0, 1, 2, 3, 4, 5, 6, 7], 3.5),
        ([8, 1, 5, 2, 9], 5),  # one at each end of five
    ],
)
def test_iqm_by_hand(scores: list[float], expected: float) -> None:
    assert iqm(np.asarray(scores, float)) == pytest.approx(expected)


def test_iqm_is_the_mean_of_the_sorted_middle_along_an_axis() -> None:
    scores = np.random.default_rng(1).normal(size=(16, 3))
    expected = [np.mean(sorted(scores[:, i])[4:12]) for i in range(3)]
    np.testing.assert_allclose(iqm(scores, axis=0), expected)
    np.testing.assert_allclose(iqm(scores.T), expected)


def test_interval_contains_its_point_and_widens_with_confidence() -> None:
    narrow, wide = iqm_interval(SCORES, confidence=0.5), iqm_interval(SCORES, confidence=0.99)
    assert narrow.point == wide.point == pytest.approx(float(iqm(SCORES)))
    assert wide.low < narrow.low < narrow.point < narrow.high < wide.high
    assert SCORES.min() <= wide.low
    assert wide.high <= SCORES.max()


def test_interval_is_the_expanded_percentiles_of_resampled_means() -> None:
    # a bootstrap of our own, with other random numbers: the ends agree to the sampling error of both
    interval, n = iqm_interval(SCORES), len(SCORES)
    resamples = np.random.default_rng(5).choice(SCORES, (100_000, n))
    tail = scipy.stats.norm.cdf(-scipy.stats.t.ppf(0.975, n - 1))
    assert tail == pytest.approx(0.0165, abs=1e-4)
    low, high = np.quantile(scipy.stats.trim_mean(resamples, 0.25, axis=1), [tail, 1 - tail])
    assert interval.low == pytest.approx(low, abs=0.05 * (high - low))
    assert interval.high == pytest.approx(high, abs=0.05 * (high - low))


def test_the_same_scores_give_the_same_interval_and_another_seed_another() -> None:
    assert iqm_interval(SCORES) == iqm_interval(SCORES.copy())
    assert iqm_interval(SCORES) != iqm_interval(SCORES, seed=1)


def test_the_order_of_seeds_does_not_matter_to_the_point() -> None:
    assert iqm_interval(SCORES[::-1]).point == pytest.approx(iqm_interval(SCORES).point)


def test_seeds_are_resampled_within_their_task() -> None:
    # Two tasks far apart with no spread within: each resample holds both in equal parts, so nothing varies.
    # Resampling all scores together would give an interval from about 0 to about 100.
    scores = np.column_stack([np.zeros(6), np.full(6, 100.0)])
    assert iqm_interval(scores) == (50.0, 50.0, 50.0)
    jittered = scores + np.random.default_rng(2).normal(0, 0.1, scores.shape)
    interval = iqm_interval(jittered)
    assert 49 < interval.low < interval.point < interval.high < 51


def test_a_task_has_one_score_per_seed() -> None:
    # the IQM over everything, not the mean of each task's IQM
    scores = np.random.default_rng(3).normal(size=(5, 2)) * [1, 100]
    assert iqm_interval(scores).point == pytest.approx(float(iqm(scores.ravel())))


@pytest.mark.parametrize("scores", [[3.0], [[3.0, 5.0]]])
def test_a_single_seed_has_no_interval(scores: list[float]) -> None:
    interval = iqm_interval(np.asarray(scores))
    assert interval.point == np.mean(scores)
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_equal_scores_have_an_interval_of_no_width() -> None:
    assert iqm_interval(np.full(8, 2.5)) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_have_no_interval(bad: float) -> None:
    interval = iqm_interval(np.append(SCORES, bad))
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


EXPONENTIAL_IQM = (0.5 - 0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / 0.5  # of −log(1 − u) over its middle half


@pytest.mark.parametrize("num_seeds", [8, 16, 64])
def test_an_interval_of_95_percent_covers_the_truth_in_93_to_97_of_100_cases(num_seeds: int) -> None:
    # more distributions and sizes: benchmarks/coverage.md; the plain percentiles of 8 cover 92 %
    rng, num_trials = np.random.default_rng(4), 1000
    for samples, truth in (
        (rng.normal(size=(num_trials, num_seeds)), 0),
        (rng.exponential(size=(num_trials, num_seeds)), EXPONENTIAL_IQM),
    ):
        intervals = [iqm_interval(sample) for sample in samples]
        assert 0.93 <= np.mean([interval.low <= truth <= interval.high for interval in intervals]) <= 0.97


@pytest.mark.parametrize("num_seeds", [2, 3, 4])
def test_below_five_seeds_the_ends_are_the_smallest_and_the_largest(num_seeds: int) -> None:
    scores = SCORES[:num_seeds]
    interval = iqm_interval(scores)
    assert interval == (iqm(scores), scores.min(), scores.max())
    assert isinstance(interval, Range)
    assert not isinstance(iqm_interval(SCORES[:5]), Range)
    assert ends_in_words(num_seeds) == " (min – max)"
    assert ends_in_words(5) == " [95 % interval]"


def test_failed_seeds_are_an_end_where_they_may_be_in_the_middle_half() -> None:
    def ends(num_failed: int, num_seeds: int) -> tuple[float, ...]:
        return iqm_interval(np.append(np.arange(num_seeds - num_failed), np.full(num_failed, -np.inf)))

    assert ends(1, 64)[1] > 0  # one in 64 is far from a quarter of all
    point, low, high = ends(1, 8)
    assert (point, low) == (2.5, -np.inf)  # but one in 8 may be one of many: resamples have three or more of them
    assert 2.5 < high < 7
    assert ends(3, 8)[:2] == (-np.inf, -np.inf)
    assert ends(3, 8)[2] > 0
    assert ends(8, 8) == (-np.inf, -np.inf, -np.inf)
    assert ends(1, 3) == (-np.inf, -np.inf, 1)


def test_an_interval_reads_well() -> None:
    assert str(iqm_interval(np.full(5, 1.25))) == "1.2 [1.2, 1.2]"
    assert str(iqm_interval(np.array([-3.0, -1.0]))) == "-2.0 (-3.0 – -1.0)"
    assert str(iqm_interval(np.array([-3.0]))) == "-3.0"


@pytest.mark.parametrize("kind", ["spread", "two heaps", "ties", "whole numbers", "failed", "huge"])
def test_ends_are_quantiles_of_all_means_to_the_bit_however_few_of_them_are_computed(kind: str) -> None:
    scores = np.random.default_rng(5).normal(size=300)
    scores = {
        "spread": scores,
        "two heaps": scores + np.where(np.arange(300) % 2, 0, 1e6),  # sums in float32 do not tell means apart
        "ties": np.minimum(scores, 0.1),
        "whole numbers": np.round(10 * scores),
        "failed": np.where(np.arange(300) < 80, -np.inf, scores),
        "huge": scores * 1e300,
    }[kind]
    ordered, resamples = np.sort(scores), statistics._resample((0,) * 300, 0)
    tail = statistics.expanded_tail(300, 0.95)
    means = ordered[resamples.positions].mean(axis=1)
    expected = np.quantile(means, (tail, 1 - tail), method="inverted_cdf")
    assert iqm_interval(scores)[1:] == tuple(expected)


def test_resamples_stay_the_same_from_version_to_version() -> None:
    interval = iqm_interval(np.random.default_rng(6).normal(size=64))
    assert interval == pytest.approx((0.21778833942349768, -0.048568885874009524, 0.4818464299850095), rel=1e-12)
