"""Observations stored once: whatever is drawn has the successor that a list of whole transitions has."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import noise
from support.recorder import RECORDER

from jaxsoft.training import replay, successors
from jaxsoft.training.loop import make_train
from jaxsoft.training.replay import ReplayState
from jaxsoft.types import Discrete, EnvSpec, ReplayBatches, Transition

OBS_SHAPE = (3, 4)  # 48 bytes of float32


def spec_of(limit: int) -> EnvSpec:
    return EnvSpec("probe/stream", OBS_SHAPE, np.dtype(np.float32), Discrete(2), limit, earliest_truncation=limit)


def stream(num_steps: int, num_envs: int, limit: int, seed: int) -> tuple[Transition, np.ndarray]:
    """Transitions [num_steps, num_envs, ...] of episodes that end by chance or at the limit; and what is acted on next.

    No two observations are equal.
    """
    rng = np.random.default_rng(seed)
    numbers = iter(np.arange(1, 10 * num_steps * num_envs, dtype=np.float32))
    draw = lambda: np.full(OBS_SHAPE, next(numbers))  # noqa: E731
    obs, age = np.stack([draw() for _ in range(num_envs)]), np.zeros(num_envs, int)
    rows, following_obs = [], []
    for _ in range(num_steps):
        age += 1
        terminated = rng.random(num_envs) < 0.5 / limit
        truncated = ~terminated & (age == limit)
        next_obs = np.stack([draw() for _ in range(num_envs)])
        reward = rng.normal(size=num_envs).astype(np.float32)
        row: Any = obs, np.zeros(num_envs, np.int32), reward, next_obs, terminated, truncated
        rows.append(Transition(*row))
        done = terminated | truncated
        age[done] = 0
        obs = np.where(done[:, None, None], np.stack([draw() for _ in range(num_envs)]), next_obs)
        following_obs.append(obs)
    return jax.tree.map(lambda *x: np.stack(x), *rows), np.stack(following_obs)


@pytest.mark.parametrize(
    ("num_envs", "num_rows", "limit", "is_once"),
    [
        (1, 72, 9, True),
        (3, 70, 18, True),
        (1, 70, 11, True),
        (2, 48, 40, True),
        (2, 16, 1_000, True),
        (2, 16, 15, False),
    ],
)
def test_whatever_is_held_has_its_true_successor(num_envs: int, num_rows: int, limit: int, is_once: bool) -> None:
    data, following_obs = stream(5 * num_rows, num_envs, limit, seed=0)
    assert np.any(data.truncated) or limit > 5 * num_rows
    experience = ReplayBatches(num_rows * num_envs, 1, 0, 1, uses_terminal_obs=False)
    state = successors.init(jax.tree.map(lambda x: x[0], data), experience, spec_of(limit))
    assert (state.last_obs is not None) is is_once
    indices = jnp.arange(num_rows)[:, None] * num_envs + jnp.arange(num_envs)

    def step(state: ReplayState, xs: tuple[Transition, jax.Array]) -> tuple[ReplayState, Transition]:
        row, current_obs = xs
        state = successors.add(state, row)
        return state, successors.gather(state, indices, current_obs)

    xs: Any = data, following_obs
    _, found = jax.device_get(jax.jit(lambda state: jax.lax.scan(step, state, xs))(state))
    if is_once:  # a terminated transition is given what comes next
        next_obs = np.where(data.terminated[..., None, None], following_obs, data.next_obs)
        data = replace(data, next_obs=next_obs)
    for t in range(len(data.reward)):
        held = np.arange(max(t + 1 - num_rows, 0), t + 1)
        jax.tree.map(
            lambda x, true, t=t, held=held: np.testing.assert_array_equal(x[t, held % num_rows], true[held]),
            found,
            data,
        )


SMALLEST = ReplayBatches(1_600, 8, 0, 1, uses_terminal_obs=False)


@pytest.mark.parametrize(
    ("change", "spec_change", "num_envs", "is_once"),
    [
        ({}, {}, 1, True),
        ({"uses_terminal_obs": True}, {}, 1, False),
        ({}, {"earliest_truncation": 1}, 1, False),
        ({}, {"earliest_truncation": 8}, 1, False),  # 201 places for 1,600 rows: more than an eighth
        ({}, {"earliest_truncation": 9}, 1, True),
        ({}, {"max_episode_steps": 8}, 1, False),
        ({"capacity": 16}, {}, 1, True),
        ({"capacity": 15}, {}, 1, False),
        ({"capacity": 16}, {}, 2, False),
        ({}, {"obs_shape": (8,)}, 1, False),  # 32 bytes
        ({}, {"obs_shape": (9,)}, 1, True),
        ({}, {"obs_shape": (33,), "obs_dtype": np.dtype(bool)}, 1, True),
    ],
)
def test_observations_are_stored_once_where_that_is_right_and_pays(
    change: dict[str, Any], spec_change: dict[str, Any], num_envs: int, is_once: bool
) -> None:
    experience, spec = replace(SMALLEST, **change), replace(spec_of(100), **spec_change)
    assert successors.stores_once(experience, spec, num_envs) is is_once
    row = jax.tree.map(lambda x: x[0], stream(1, num_envs, 100, seed=0)[0])
    assert (successors.init(row, experience, spec).last_obs is not None) is is_once


@pytest.mark.parametrize("sequences", [{}, {"steps": 5}])
def test_a_training_is_fed_with_the_same_batches_but_for_terminal_observations(sequences: dict[str, Any]) -> None:
    # a ring of 137 rows, which is no multiple of the limit, goes round twice
    settings = {"total_timesteps": 900, "num_envs": 3, "eval_every": 0} | sequences
    keys, seen = jax.random.split(jax.random.key(0), 2), []
    for uses_terminal_obs in (False, True):
        train = make_train(RECORDER, noise(23), **settings, uses_terminal_obs=uses_terminal_obs)
        state, metrics = jax.jit(jax.vmap(train))(keys)
        assert (state.replay_state.last_obs is None) is uses_terminal_obs
        seen.append((state.agent_state, metrics))
    jax.tree.map(np.testing.assert_array_equal, *seen)
    assert len(np.unique(seen[0][0])) == 2


def test_a_higher_time_limit_than_the_environments_own_is_no_promise() -> None:
    raised = noise(23)._replace(spec=replace(noise(23).spec, max_episode_steps=60))
    settings = {"total_timesteps": 900, "num_envs": 3, "eval_every": 0}
    states = [jax.jit(make_train(RECORDER, env, **settings))(jax.random.key(0))[0] for env in (noise(23), raised)]
    assert states[0].replay_state.last_obs.shape == states[1].replay_state.last_obs.shape
    np.testing.assert_array_equal(states[0].agent_state, states[1].agent_state)


def test_a_ring_without_successors_is_not_drawn_from_as_if_it_had_them() -> None:
    row = jax.tree.map(lambda x: x[0], stream(1, 1, 100, seed=0)[0])
    state = successors.add(successors.init(row, SMALLEST, spec_of(100)), row)
    for sample in (replay.sample, partial(replay.sample_sequences, length=1)):
        with pytest.raises(ValueError, match=r"without next_obs; use jaxsoft\.training\.successors\.gather"):
            sample(jax.random.key(0), state, 4)
