"""Running statistics are those of everything at once; rewards are scaled by what the recursion says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.typing import ArrayLike

from jaxsoft.nn import normalisation
from jaxsoft.nn.normalisation import CLIP, Statistics
from jaxsoft.types import Discrete, Env, EnvSpec, TimeStep, make_time_step

UPDATE = jax.jit(normalisation.update)


def statistics_of(*batches: np.ndarray) -> Statistics:
    statistics = normalisation.init(batches[0].shape[-2:] if batches[0].ndim > 3 else batches[0].shape[-1:])
    for batch in batches:
        statistics = UPDATE(statistics, jnp.asarray(batch))
    return statistics


# Observations


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3, 4], [50], [7, 9, 80], list(range(1, 100))])
def test_statistics_are_numpys_over_everything_however_it_came(cuts: list[int]) -> None:
    x = np.random.default_rng(0).normal([5, -3, 0], [0.1, 20, 1], (100, 3)).astype(np.float32)
    statistics = statistics_of(*np.split(x, cuts))
    assert statistics.count == 100
    np.testing.assert_allclose(statistics.mean, x.mean(0, np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.variance, x.var(0, np.float64), rtol=1e-4)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.float32, (12, 2), elements=st.floats(-100, 100, width=32)), st.sampled_from([1, 2, 3, 4, 6]))
def test_batches_of_any_numbers_agree_with_numpy(x: np.ndarray, size: int) -> None:
    statistics = statistics_of(*x.reshape(-1, size, 2))
    np.testing.assert_allclose(statistics.mean, x.mean(0, np.float64), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(statistics.variance, x.var(0, np.float64), rtol=1e-3, atol=1e-3)


def test_statistics_still_learn_after_20_million_observations() -> None:
    # float32 has no 2²⁴ + 1, and no step of 1e-8 from a mean of 1000
    num_seen = 20_000_000
    begun = replace(normalisation.init((1,)), count=jnp.int32(num_seen), mean=jnp.full(1, 1000.0), variance=jnp.ones(1))

    @jax.jit
    def go_on(statistics: Statistics) -> Statistics:
        def observe(i: jax.Array, statistics: Statistics) -> Statistics:
            return normalisation.update(statistics, jnp.full(1, 1000.5) + (2.0 * (i % 2) - 1))

        return jax.lax.fori_loop(0, num_seen // 4, observe, statistics)

    after = go_on(begun)
    assert after.count == num_seen * 5 // 4
    np.testing.assert_allclose(after.mean, 1000.1, rtol=1e-7)
    np.testing.assert_allclose(after.variance, 1 + 0.2 * 0.8 * 0.5**2, rtol=1e-4)


def test_a_count_stops_at_the_largest_that_it_can_be() -> None:
    statistics = replace(normalisation.init(()), count=jnp.int32(normalisation.MAX_COUNT - 1))
    assert UPDATE(statistics, jnp.ones(5)).count == normalisation.MAX_COUNT


def test_all_leading_axes_are_seen_and_only_those() -> None:
    x = np.random.default_rng(1).normal(size=(4, 3, 5, 2))
    statistics = statistics_of(x)
    assert statistics.mean.shape == statistics.variance.shape == (5, 2)
    assert statistics.count == 12
    np.testing.assert_allclose(statistics.mean, x.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(statistics.variance, x.var((0, 1)), rtol=1e-5)


def test_one_observation_without_a_leading_axis_is_one_observation() -> None:
    statistics = UPDATE(UPDATE(normalisation.init((2,)), jnp.asarray([1.0, 2.0])), jnp.asarray([3.0, 2.0]))
    np.testing.assert_array_equal(statistics.count, 2)
    np.testing.assert_allclose(statistics.mean, [2, 2])
    np.testing.assert_allclose(statistics.variance, [1, 0])


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    x = (1000 + np.random.default_rng(2).normal(size=(5000, 1))).astype(np.float32)
    statistics = statistics_of(*np.split(x, 500))
    np.testing.assert_allclose(statistics.variance, x.var(0, np.float64), rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int32])
def test_observations_of_whole_numbers_are_taken_as_numbers(dtype: type) -> None:
    x = np.random.default_rng(3).integers(0, 2, (10, 3)).astype(dtype)
    statistics = statistics_of(x)
    np.testing.assert_allclose(statistics.mean, x.astype(float).mean(0), rtol=1e-6)
    normalised = normalisation.normalise(statistics, jnp.asarray(x))
    assert normalised.dtype == jnp.float32
    np.testing.assert_allclose(normalised, (x.astype(float) - x.mean(0)) / x.astype(float).std(0), rtol=1e-4, atol=1e-5)


def test_normalised_observations_have_mean_0_and_variance_1() -> None:
    x = np.random.default_rng(4).normal([5, -3], [0.1, 20], (200, 2)).astype(np.float32)
    y = np.asarray(normalisation.normalise(statistics_of(x), jnp.asarray(x)), np.float64)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)


def test_statistics_of_nothing_and_no_statistics_leave_everything_as_it_is() -> None:
    x = jnp.asarray([[0.3, -7.0], [11.0, 300.0]])
    np.testing.assert_array_equal(normalisation.normalise(normalisation.init((2,)), x), x)
    assert normalisation.normalise(None, x) is x


def test_what_never_varied_stays_at_0_and_is_finite_when_it_does() -> None:
    statistics = statistics_of(np.full((50, 1), 3.0, np.float32))
    assert normalisation.normalise(statistics, jnp.asarray([3.0])) == 0
    assert normalisation.normalise(statistics, jnp.asarray([4.0])) == CLIP


@pytest.mark.parametrize("sizes", [[2048, 2048], [1] * 50, [1, 999, 64]])
def test_what_never_varied_is_exactly_0_whatever_rounding_makes_of_its_sums(sizes: list[int]) -> None:
    constants = np.array([1000.1, 1e6 + 0.1, -0.1, 1e-3, 1e-30, 0], np.float32)
    statistics = statistics_of(*(np.broadcast_to(constants, (size, 6)) for size in sizes))
    np.testing.assert_array_equal(statistics.mean, constants)
    np.testing.assert_array_equal(statistics.variance, 0)
    np.testing.assert_array_equal(normalisation.normalise(statistics, jnp.asarray(constants)), 0)


def test_small_variances_are_normalised_and_rounding_is_not() -> None:
    noise = np.random.default_rng(6).normal(size=(4096, 3))
    x = ([1000.1, 1e-3, 0] + noise * [0.01, 1e-5, 1e-4]).astype(np.float32)
    y = normalisation.normalise(statistics_of(*np.split(x, 4)), jnp.asarray(x))
    np.testing.assert_allclose(y, (noise - noise.mean(0)) / noise.std(0), atol=0.02)
    jitter = np.float32(1000.1) + np.spacing(np.float32(1000.1)) * np.sign(noise[:, :1]).astype(np.float32)
    assert np.abs(normalisation.normalise(statistics_of(jitter), jnp.asarray(jitter))).max() < 0.1


def test_outliers_are_clipped() -> None:
    statistics = statistics_of(np.random.default_rng(5).normal(size=(100, 1)))
    far = normalisation.normalise(statistics, jnp.asarray([[1e6], [-1e6], [0.5]]))
    np.testing.assert_array_equal(far[:2, 0], [CLIP, -CLIP])
    assert abs(far[2, 0]) < 1


# Rewards

NUM_ENVS, DISCOUNT = 3, 0.9


def recorded(rewards: jax.Array, done: jax.Array) -> Env:
    """Vectorised environments that pay what was written down: `rewards` and `done` are [T, NUM_ENVS]."""

    def as_time_step(reward: jax.Array, done: jax.Array) -> TimeStep:
        # every second environment ends by the task, the others by a time limit
        by_task = jnp.arange(NUM_ENVS) % 2 == 0
        first = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_ENVS, *x.shape)), make_time_step(jnp.zeros(1)))
        return replace(first, reward=reward, terminated=done & by_task, truncated=done & ~by_task)

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), as_time_step(jnp.zeros(NUM_ENVS), jnp.zeros(NUM_ENVS, bool))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state + 1, as_time_step(rewards[state], done[state])

    return Env(EnvSpec("probe/recorded", (1,), np.dtype(np.float32), Discrete(2), 100), reset, step)


def scaled(rewards: ArrayLike, done: ArrayLike, discount: float | jax.Array = DISCOUNT) -> jax.Array:
    """The rewards [T, NUM_ENVS] that a learner sees."""
    env = normalisation.scale_rewards(recorded(jnp.asarray(rewards), jnp.asarray(done)), discount)
    key = jax.random.key(0)

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        state, time_step = env.step(key, state, jnp.zeros(NUM_ENVS, jnp.int32))
        return state, time_step.reward

    return jax.lax.scan(step, env.reset(key)[0], length=np.shape(rewards)[0])[1]


def expected_rewards(rewards: np.ndarray, done: np.ndarray) -> np.ndarray:
    returns, squares, expected = np.zeros(NUM_ENVS), [], []
    for reward, ended in zip(np.asarray(rewards, np.float64), done, strict=True):
        returns = DISCOUNT * returns + reward
        squares.extend(returns**2)
        size = np.sqrt(np.mean(squares))
        expected.append(reward / (size if size > 0 else 1))
        returns[ended] = 0
    return np.array(expected)


def a_record(seed: int = 0, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(2, 3, (length, NUM_ENVS)).astype(np.float32), rng.random((length, NUM_ENVS)) < 0.15


def test_rewards_are_divided_by_the_root_mean_square_of_returns() -> None:
    rewards, done = a_record()
    np.testing.assert_allclose(scaled(rewards, done), expected_rewards(rewards, done), rtol=1e-4)


def test_recorded_rewards_are_divided_by_what_the_running_size_ends_at() -> None:
    rewards, done = a_record()
    size = rewards[-1] / expected_rewards(rewards, done)[-1]
    recorded = normalisation.scale_recorded_rewards(jnp.asarray(rewards), jnp.asarray(done), DISCOUNT)
    np.testing.assert_allclose(recorded, rewards / size, rtol=1e-4)
    nothing = normalisation.scale_recorded_rewards(jnp.zeros((4, NUM_ENVS)), jnp.zeros((4, NUM_ENVS), bool), DISCOUNT)
    np.testing.assert_array_equal(nothing, 0)


def test_an_end_cuts_the_return_and_not_the_reward() -> None:
    # a reward of 1 at each step of episodes of one step: every return is 1, and so is every scaled reward
    ones = np.ones((20, NUM_ENVS), np.float32)
    np.testing.assert_allclose(scaled(ones, np.ones_like(ones, bool)), 1, rtol=1e-6)
    assert scaled(ones, np.zeros_like(ones, bool))[-1, 0] < 0.2  # returns near 1/(1 − γ) = 10


def test_rewards_of_nothing_but_0_stay_0_and_their_units_do_not_matter() -> None:
    rewards, done = a_record(1)
    np.testing.assert_array_equal(scaled(0 * rewards, done), 0 * rewards)
    np.testing.assert_allclose(scaled(1000 * rewards, done), scaled(rewards, done), rtol=1e-4)


def test_each_seed_has_its_own_scale() -> None:
    records = [a_record(seed) for seed in range(2)]
    rewards, done = (np.stack(x) for x in zip(*records, strict=True))
    rewards[1] *= 50
    together = jax.vmap(scaled)(jnp.asarray(rewards), jnp.asarray(done))
    for seed in range(2):
        np.testing.assert_allclose(together[seed], expected_rewards(rewards[seed], done[seed]), rtol=1e-4)


def test_the_discount_can_be_vmapped() -> None:
    rewards, done = a_record(2)
    both = jax.vmap(lambda discount: scaled(rewards, done, discount))(jnp.asarray([DISCOUNT, 0.0]))
    np.testing.assert_allclose(both[0], expected_rewards(rewards, done), rtol=1e-4)
    assert (np.asarray(both[0]) != np.asarray(both[1])).any()


@pytest.mark.parametrize("reward", [1e-3, -7.0])
def test_the_first_reward_after_many_steps_without_any_is_bounded(reward: float) -> None:
    rewards = np.zeros((10_000, NUM_ENVS), np.float32)
    rewards[-1, 0] = reward  # √30,000 of the running size
    assert scaled(rewards, np.zeros_like(rewards, bool))[-1, 0] == np.sign(reward) * CLIP


def test_nothing_else_in_a_step_changes() -> None:
    rewards, done = a_record(3)
    env = recorded(jnp.asarray(rewards), jnp.asarray(done))
    wrapped, key = normalisation.scale_rewards(env, DISCOUNT), jax.random.key(0)
    (plain_state, plain), (state, first) = env.reset(key), wrapped.reset(key)
    jax.tree.map(np.testing.assert_array_equal, plain, first)
    for _ in range(3):
        plain_state, plain = env.step(key, plain_state, jnp.zeros(NUM_ENVS))
        state, time_step = wrapped.step(key, state, jnp.zeros(NUM_ENVS))
        jax.tree.map(np.testing.assert_array_equal, replace(time_step, reward=plain.reward), plain)
    assert wrapped.spec is env.spec
