"""Bad numbers: when and what is marked, what is put back, and how it is counted."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest

from jaxsoft.cli.reports import failure_lines
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.runs.tables import FailedSeed, metrics_rows, returns_of
from jaxsoft.training.failures import Failure, mark_bad_sums, mark_failures, no_failure, quantity_names

NAMES = ("entropy", "q_loss")


def learn(losses: list[float], *, report_every: int, spoil_after: int | None = None) -> list[tuple[Failure, float]]:
    """What a report says of an agent whose one parameter is the number of its updates, for given losses."""
    agent, failure = {"w": jnp.zeros(())}, no_failure({"w": jnp.zeros(())}, NAMES)
    bad_since, sums, reports = jnp.zeros(2, jnp.int32), jnp.zeros(2), []
    for timestep, loss in enumerate(losses, start=1):
        agent = {"w": jnp.where(timestep == spoil_after, jnp.inf, agent["w"] + 1)}
        sums = sums + jnp.array([1, loss])
        bad_since = mark_bad_sums(bad_since, sums, jnp.int32(timestep))
        if timestep % report_every == 0:
            failure, agent = mark_failures(failure, agent, bad_since, jnp.int32(timestep))
            bad_since, sums = jnp.zeros(2, jnp.int32), jnp.zeros(2)
            reports.append((failure, float(agent["w"])))
    return reports


def bad_names(failure: Failure) -> list[str]:
    return [name for name, is_bad in zip(quantity_names(NAMES), failure.quantities, strict=True) if is_bad]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_bad_loss_is_remembered_and_the_agent_put_back(bad: float) -> None:
    losses = [1.0, 1.0, 1.0, bad, 1.0, 1.0, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0]
    reports = learn(losses, report_every=2)
    assert [int(failure.timestep) for failure, _ in reports] == [0, 4, 4, 4, 4, 4]
    assert [bad_names(failure) for failure, _ in reports] == [[], *[["q_loss"]] * 5]
    assert [w for _, w in reports] == [2, 2, 2, 2, 2, 2]  # as it was at the last report at which it was well


def test_before_any_report_the_agent_is_put_back_to_its_start() -> None:
    ((failure, w),) = learn([np.nan, 1.0], report_every=2)
    assert (int(failure.timestep), w) == (1, 0)


def test_parameters_that_no_loss_tells_of_are_found_at_the_report() -> None:
    reports = learn([1.0] * 6, report_every=2, spoil_after=3)
    assert [int(failure.timestep) for failure, _ in reports] == [0, 4, 4]
    assert bad_names(reports[-1][0]) == ["parameters"]
    assert [w for _, w in reports] == [2, 2, 2]


def test_well_agents_are_left_as_they_are() -> None:
    assert [(int(failure.timestep), w) for failure, w in learn([1.0] * 4, report_every=2)] == [(0, 2), (0, 4)]


def rows() -> pa.Table:
    """Seed 8 of four has failed."""
    failed = np.array([0, 300, 0, 0], np.int32)
    metrics = {
        "timestep": np.full(4, 500, np.int32),
        "eval_return": np.array([1.0, np.nan, 3.0, 4.0], np.float32),
        "episode_return": np.full(4, np.nan, np.float32),
        "episode_length": np.full(4, np.nan, np.float32),
        "num_episodes": np.zeros(4, np.int32),
        "failed_at": failed,
        "failed/entropy": failed < 0,
        "failed/parameters": failed > 0,
        "failed/q_loss": failed > 0,
    }
    return metrics_rows(np.arange(7, 11), metrics, 1.0, {})


def test_a_failed_seed_counts_as_the_worst() -> None:
    table = rows()
    assert table["failed_at"].to_pylist() == [None, 300, None, None]
    assert table["failed_quantities"].to_pylist() == [None, "q_loss, parameters", None, None]
    assert table["episode_return"].null_count == table["episode_length"].null_count == 4  # no episode has ended
    assert not [name for name in table.column_names if name.startswith("failed/")]
    returns = returns_of(table.to_pydict())
    assert returns.tolist() == [1, -np.inf, 3, 4]
    assert iqm_interval(returns) == (2, -np.inf, 4)  # the worst quarter is left out, the best, too
    assert iqm_interval(np.array([1.0, -np.inf, -np.inf, 4.0])).point == -np.inf


def test_a_failed_seed_is_told_of_once() -> None:
    known: set[FailedSeed] = set()
    (line,) = failure_lines(rows().to_pydict(), known, [{}])
    assert line.startswith("seed 8 failed at timestep 300 (not finite: q_loss, parameters).")
    assert failure_lines(rows().to_pydict(), known, [{}]) == []


def test_seeds_are_judged_one_by_one() -> None:
    agents = {"w": jnp.arange(3.0)}
    failures = jax.vmap(partial(no_failure, metrics=NAMES))(agents)
    bad_since = jnp.array([[0, 0], [5, 5], [0, 0]])
    now = {"w": jnp.array([10.0, 11.0, jnp.nan])}
    failures, agents = jax.vmap(mark_failures, (0, 0, 0, None))(failures, now, bad_since, jnp.int32(8))
    assert failures.timestep.tolist() == [0, 5, 8]
    assert failures.quantities.tolist() == [[False] * 3, [True, True, False], [False, False, True]]
    assert agents["w"].tolist() == [10, 1, 2]
