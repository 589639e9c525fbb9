"""Aggregate metrics over tasks and seeds, by hand and as the authors' own package (rliable 1.2) has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxsoft.errors import InputError
from jaxsoft.reports.aggregates import (
    aggregate_intervals,
    confidence_bounds,
    interquartile_mean,
    interval_of,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_bands,
    sample_efficiency,
)
from jaxsoft.reports.comparison import Part, compare_runs, describe
from jaxsoft.reports.comparison_plots import draw_comparison
from jaxsoft.reports.statistics import Interval, Range, iqm_interval
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.tables import FailedSeed
from jaxsoft.training.config import make_config

X = np.array(
    [[0.1, 0.9, 0.3], [0.4, 1.2, 0.2], [0.5, 0.7, 0.8], [0.3, 1.4, 0.4], [0.9, 0.6, 0.6], [0.2, 1.1, 0.7]]
).T  # three tasks of six seeds
Y = np.array([[0.2, 0.8, 0.3], [0.6, 0.5, 0.1], [0.5, 1.0, 0.2], [0.0, 0.9, 0.4]]).T
TAUS = np.array([0, 0.2, 0.3, 0.5, 1.0, 1.4])

RLIABLE = {"iqm": 0.59, "median": 0.5, "mean": 0.6277777777777777, "optimality_gap": 0.4111111111111111}
RLIABLE_ENDS = {
    "iqm": (0.45, 0.74),
    "median": (0.36666667, 0.68333333),
    "mean": (0.51111111, 0.75),
    "optimality_gap": (0.30555556, 0.51111111),
}
"""95 % percentile intervals of 20,000 resamples."""
STATISTICS = {"iqm": interquartile_mean, "median": median, "mean": mean, "optimality_gap": optimality_gap}


def test_points_are_those_of_the_authors_package() -> None:
    for name, statistic in STATISTICS.items():
        assert float(statistic(X)) == pytest.approx(RLIABLE[name], abs=1e-12), name
    assert float(optimality_gap(X, 0.5)) == pytest.approx(0.08888888888888885)
    assert float(probability_of_improvement(X, Y)) == pytest.approx(0.6805555555555555)
    np.testing.assert_allclose(performance_profile(X, TAUS), [1, 15 / 18, 13 / 18, 10 / 18, 3 / 18, 0])


def test_intervals_are_those_of_the_authors_package_but_for_the_expanded_percentiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expanded = {name: confidence_bounds(statistic, X) for name, statistic in STATISTICS.items()}
    monkeypatch.setattr("jaxsoft.reports.aggregates.expanded_tail", lambda num_seeds, confidence: 0.025)
    for name, statistic in STATISTICS.items():
        low, high = confidence_bounds(statistic, X)
        np.testing.assert_allclose((low, high), RLIABLE_ENDS[name], atol=0.012, err_msg=name)  # of the resampling
        assert expanded[name][0] < low < high < expanded[name][1]


def test_the_interval_of_the_iqm_is_that_of_all_tables() -> None:
    interval = iqm_interval(X.T)
    np.testing.assert_allclose(interval_of(interquartile_mean, X), interval, rtol=1e-12)
    np.testing.assert_allclose(aggregate_intervals(X, 1.0)["iqm"], interval, rtol=1e-12)


def test_by_hand_with_different_numbers_of_seeds_ties_and_failures() -> None:
    scores = [np.array([0.0, 1.0, 2.0, 3.0]), np.array([10.0, -np.inf])]
    assert interquartile_mean(scores) == 1.5  # of −∞ 0 1 2 3 10 the middle four
    assert mean(scores) == median(scores) == -np.inf
    assert optimality_gap(scores, 2.0) == np.inf
    assert mean([scores[0], np.array([10.0, 0.0])]) == 3.25  # tasks weigh the same
    assert median([np.array([5.0, 1.0, 0.0])]) == 1  # of one task over seeds
    assert median([np.array([5.0, 1.0, 0.0]), np.zeros(2), np.ones(1)]) == 1
    assert optimality_gap([np.array([0.0, 3.0])], 2.0) == 1
    x, y = np.array([1.0, 2.0, -np.inf]), np.array([1.0, -np.inf])
    assert probability_of_improvement([x], [y]) == pytest.approx((0.5 + 1 + 1 + 1 + 0 + 0.5) / 6)
    assert probability_of_improvement([x], [y]) + probability_of_improvement([y], [x]) == pytest.approx(1)
    np.testing.assert_allclose(performance_profile([x, y], np.array([-5.0, 1.0])), [(2 / 3 + 1 / 2) / 2, 1 / 6])


def test_leading_axes_are_resamples() -> None:
    batch = [np.stack([task, 2 * task]) for task in X]
    for statistic in (*STATISTICS.values(), partial(performance_profile, taus=TAUS)):
        expected = [statistic(X), statistic(2 * X)]
        np.testing.assert_allclose(statistic(batch), expected, rtol=1e-12)
    both = probability_of_improvement(batch, [np.stack([task, task]) for task in Y])
    np.testing.assert_allclose(both, [probability_of_improvement(X, Y), probability_of_improvement(2 * X, Y)])


def test_below_five_seeds_there_is_no_interval() -> None:
    intervals = aggregate_intervals(list(Y), 0.5)
    assert all(isinstance(interval, Range) for interval in intervals.values())
    assert intervals["mean"][1:] == (0.0, 1.0)
    assert intervals["optimality_gap"][1:] == (0.0, 0.5)
    assert np.isnan(interval_of(probability_of_improvement, X, Y).low)
    assert not isinstance(interval_of(probability_of_improvement, X, X), Range)
    assert np.isnan(profile_bands(list(Y), TAUS)[:, 1:]).all()
    assert np.isnan(aggregate_intervals([np.ones(1)], None)["iqm"].low)


def test_intervals_of_a_probability_and_a_profile_are_around_their_points() -> None:
    point, low, high = interval_of(probability_of_improvement, X, X + 0.2)
    assert 0 <= low < point < high <= 0.6
    bands = profile_bands(list(X), TAUS)
    assert ((bands[:, 1] <= bands[:, 0]) & (bands[:, 0] <= bands[:, 2])).all()
    assert bands[3, 1] < bands[3, 0] < bands[3, 2]


def test_sample_efficiency_takes_the_last_report_of_each_run() -> None:
    first = (np.array([10, 20, 40]), np.array([[0.0, 0.0], [1.0, 3.0], [5.0, 5.0]]))
    second = (np.array([15, 30]), np.array([[4.0], [8.0]]))
    timesteps, intervals = sample_efficiency([[first], [second]])
    assert timesteps.tolist() == [15, 20, 30]  # 10 is before the second's first report, 40 after its last
    np.testing.assert_allclose(intervals[:, 0], [4 / 3, 8 / 3, 4])
    assert np.isnan(intervals[:, 1:]).all()
    num_seeds = np.tile(np.arange(5.0), (2, 1))
    _, intervals = sample_efficiency([[(np.array([1, 2]), num_seeds)]])
    assert (intervals[:, 1] < intervals[:, 0]).all()


def part(
    name: str, env: str, returns: list[list[float]], *, agent: str = "soft_q", seed: int = 0, **settings: Any
) -> Part:
    """A run with these returns [num_reports, num_seeds] at the timesteps 100, 200, …"""
    rows = np.array(returns)
    config = RunConfig(
        env, make_config(agent, "", {"total_timesteps": 200, **settings}), seed=seed, num_seeds=rows.shape[1]
    )
    failed = [FailedSeed(0, seed + int(i), 7, "q_loss") for i in np.flatnonzero(np.isneginf(rows[-1]))]
    return Part(Path(name), config, 0, 100 * np.arange(1, len(rows) + 1), rows, failed)


@pytest.fixture
def with_parts(monkeypatch: pytest.MonkeyPatch):
    """Compares parts without run directories."""

    def compare(*parts: Part, **how):
        known = {part.path: [part] for part in parts}
        monkeypatch.setattr("jaxsoft.reports.comparison.read_parts", known.__getitem__)
        return compare_runs(list(known), **how)

    return compare


def test_runs_are_grouped_by_agent_and_the_settings_in_which_they_differ_in_a_task(with_parts) -> None:
    cold: dict[str, Any] = {"temperature": 0.1}
    warm: dict[str, Any] = {"temperature": 1.0}
    parts = [
        part("a", "A", [[0, 0], [10, 20]], **cold),
        part("b", "A", [[30, 5]], **warm),
        part("c", "B", [[0, -4]], **cold, learning_rate=1e-5),  # a task's own preset does not tell algorithms apart
        part("d", "B", [[-2, -np.inf]], **warm, learning_rate=1e-5),
        part("e", "A", [[40]], seed=2, **warm),
        part("f", "A", [[40]], agent="sac_discrete"),
        part("g", "B", [[-8]], agent="sac_discrete"),
    ]
    comparison = with_parts(*parts)
    assert comparison.tasks == ["A", "B"]
    assert comparison.is_normalised
    assert comparison.gamma == 1
    found = {one.name: [list(scores) for scores in one.scores] for one in comparison.algorithms}
    assert found == {
        "soft_q, temperature=0.1": [[0.25, 0.5], [1, 0.5]],
        "soft_q, temperature=1": [[0.75, 0.125, 1], [0.75, -np.inf]],
        "sac_discrete": [[1], [0]],
    }
    assert [one.name for one in comparison.algorithms] == [
        "soft_q, temperature=1",  # (0.125 + 0.75 + 0.75) / 3, without −∞ and 1
        "soft_q, temperature=0.1",
        "sac_discrete",
    ]
    assert {one.name: one.num_failed for one in comparison.algorithms}["soft_q, temperature=1"] == 1
    told = describe(comparison)["algorithms"]
    assert {one["name"]: one["failed_seeds"] for one in told}["soft_q, temperature=1"] == 1
    assert all(one["iqm"]["point"] is None or isinstance(one["iqm"]["point"], float) for one in told)


def test_scores_are_normalised_per_task(with_parts) -> None:
    parts = [part("a", "A", [[0, 0], [10, 20]]), part("b", "B", [[-1, -3]])]
    scores = [x.tolist() for x in with_parts(*parts, normalise=("0:10", "B=-5:-1")).algorithms[0].scores]
    assert scores == [[1, 2], [1, 0.5]]
    raw = with_parts(*parts, normalise=("none",))
    assert [x.tolist() for x in raw.algorithms[0].scores] == [[10, 20], [-1, -3]]
    assert "optimality_gap" not in raw.algorithms[0].intervals
    one = with_parts(parts[0])
    assert not one.is_normalised
    assert with_parts(parts[0], gamma=15.0).algorithms[0].intervals["optimality_gap"].point == 2.5
    equal = with_parts(part("a", "A", [[3, 3]]), normalise=("minmax",))
    assert equal.algorithms[0].scores[0].tolist() == [0, 0]
    costs = with_parts(part("a", "A", [[3, -np.inf]]), normalise=("10:0",))  # less is better
    assert costs.algorithms[0].scores[0].tolist() == [0.7, -np.inf]


def test_what_would_not_compare_is_refused(with_parts) -> None:
    a, b = part("a", "A", [[1, 2]]), part("b", "A", [[3]], seed=1)
    with pytest.raises(InputError, match="a and b both hold seed 1 of soft_q in A"):
        with_parts(a, b)
    assert len(with_parts(a, b, by="run").algorithms) == 2
    with pytest.raises(InputError, match="sac_discrete has no run in A"):
        with_parts(a, part("c", "B", [[3]]), part("d", "B", [[3]], agent="sac_discrete"))
    with pytest.raises(InputError, match="by is 'task'; it must be agent or run"):
        with_parts(a, by="task")
    for word in ("1", "1:1", "nan:2", "a:b", "inf:2"):
        with pytest.raises(InputError, match=f"normalise is {word!r}; it must be none, minmax or A:B"):
            with_parts(a, normalise=(word,))
    with pytest.raises(InputError, match="normalise names C; the runs are in A"):
        with_parts(a, normalise=("C=0:1",))


def test_the_figure_is_drawn_also_of_one_seed_and_where_all_failed(with_parts, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    for returns in ([[1.0]], [[-np.inf, -np.inf]], [[np.nan, np.nan]]):
        draw_comparison(picture, with_parts(part("a$_{", "A", returns)))
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()


def test_five_seeds_have_intervals_in_words(with_parts) -> None:
    best, other = with_parts(
        part("a", "A", [[1, 2, 3, 4, 5]]), part("b", "A", [[0, 1, 2, 3, -np.inf]], learning_rate=0.1)
    ).algorithms
    assert isinstance(best.intervals["iqm"], Interval)
    assert best.intervals["iqm"].point == 3
    assert best.improvement is None
    assert other.improvement is not None
    assert other.improvement.point == pytest.approx((19 + 0.5 * 3) / 25)
