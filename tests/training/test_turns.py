"""Turns: steps and updates are counted, and what updates are fed with is true and in order."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import struct
from support.probe_envs import counting
from support.small_loop import TINY, a_loop, pendulum

from jaxsoft.training.config import make_config
from jaxsoft.training.loop import advance, init, make_loop
from jaxsoft.training.report import make_report
from jaxsoft.training.schedule import num_prefill_steps, segments, total_updates
from jaxsoft.training.turns import random_action
from jaxsoft.types import (
    Agent,
    AgentConfig,
    AgentKind,
    Discrete,
    Metrics,
    Rollouts,
    Transition,
)


@pytest.mark.parametrize(("num_envs", "updates_per_step"), [pytest.param(1, 1, marks=pytest.mark.thorough), (3, 2)])
def test_steps_and_updates_are_counted(num_envs: int, updates_per_step: int) -> None:
    settings = {"num_envs": num_envs, "updates_per_step": updates_per_step, "learning_starts": 20}
    loop = a_loop(counting(5), **settings)
    state = jax.jit(partial(init, loop=loop))(jax.random.key(0))
    prefill = -(-20 // num_envs)
    assert int(state.timestep) == prefill * num_envs
    assert int(state.totals.num_updates) == 0

    state = jax.jit(partial(advance, loop=loop))(state, 7)
    assert int(state.timestep) == (prefill + 7) * num_envs
    assert int(state.replay_state.num_filled) == prefill + 7
    assert int(state.totals.num_updates) == 7 * updates_per_step
    for opt_state in state.agent_state.opt_states.values():  # as the optimisers count them
        assert int(optax.tree.get(opt_state, "count")) == 7 * updates_per_step

    _, metrics = jax.jit(partial(make_report, loop=loop))(state)
    # the first temperature is 1 and falls by at most 1e-3 in log at each update: a sum would be far from it
    assert 0.95 < metrics["temperature"] < 1.0


@pytest.mark.parametrize(("num_envs", "terminates"), [(3, False), (1, True)])
def test_replay_holds_true_transitions(num_envs: int, terminates: bool) -> None:
    length, prefill, num_steps = 4, 24, 30
    env = counting(length, terminates=terminates)
    loop = a_loop(env, num_envs=num_envs, learning_starts=prefill * num_envs, replay_capacity=1000)
    state = jax.jit(lambda key: advance(init(key, loop), num_steps, loop))(jax.random.key(1))
    data = jax.tree.map(lambda x: np.asarray(x[: prefill + num_steps]), state.replay_state.data)
    obs, next_obs = data.obs[..., 0], data.next_obs[..., 0]
    ended = np.arange(prefill + num_steps) % length == length - 1

    np.testing.assert_array_equal(next_obs, obs + 1)  # the true successor, also at an episode's end
    np.testing.assert_array_equal(data.reward, np.tile((np.arange(len(obs)) % length + 1.0)[:, None], num_envs))
    np.testing.assert_array_equal(data.terminated, np.tile((ended & terminates)[:, None], num_envs))
    np.testing.assert_array_equal(obs[1:][~ended[:-1]], next_obs[:-1][~ended[:-1]])  # what is acted on next
    starts = obs[np.append(True, ended[:-1])]
    assert (starts < 1).all()
    # 14 episodes of each environment from 4096 starts: all alike, or alike in all environments, shows
    assert len(np.unique(starts)) >= starts.size - 1


def prefill_actions(**settings: Any) -> np.ndarray:
    loop = a_loop(counting(5), total_timesteps=5000, replay_capacity=5000, **settings)
    state = jax.jit(partial(init, loop=loop))(jax.random.key(3))
    return np.asarray(state.replay_state.data.action[: int(state.replay_state.num_filled), :, 0])


def test_prefill_actions_are_uniform_and_independent() -> None:
    actions = prefill_actions(num_envs=2, learning_starts=4000)
    assert actions.shape == (2000, 2)
    assert scipy.stats.kstest(actions.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(actions.T)[0, 1]) < 4 / np.sqrt(2000)  # the two environments
    assert abs(np.corrcoef(actions[:-1, 0], actions[1:, 0])[0, 1]) < 4 / np.sqrt(2000)  # successive steps


def test_prefill_actions_are_held() -> None:
    actions = prefill_actions(num_envs=2, learning_starts=200, random_action_repeat=30)
    assert actions.shape == (100, 2)
    np.testing.assert_array_equal(actions, actions[np.arange(100) // 30 * 30])
    assert len(np.unique(actions)) == 4 * 2  # four blocks, the last cut short, in two environments


def test_random_actions_are_within_each_dimensions_bounds(key: jax.Array) -> None:
    space = pendulum().spec.action_space
    actions = np.asarray(random_action(key, space, 1000))
    assert actions.shape == (1000, 1)
    assert -2 <= actions.min() < -1.9
    assert 1.9 < actions.max() <= 2
    chosen = np.asarray(random_action(key, Discrete(3), 1000))
    assert chosen.shape == (1000,)
    assert set(chosen) == {0, 1, 2}


def test_a_full_ring_forgets_the_oldest() -> None:
    loop = a_loop(counting(1000), replay_capacity=30, learning_starts=20)
    state = jax.jit(lambda key: advance(init(key, loop), 25, loop))(jax.random.key(0))
    rewards = np.sort(np.asarray(state.replay_state.data.reward[:, 0]))  # the reward is the step's number
    np.testing.assert_array_equal(rewards, np.arange(16, 46))


# Rollouts


class Seen(NamedTuple):
    """What an agent was handed: its last batch, and the sum of what it observed before and after its updates."""

    batch: Transition
    num_updates: jax.Array
    observed: jax.Array
    observed_before_update: jax.Array


LENGTH, NUM_ENVS = 6, 2


def recorder() -> AgentKind:
    """An agent that remembers its batches; its actions and their log-probabilities tell the observation acted on."""

    @struct.dataclass
    class Config(AgentConfig):
        pass

    def explore(key: jax.Array, state: Seen, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return obs[..., 0].astype(jnp.int32) % 2, -obs[..., 0] - 100 * state.num_updates

    def update(key: jax.Array, state: Seen, batch: Transition) -> tuple[Seen, Metrics]:
        return Seen(batch, state.num_updates + 1, state.observed, state.observed), {"mean": jnp.mean(batch.reward)}

    def make(config: Any, spec: Any, num_updates: int) -> Agent:
        shape = (LENGTH, NUM_ENVS)
        zeros, flags = jnp.zeros(shape), jnp.zeros(shape, bool)
        batch = Transition(zeros[..., None], jnp.zeros(shape, int), zeros, zeros[..., None], flags, flags, zeros)
        nothing = Seen(batch, jnp.int32(0), jnp.zeros(()), jnp.zeros(()))
        return Agent(
            init=lambda key: nothing,
            act=lambda key, state, obs, *, deterministic=False: explore(key, state, obs),
            update=update,
            explore=explore,
            metrics=("mean",),
            observe=lambda state, obs: state._replace(observed=state.observed + jnp.sum(obs)),
        )

    return AgentKind("recorder", Config, (Discrete,), lambda config: Rollouts(LENGTH), make)


@pytest.mark.parametrize("terminates", [False, True])
def test_a_rollout_holds_true_transitions_once_and_in_order(terminates: bool) -> None:
    env, episode = counting(4, terminates=terminates, action_space=Discrete(2)), 4
    config = make_config(recorder(), "", {"total_timesteps": 1000, "num_envs": NUM_ENVS, "eval_every": 0})
    loop = make_loop(env, config)
    assert segments(config).sum() == -(-1000 // (LENGTH * NUM_ENVS))
    take_turns = jax.jit(partial(advance, loop=loop))
    state = jax.jit(partial(init, loop=loop))(jax.random.key(1))
    assert state.replay_state is None
    assert int(state.timestep) == 0
    rollouts, seen = [], np.zeros(3)
    for turn in range(3):
        state = take_turns(state, 1)
        assert int(state.timestep) == (turn + 1) * LENGTH * NUM_ENVS
        assert int(state.totals.num_updates) == int(state.agent_state.num_updates) == turn + 1
        batch = jax.device_get(state.agent_state.batch)
        rollouts.append(batch)
        seen[turn] = batch.obs.sum()
        # statistics take a rollout in once, and after the update: it sees what acting saw
        np.testing.assert_allclose(state.agent_state.observed, seen.sum(), rtol=1e-6)
        np.testing.assert_allclose(state.agent_state.observed_before_update, seen[:turn].sum(), rtol=1e-6)
        np.testing.assert_allclose(batch.log_prob, -batch.obs[..., 0] - 100 * turn, rtol=1e-6)
    # turns follow each other: together they are one long record
    data: Transition = jax.tree.map(lambda *x: np.concatenate(x), *rollouts)
    obs, next_obs, time = data.obs[..., 0], data.next_obs[..., 0], np.arange(3 * LENGTH)[:, None] % episode
    ended = np.broadcast_to(time == episode - 1, obs.shape)
    np.testing.assert_array_equal(next_obs, obs + 1)  # the true successor, also at an episode's end
    np.testing.assert_array_equal(obs[1:][~ended[:-1]], next_obs[:-1][~ended[:-1]])  # what is acted on next
    np.testing.assert_array_equal(data.reward, np.broadcast_to(time + 1.0, obs.shape))
    np.testing.assert_array_equal(data.terminated, ended & terminates)
    np.testing.assert_array_equal(data.truncated, ended & (not terminates))
    np.testing.assert_array_equal(data.action, obs.astype(int) % 2)
    starts = obs[np.broadcast_to(time == 0, obs.shape)]
    assert (starts < 1).all()
    assert len(np.unique(starts)) >= starts.size - 1


def test_the_last_rollout_is_whole_and_reports_fall_on_turns() -> None:
    settings = {"total_timesteps": 1000, "eval_every": 300, "num_envs": 4, "rollout_length": 10}
    config = make_config("soft_q", "", settings)
    np.testing.assert_array_equal(segments(config), [8, 7, 8, 2])  # 300, 600, 900, 1000 in turns of 40
    assert num_prefill_steps(config) == 0
    assert total_updates(config) == 25


def test_replayed_sequences_know_their_time_limits_and_their_behaviour() -> None:
    settings = {"learning_starts": 20, "sequence_length": 4, "num_envs": 2, "exploration": 1.0}
    settings |= {name: TINY[name] for name in ("total_timesteps", "batch_size", "replay_capacity", "hidden_sizes")}
    env = counting(4, action_space=Discrete(3))
    loop = make_loop(env, make_config("soft_q_replay", "", settings))
    state = jax.jit(lambda key: advance(init(key, loop), 8, loop))(jax.random.key(1))
    data = jax.tree.map(lambda x: np.asarray(x[:18]), state.replay_state.data)
    np.testing.assert_array_equal(data.truncated, np.tile((np.arange(18) % 4 == 3)[:, None], 2))
    np.testing.assert_array_equal(data.terminated, False)
    np.testing.assert_allclose(data.log_prob, -np.log(3), rtol=1e-5)  # random actions, and then ε = 1
