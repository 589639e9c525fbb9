"""What an evaluation says: intervals, ranks, the median seed, and its JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jaxsoft.reports.statistics import Range, rank
from jaxsoft.reports.summary import NO_INTERVAL, describe, median_member, summarise
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.evaluation import Evaluation
from jaxsoft.runs.tables import FailedSeed
from jaxsoft.training.config import make_config

CELLS = {"temperature": (0.1, 0.2, 0.3)}


def make_evaluation(returns: list[list[float]], *, sweep: bool = True) -> Evaluation:
    """Two episodes of each member, around these means [num_cells, num_seeds]; NaN: it has no checkpoint."""
    means, grid = np.array(returns, np.float32), CELLS if sweep else {}
    config = RunConfig("", make_config("soft_q", "", {}), seed=5, num_seeds=means.shape[1], sweep=grid)
    failed = [FailedSeed(int(i), int(5 + j), 7, "q_loss") for i, j in np.argwhere(np.isneginf(means))]
    episodes = means.ravel()[:, None] + np.array([-1, 1], np.float32)
    timesteps = np.where(np.isnan(means.ravel()), 0, 40).astype(np.int32)
    return Evaluation(config, episodes, np.full(episodes.shape, 3, np.int32), timesteps, failed)


MIXED = [[1.0, 2.0, 9.0], [-np.inf, 4.0, 8.0], [np.nan, np.nan, np.nan]]


def test_cells_are_ranked_by_the_mean_over_their_saved_seeds() -> None:
    summary = summarise(make_evaluation(MIXED))
    assert summary.mean_returns.tolist()[0] == [1, 2, 9]
    assert summary.intervals[0] == (4, 1, 9)
    assert np.isneginf(summary.intervals[1].point)
    assert summary.intervals[2] is NO_INTERVAL
    assert summary.ranked.tolist() == [0, 1, 2]  # a failed seed before none at all
    one_saved = summarise(make_evaluation([[np.nan, 5.0, np.nan], [1.0, 2.0, 3.0], [7.0, 7.0, np.nan]]))
    assert one_saved.ranked.tolist() == [2, 0, 1]
    assert isinstance(one_saved.intervals[0], Range)
    assert one_saved.intervals[0].point == 5
    assert rank([2.0, np.nan, -np.inf, 2.0]).tolist() == [0, 3, 2, 1]


def test_the_median_member_is_one_that_is_well() -> None:
    assert median_member(summarise(make_evaluation(MIXED))) == (0, 6)
    failing_best = [[-np.inf] * 3, [3.0, -np.inf, 1.0], [np.nan] * 3]
    assert median_member(summarise(make_evaluation(failing_best))) == (1, 5)  # of 7 and 5 the upper
    assert median_member(summarise(make_evaluation([[np.nan, -np.inf]] * 3))) is None


def test_its_json_has_no_numbers_that_are_none() -> None:
    def read(evaluation: Evaluation) -> dict[str, Any]:
        return json.loads(json.dumps(describe(summarise(evaluation)), allow_nan=False))

    told = read(make_evaluation(MIXED))
    assert told["seeds"] == [5, 6, 7]
    best, failed, missing = told["cells"]
    assert (best["settings"], best["eval_return"], best["iqm"], best["min_max"]) == (
        {"temperature": 0.1},
        [1, 2, 9],
        4,
        [1, 9],
    )
    assert (failed["eval_return"], failed["iqm"], failed["failed"][0]["seed"]) == ([None, 4, 8], None, 5)
    assert (missing["missing"], missing["timestep"], missing["min_max"]) == ([5, 6, 7], [0, 0, 0], [None, None])
    alone = read(make_evaluation([[1.0, 2.0, 3.0, 4.0, 5.0]], sweep=False))
    assert set(alone) == {"seeds", "eval_return", "eval_length", "timestep", "failed", "missing", "iqm", "iqm_interval"}
    assert (alone["iqm"], alone["eval_length"]) == (3, [3] * 5)
