"""Evaluation plays whole episodes, each to its own end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, action_reward, counting, ends_both_ways, two_steps

from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.runs.evaluation import _play_on_host
from jaxsoft.training.evaluation import convert_obs, evaluate, evaluate_on_host, evaluation_key, member_keys
from jaxsoft.types import Box, Env, EnvSpec, TimeStep, make_time_step


def zeros(key: jax.Array, obs: jax.Array) -> jax.Array:
    return jnp.zeros((obs.shape[0], 1))


@pytest.mark.parametrize("terminates", [False, True])
def test_returns_and_lengths_are_those_of_whole_episodes(key: jax.Array, terminates: bool) -> None:
    totals = evaluate(key, zeros, counting(4, terminates=terminates), 3)
    np.testing.assert_array_equal(totals.returns, [10.0] * 3)
    np.testing.assert_array_equal(totals.lengths, [4] * 3)
    assert totals.lengths.dtype == jnp.int32


def test_the_return_is_not_discounted(key: jax.Array) -> None:
    np.testing.assert_array_equal(evaluate(key, zeros, two_steps(), 2).returns, [1.0, 1.0])


def lasting_as_drawn() -> Env:
    """Reward 1 per step, for a number of steps from 1 to 9 that the observation tells. Goes on if not stopped."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        length = jax.random.randint(key, (), 1, 10)
        return (length, jnp.int32(0)), make_time_step(length.astype(jnp.float32).reshape(1))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        length, time = state[0], state[1] + 1
        obs = length.astype(jnp.float32).reshape(1)
        return (length, time), make_time_step(obs, 1.0, terminated=time == length)

    return Env(EnvSpec("probe/drawn", (1,), np.dtype(np.float32), UNIT_BOX, 9), reset, step)


def test_each_episode_stops_at_its_own_end(key: jax.Array) -> None:
    totals = jax.jit(lambda key: evaluate(key, zeros, lasting_as_drawn(), 64))(key)
    lengths = np.asarray(totals.lengths)
    assert set(lengths) == set(range(1, 10))  # all lengths appear among 64 episodes
    np.testing.assert_array_equal(totals.returns, lengths)


def test_random_ends_have_their_distribution(key: jax.Array) -> None:
    # a geometric length cut at 5: E = Σ_{t<5} 0.8^t
    lengths = np.asarray(evaluate(key, zeros, ends_both_ways(0.2, 5), 2000).lengths)
    expected = sum(0.8**t for t in range(5))
    assert lengths.mean() == pytest.approx(expected, abs=4 * lengths.std() / np.sqrt(2000))


def test_actions_are_scaled_to_the_environments_bounds(key: jax.Array) -> None:
    # the best action is 3 of [-1, 4]: (3 + 1)/5 · 2 − 1 = 0.6
    env = action_reward(best=3.0)
    space = Box(np.full((1,), -1, np.float32), np.full((1,), 4, np.float32))
    env = env._replace(spec=replace(env.spec, action_space=space))
    totals = evaluate(key, lambda key, obs: jnp.full((obs.shape[0], 1), 0.6), env, 2)
    np.testing.assert_allclose(totals.returns, 0, atol=1e-6)


def test_the_policy_acts_on_what_it_sees_with_a_new_key_each_step(key: jax.Array) -> None:
    # the reward is the action; the action is the observation plus noise of the step's key
    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(jnp.zeros(1))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        time = state + 1
        return time, make_time_step(jnp.full((1,), time, jnp.float32), action[0], truncated=time == 2)

    env = Env(EnvSpec("probe/echo", (1,), np.dtype(np.float32), UNIT_BOX, 2), reset, step)
    totals = evaluate(key, lambda key, obs: 0.5 * obs, env, 1)
    np.testing.assert_allclose(totals.returns, 0 + 0.5)
    noise = evaluate(key, lambda key, obs: jax.random.uniform(key, obs.shape) * (obs == 0), env, 1).returns
    noise_later = evaluate(key, lambda key, obs: jax.random.uniform(key, obs.shape) * (obs == 1), env, 1).returns
    assert noise[0] != noise_later[0]


def test_the_same_key_plays_the_same_episodes_and_another_does_not() -> None:
    play = jax.jit(lambda key: evaluate(key, zeros, make_env("gymnax/Pendulum-v1", max_steps_in_episode=10), 4))
    first, again, other = (np.asarray(play(jax.random.key(seed)).returns) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.intersect1d(first, other).size
    assert len(np.unique(first)) == 4  # every episode has its own start


class HostCounting:
    """Like one of gymnasium's environments: observes its steps, rewards them, and ends after `length` of them."""

    def __init__(self, length: int, *, terminates: bool) -> None:
        self.length, self.terminates = length, terminates
        self.time, self.actions, self.seeds = 0, [], []

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict]:
        self.time = 0
        self.seeds.append(seed)
        return np.zeros(1, np.float64), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.time < self.length, "stepped after its end"
        self.time += 1
        self.actions.append(float(action[0]))
        ended = self.time == self.length
        return (
            np.full(1, self.time, np.float64),
            self.time,
            ended and self.terminates,
            ended and not self.terminates,
            {},
        )


FLOAT = np.dtype(np.float32)


def test_episodes_on_the_host_stop_each_at_its_own_end(key: jax.Array) -> None:
    envs = [HostCounting(length, terminates=length % 2 == 0) for length in (3, 1, 4)]
    totals = evaluate_on_host(key, lambda key, obs: jnp.asarray(10 * obs), envs, FLOAT)
    np.testing.assert_array_equal(totals.returns, [6, 1, 10])
    np.testing.assert_array_equal(totals.lengths, [3, 1, 4])
    assert [env.actions for env in envs] == [[0, 10, 20], [0], [0, 10, 20, 30]]  # each on its own observation


def test_starts_on_the_host_follow_from_the_key() -> None:
    envs = [HostCounting(1, terminates=True) for _ in range(4)]
    for seed in (0, 0, 1):
        evaluate_on_host(jax.random.key(seed), lambda key, obs: jnp.asarray(obs), envs, FLOAT)
    first, again, other = (set(seeds) for seeds in zip(*(env.seeds for env in envs), strict=True))
    assert first == again
    assert len(first) == len(other) == 4
    assert not first & other


def test_every_member_has_starts_of_its_own_on_the_host() -> None:
    envs = [HostCounting(1, terminates=True) for _ in range(3)]
    spec = counting(1, terminates=True).spec
    keys = member_keys(0, np.array([0, 0]), np.array([0, 1]))
    members = (jnp.array([0.25, -0.5]), {})
    totals = _play_on_host(
        lambda member, key, obs: member[0] * jnp.ones_like(obs), members, keys, spec=spec, envs=envs, obs_dtype=FLOAT
    )
    assert totals.returns.shape == (2, 3)
    assert [env.actions for env in envs] == [[0.25, -0.5]] * 3
    assert len({seed for env in envs for seed in env.seeds}) == 6


def test_every_member_has_a_key_of_its_own_that_no_training_has_and_no_other_member_changes() -> None:
    cells, seeds = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)
    words = np.asarray(jax.random.key_data(member_keys(0, cells, seeds)))
    assert len(np.unique(words, axis=0)) == 4
    alone = np.asarray(jax.random.key_data(member_keys(0, cells[2:3], seeds[2:3])))
    np.testing.assert_array_equal(alone[0], words[2])
    others = [member_keys(1, cells, seeds), seed_keys(jnp.arange(4)), evaluation_key(0)[None]]
    for key in others:
        assert not (words[:, None] == np.asarray(jax.random.key_data(key))).all(-1).any()
    assert (jax.random.key_data(evaluation_key(0)) != jax.random.key_data(jax.random.key(0))).any()
    with jax.default_prng_impl("rbg"):  # with its keys a member's numbers would depend on its neighbours
        np.testing.assert_array_equal(jax.random.key_data(member_keys(0, cells, seeds)), words)


@pytest.mark.parametrize(
    ("obs", "dtype", "message"),
    [
        ([1.0, 0.5], np.int32, "has 0.5 in it, which is no int32"),
        ([1.0, np.nan], np.int32, "has nan in it, which is no int32"),
        ([1.0, np.inf], np.int32, "has inf in it, which is no int32"),
        ([2**31], np.int32, "has 2147483648 in it, which is no int32"),
        ([-1], np.uint8, "has -1 in it, which is no uint8"),
        ([2], bool, "has 2 in it, which is no bool"),
        ([1e300], np.float32, r"has 1e\+300 in it, which is no float32"),
        (["a"], np.float32, "is an array of <U1; it must be one of numbers"),
        ([1j], np.float32, "is an array of complex128"),
        ([[1], [1, 2]], np.float32, "is no array of numbers"),
    ],
)
def test_an_observation_that_would_lose_what_it_says_is_refused(obs: Any, dtype: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        convert_obs(obs, dtype)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("obs", "dtype"),
    [
        (np.array([0.1]), np.float32),  # rounded
        ([1.0, -3.0], np.int32),
        (np.array([0, 1], np.uint8), bool),
        ([True], np.float32),
        ([np.nan, np.inf], np.float32),  # what the environment says
        (jnp.ones(2, jnp.bfloat16), np.float32),
    ],
)
def test_an_observation_that_says_the_same_is_converted(obs: Any, dtype: Any) -> None:
    converted = convert_obs(obs, np.dtype(dtype))
    assert converted.dtype == dtype
    np.testing.assert_allclose(converted.astype(float), np.asarray(obs).astype(float), rtol=1e-7)
