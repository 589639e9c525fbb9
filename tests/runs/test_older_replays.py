"""A run whose checkpoints store each observation twice, as earlier versions did, goes on as if they did not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.probe_envs import noise
from support.recorder import RECORDER
from support.run_numbers import results

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.errors import InputError
from jaxsoft.results import Result
from jaxsoft.runs import arrays
from jaxsoft.training import successors

SETTINGS: dict[str, Any] = {"num_seeds": 2, "num_envs": 3, "checkpoint_every": 300, "eval_every": 300}
SETTINGS |= {"eval_episodes": 2, "progress": False}


@pytest.fixture(autouse=True)
def _forget_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the recorder out of the known agents again after a test."""
    monkeypatch.setitem(AGENTS, RECORDER.name, RECORDER)


def stored(result: Result, timestep: int) -> set[str]:
    """Names of the arrays in a checkpoint of a run with one chunk."""
    return arrays.names(next(result.path.glob(f"checkpoints/**/{timestep:012}/training")))


@pytest.mark.parametrize(
    ("sequences", "replay_capacity"), [({}, 412), pytest.param({"steps": 5}, 2_000, marks=pytest.mark.thorough)]
)  # full, and not
def test_an_earlier_versions_run_goes_on_to_the_same_numbers(
    sequences: dict[str, Any], replay_capacity: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = SETTINGS | {"replay_capacity": replay_capacity} | sequences
    with monkeypatch.context() as patch:
        patch.setattr(successors, "stores_once", lambda experience, spec, num_envs: False)
        older = jaxsoft.train(RECORDER, noise(23), **settings, total_timesteps=600, out=tmp_path / "older")
    assert "replay_state/data/next_obs" in stored(older, 600)
    older.extend(900, progress=False)
    whole = jaxsoft.train(RECORDER, noise(23), **settings, total_timesteps=900, out=tmp_path / "whole")
    for one in (older, whole):
        assert "replay_state/data/next_obs" not in stored(one, 900)
        assert {"replay_state/last_obs", "replay_state/position"} <= stored(one, 900)
    (table, state), (expected_table, expected) = (results(x.path, x.config.chunks[0]) for x in (older, whole))
    for name in table.column_names:
        np.testing.assert_array_equal(table[name].to_numpy(), expected_table[name].to_numpy(), err_msg=name)
    for name in expected.keys() - {
        "replay_state/last_obs",
        "replay_state/position",
    }:  # which may hold what is not looked at
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)


def test_a_replay_that_cannot_be_converted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = jaxsoft.train(RECORDER, noise(23), **SETTINGS, total_timesteps=600, out=tmp_path / "new")
    monkeypatch.setattr(successors, "stores_once", lambda experience, spec, num_envs: False)
    with pytest.raises(InputError, match="of another configuration"):
        result.extend(900, progress=False)


def test_truncations_that_the_spec_rules_out_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(successors, "stores_once", lambda experience, spec, num_envs: False)
        jaxsoft.train(RECORDER, noise(23), **SETTINGS, total_timesteps=600, out=tmp_path / "older")
    promising = noise(23)._replace(spec=replace(noise(23).spec, earliest_truncation=60, max_episode_steps=60))
    result = jaxsoft.open_run(tmp_path / "older", env=promising)
    with pytest.raises(InputError, match="truncated before the step earliest_truncation of the environment's spec"):
        result.extend(900, progress=False)
