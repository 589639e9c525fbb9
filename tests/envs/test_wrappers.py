"""Wrappers on an environment whose every transition is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, counting, steady_reward

from jaxsoft.envs import make_env
from jaxsoft.envs.wrappers import (
    auto_reset,
    auto_reset_from_pool,
    convert_keys,
    full_products,
    record_episodes,
    scale_actions,
    scale_to_bounds,
    single_precision,
    time_limit,
    vectorise,
    wrap_for_evaluation,
    wrap_for_training,
)
from jaxsoft.random import fused, unfused
from jaxsoft.training.evaluation import evaluate
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step

LENGTH = 4


def rollout(env: Env, num_steps: int, seed: int = 0, action_shape: tuple[int, ...] = (1,)) -> tuple[TimeStep, TimeStep]:
    """The first time step, and the `num_steps` after it (leaves [num_steps, ...])."""

    @jax.jit
    def run(key: jax.Array) -> tuple[TimeStep, TimeStep]:
        state, first = env.reset(key)
        keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)
        return first, jax.lax.scan(lambda s, k: env.step(k, s, jnp.zeros(action_shape)), state, keys)[1]

    return run(jax.random.key(seed))


@pytest.mark.parametrize("terminates", [False, True])
def test_totals_are_complete_on_an_episodes_last_step_and_start_anew(terminates: bool) -> None:
    _, steps = rollout(auto_reset(record_episodes(counting(LENGTH, terminates=terminates))), 2 * LENGTH + 1)
    np.testing.assert_array_equal(steps.episode_length, [1, 2, 3, 4, 1, 2, 3, 4, 1])
    np.testing.assert_array_equal(steps.episode_return, [1, 3, 6, 10, 1, 3, 6, 10, 1])
    np.testing.assert_array_equal(np.flatnonzero(steps.done), [3, 7])


def test_next_obs_is_the_true_successor_and_obs_the_fresh_start() -> None:
    first, steps = rollout(auto_reset(record_episodes(counting(LENGTH))), 10 * LENGTH)
    obs, next_obs, done = (np.asarray(x).squeeze() for x in (steps.obs, steps.next_obs, steps.done))
    acted_on = np.append(first.obs, obs[:-1])
    np.testing.assert_array_equal(next_obs, acted_on + 1)  # also where an episode ended
    np.testing.assert_array_equal(obs[~done], next_obs[~done])
    assert (obs[done] < 1).all()  # a start
    assert (next_obs[done] >= LENGTH).all()


def test_every_episode_starts_from_a_fresh_random_state() -> None:
    first, steps = rollout(auto_reset(counting(LENGTH)), 20 * LENGTH)
    starts = np.append(first.obs, np.asarray(steps.obs).squeeze()[np.asarray(steps.done)])
    assert len(starts) == 21
    # of 4096 possible starts two of 21 are alike with probability 0.05: this seed's are not
    assert len(np.unique(starts)) == 21


def test_parallel_environments_have_starts_of_their_own() -> None:
    num_envs = 8
    first, steps = rollout(wrap_for_training(counting(LENGTH), num_envs), LENGTH, action_shape=(num_envs, 1))
    assert steps.obs.shape == (LENGTH, num_envs, 1)
    assert len(np.unique(first.obs)) == num_envs
    second = np.asarray(steps.obs[-1])  # all episodes have just ended
    assert np.all(steps.done[-1])
    assert len(np.unique(np.append(first.obs, second))) == 2 * num_envs


def test_a_resets_key_is_not_the_steps() -> None:
    # an environment that draws one number from each key it is given
    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return (), make_time_step(jax.random.uniform(key, (1,)))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return (), make_time_step(jax.random.uniform(key, (1,)), terminated=True)

    env = Env(EnvSpec("probe/noise", (1,), np.dtype(np.float32), UNIT_BOX, 1), reset, step)
    _, steps = rollout(auto_reset(env), 50)
    assert len(np.unique(np.append(steps.obs, steps.next_obs))) == 100


def test_an_environment_may_draw_by_any_function_of_jax_random() -> None:
    # `poisson` refuses any keys but JAX's own; a training's keys are of another kind
    def draw(key: jax.Array) -> TimeStep:
        return make_time_step(jax.random.poisson(key, 3.0, (1,)).astype(jnp.float32), terminated=True)

    spec = EnvSpec("probe/poisson", (1,), np.dtype(np.float32), UNIT_BOX, 1)
    env = Env(spec, lambda key: ((), draw(key)), lambda key, state, action: ((), draw(key)))
    for costly_reset in (False, True):
        envs = wrap_for_training(env._replace(spec=replace(spec, costly_reset=costly_reset)), 2)

        def run(key: jax.Array, envs: Env = envs) -> tuple[TimeStep, TimeStep]:
            state, first = envs.reset(key)
            return first, envs.step(key, state, jnp.zeros((2, 1)))[1]

        jax.tree.map(np.testing.assert_array_equal, *(jax.jit(run)(key(jax.random.key(0))) for key in (fused, unfused)))


def test_vectorised_copies_equal_single_environments() -> None:
    num_envs, env = 3, record_episodes(counting(LENGTH))
    many = vectorise(env, num_envs)
    key = jax.random.key(4)
    state, first = many.reset(key)
    state, after = many.step(key, state, jnp.zeros((num_envs, 1)))
    assert many.spec == env.spec
    for i, own_key in enumerate(jax.random.split(key, num_envs)):
        alone_state, alone_first = env.reset(own_key)
        _, alone_after = env.step(own_key, alone_state, jnp.zeros(1))
        for together, alone in ((first, alone_first), (after, alone_after)):
            jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_time_limit_truncates_at_its_step_only() -> None:
    _, steps = rollout(auto_reset(time_limit(counting(10), 3)), 7)
    np.testing.assert_array_equal(steps.truncated, [False, False, True] * 2 + [False])
    assert not np.any(steps.terminated)


def test_an_episode_that_terminates_on_the_limits_step_is_not_truncated() -> None:
    _, steps = rollout(auto_reset(time_limit(counting(3, terminates=True), 3)), 6)
    np.testing.assert_array_equal(steps.terminated, [False, False, True] * 2)
    assert not np.any(steps.truncated)


def test_time_limit_keeps_the_inner_environments_truncation() -> None:
    _, steps = rollout(auto_reset(time_limit(counting(2), 5)), 4)
    np.testing.assert_array_equal(steps.truncated, [False, True] * 2)


@pytest.mark.parametrize(("limit", "expected"), [(3, 3), (10, 4)])
def test_time_limit_tells_the_longest_episode(limit: int, expected: int) -> None:
    assert time_limit(counting(4), limit).spec.max_episode_steps == expected


def endless(end_at: int = -1, *, limit: int = LENGTH) -> Env:
    """Goes on for ever but for a terminal step at `end_at`; states no limit but in its spec."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        first = make_time_step(jnp.zeros(1))  # what it says of the episode must not count
        return jnp.int32(0), replace(first, episode_return=jnp.float32(3), episode_length=jnp.int32(-7))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state + 1, make_time_step(jnp.zeros(1), 1.0, terminated=state + 1 == end_at)

    return Env(EnvSpec("probe/endless", (1,), np.dtype(np.float32), UNIT_BOX, limit), reset, step)


def test_an_environment_that_never_ends_is_stopped_after_the_steps_that_its_spec_states() -> None:
    for env in (endless(), costly(endless())):
        _, steps = rollout(wrap_for_training(env, 2), 2 * LENGTH + 1, action_shape=(2, 1))
        np.testing.assert_array_equal(np.flatnonzero(steps.truncated.all(1)), [LENGTH - 1, 2 * LENGTH - 1])
        np.testing.assert_array_equal(steps.truncated.any(1), steps.truncated.all(1))
        np.testing.assert_array_equal(steps.episode_length[:, 0], [1, 2, 3, 4, 1, 2, 3, 4, 1])
        assert not steps.terminated.any()
    totals = evaluate(jax.random.key(0), lambda key, obs: obs, endless(), 2)
    np.testing.assert_array_equal(totals.lengths, [LENGTH] * 2)
    np.testing.assert_array_equal(totals.returns, [LENGTH] * 2)


def test_an_end_on_the_limits_step_is_an_end_and_the_limit_is_counted_once() -> None:
    env = wrap_for_evaluation(endless(end_at=LENGTH))
    _, steps = rollout(env, LENGTH)
    np.testing.assert_array_equal(steps.terminated, [False] * 3 + [True])
    assert not steps.truncated.any()
    leaves = jax.tree.leaves(jax.eval_shape(env.reset, jax.random.key(0))[0])
    assert len(leaves) == 4  # its own state, the return with the rest of its sum, and the length


@pytest.mark.parametrize("env_id", ["gymnax/Pendulum-v1?max_steps_in_episode=3", "finite/Chain-5?max_episode_steps=3"])
def test_an_environment_that_keeps_its_own_limit_is_left_as_it_is(env_id: str) -> None:
    env = make_env(env_id)
    spec = replace(env.spec, max_episode_steps=1_000)  # one that says nothing new
    action = jnp.zeros(env.spec.action_space.shape, env.spec.action_space.dtype)

    def run(env: Env) -> TimeStep:
        env = auto_reset(record_episodes(env))
        keys = jax.random.split(jax.random.key(1), 8)
        return jax.lax.scan(lambda s, k: env.step(k, s, action), env.reset(jax.random.key(0))[0], keys)[1]

    limited, alone = jax.jit(lambda: (run(env), run(env._replace(spec=spec))))()
    jax.tree.map(np.testing.assert_array_equal, limited, alone)
    np.testing.assert_array_equal(limited.truncated, [False, False, True] * 2 + [False] * 2)


def two_dimensional(step_log: Any = None) -> Env:
    """Rewards with the sum of the action as the environment received it; bounds differ by dimension."""
    space = Box(np.asarray([-2.0, 0.0], np.float32), np.asarray([2.0, 10.0], np.float32))
    spec = replace(steady_reward(3).spec, action_space=space)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(action)

    return Env(spec, lambda key: ((), make_time_step(jnp.zeros(2))), step)


@pytest.mark.parametrize(
    ("action", "received"), [([-1, -1], [-2, 0]), ([1, 1], [2, 10]), ([0, 0], [0, 5]), ([0.5, -0.5], [1, 2.5])]
)
def test_unit_actions_are_mapped_onto_the_bounds(action: list[float], received: list[float]) -> None:
    inner = two_dimensional()
    env = scale_actions(inner)
    _, after = env.step(jax.random.key(0), (), jnp.asarray(action, jnp.float32))
    np.testing.assert_allclose(after.obs, received, rtol=1e-6, atol=1e-6)
    space = inner.spec.action_space
    assert isinstance(space, Box)
    np.testing.assert_allclose(
        scale_to_bounds(jnp.asarray([action, action], jnp.float32), space)[1], received, atol=1e-6
    )


def test_the_map_never_leaves_the_bounds_and_reaches_both() -> None:
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, 20_000)) * 10 ** rng.uniform(-6, 6, 20_000), axis=0).astype(np.float32)
    low[0], high[0] = -0.7, 0.1
    action = np.concatenate([np.linspace(-1, 1, 11), 1 - np.logspace(-1, -7, 11)]).astype(np.float32)
    within = jax.jit(jax.vmap(lambda low, high: scale_to_bounds(action, Box(low, high))))  # type: ignore[arg-type]
    scaled = np.asarray(within(low, high))
    np.testing.assert_array_equal(scaled[:, [0, 10]], np.stack([low, high], axis=-1))
    assert ((low[:, None] <= scaled) & (scaled <= high[:, None])).all()
    expected = low[:, None] + (high - low.astype(np.float64))[:, None] * (action + 1.0) / 2
    np.testing.assert_allclose((scaled - expected) / np.maximum(-low, high)[:, None], 0, atol=3e-7)


def test_scaled_spec_has_unit_bounds() -> None:
    space = scale_actions(two_dimensional()).spec.action_space
    assert isinstance(space, Box)
    np.testing.assert_array_equal([space.low, space.high], [[-1, -1], [1, 1]])
    assert space.dtype == np.float32


def test_discrete_actions_are_left_alone() -> None:
    env = counting(3, action_space=Discrete(3))
    assert scale_actions(env) is env


NUM_ENVS = 8


def costly(env: Env) -> Env:
    return env._replace(spec=replace(env.spec, costly_reset=True))


def labelled(end_probability: float, on_reset: Callable[[Any], None] | None = None) -> Env:
    """Episodes that end at random; an observation is its episode's own number in [0, 1)."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        obs = jax.random.uniform(key, (1,))
        if on_reset is not None:
            jax.debug.callback(on_reset, obs)
        return obs, make_time_step(obs)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(state, 1.0, terminated=jax.random.bernoulli(key, end_probability))

    return costly(Env(EnvSpec("probe/labelled", (1,), np.dtype(np.float32), UNIT_BOX, 1_000), reset, step))


def test_a_pool_restarts_all_environments_that_end_at_one_step_each_from_a_start_of_its_own() -> None:
    envs = wrap_for_training(costly(counting(LENGTH)), NUM_ENVS)
    first, steps = rollout(envs, 20 * LENGTH, action_shape=(NUM_ENVS, 1))
    done = np.asarray(steps.done)
    np.testing.assert_array_equal(np.flatnonzero(done.all(1)), np.arange(LENGTH - 1, 20 * LENGTH, LENGTH))
    np.testing.assert_array_equal(done.any(1), done.all(1))
    np.testing.assert_array_equal(steps.episode_return[done], 10)
    acted_on = np.concatenate([first.obs[None], steps.obs[:-1]])
    np.testing.assert_array_equal(steps.next_obs, acted_on + 1)  # the true successor, also where an episode ended
    assert (np.asarray(steps.obs)[done] < 1).all()
    for starts in np.asarray(steps.obs)[done.all(1)]:
        assert len(np.unique(starts)) == NUM_ENVS


@pytest.mark.parametrize("end_probability", [0.02, 0.3, 0.9])
def test_starts_of_a_pool_do_not_repeat(end_probability: float) -> None:
    num_steps = int(400 / end_probability / NUM_ENVS)
    envs = wrap_for_training(labelled(end_probability), NUM_ENVS)
    first, steps = rollout(envs, num_steps, action_shape=(NUM_ENVS, 1))
    starts = np.append(first.obs, np.asarray(steps.obs)[np.asarray(steps.done)])
    assert len(starts) > 300
    # two of 2²⁴ numbers are alike among 500 with probability 0.007: these seeds' are not
    assert len(np.unique(starts)) == len(starts)


@pytest.mark.parametrize("end_probability", [0.02, 0.3, 0.9])
def test_a_pool_is_drawn_only_where_starts_are_needed(end_probability: float) -> None:
    resets = []
    envs = wrap_for_training(labelled(end_probability, resets.append), NUM_ENVS)
    num_steps = int(400 / end_probability / NUM_ENVS)
    _, steps = rollout(envs, num_steps, action_shape=(NUM_ENVS, 1))
    jax.effects_barrier()
    draws = len(resets) / NUM_ENVS - 1  # one is the first reset
    num_ended = int(np.sum(steps.done))
    assert num_ended / NUM_ENVS <= draws + 1  # what it takes
    assert draws <= 2 * num_ended / NUM_ENVS + 1  # what the docstring promises
    assert draws <= np.sum(np.any(steps.done, axis=1))


def test_a_pool_under_vmap_gives_each_seed_what_it_gives_alone() -> None:
    envs = auto_reset_from_pool(vectorise(record_episodes(labelled(0.2)), NUM_ENVS), NUM_ENVS)

    def run(key: jax.Array) -> TimeStep:
        keys = jax.random.split(key, 50)
        state = envs.reset(key)[0]
        return jax.lax.scan(lambda state, key: envs.step(key, state, jnp.zeros((NUM_ENVS, 1))), state, keys)[1]

    keys = jax.random.split(jax.random.key(3), 4)
    together, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)(keys[2])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2], y), together, alone)
    assert len(np.unique(together.obs[:, -1])) == 4 * NUM_ENVS  # seeds share no starts


def test_only_costly_resets_come_from_a_pool() -> None:
    cheap, dear = (wrap_for_training(env, 2) for env in (counting(LENGTH), costly(counting(LENGTH))))
    sizes = [len(jax.tree.leaves(jax.eval_shape(envs.reset, jax.random.key(0)))) for envs in (cheap, dear)]
    assert sizes[1] > sizes[0]


def test_wrappers_of_one_environment_keep_its_pictures():
    def render(state: Any) -> np.ndarray:
        return np.full((2, 2, 3), state, np.uint8)

    env = counting(3)._replace(render=render)
    for wrap in (scale_actions, full_products, single_precision, lambda env: convert_keys(env, unfused)):
        assert wrap(env).render is render
    limited = time_limit(env, 2)
    state, _ = limited.reset(jax.random.key(0))
    assert limited.render is not None
    with_time = limited.render((7, state[1]))
    np.testing.assert_array_equal(with_time, render(7))
    assert time_limit(counting(3), 2).render is None
