"""Brax through the adapter, against Brax's own raw environments."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import brax as adapter
from jaxsoft.envs import env_spec, make_env
from jaxsoft.envs.wrappers import wrap_for_training
from jaxsoft.errors import InputError
from jaxsoft.types import Box, TimeStep

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:brax", "ignore::DeprecationWarning:mujoco")

PENDULUM = "brax/inverted_pendulum"
NUM_STEPS = 40


def rollout(env_id: str, actions: jax.Array, **params: Any) -> tuple[TimeStep, TimeStep]:
    """The first time step, and those after it, with nothing that stops at an end.

    The adapter's own: with `make_env`'s wrappers the tests' fast compilation rounds otherwise, and a falling pendulum
    makes a thousand times as much of it.
    """
    env = adapter.make(env_id.removeprefix("brax/"), **params)

    @jax.jit
    def run(key: jax.Array) -> tuple[TimeStep, TimeStep]:
        state, first = env.reset(key)
        return first, jax.lax.scan(lambda state, action: env.step(key, state, action), state, actions)[1]

    return run(jax.random.key(0))


@pytest.fixture(scope="module")
def actions() -> jax.Array:
    """[NUM_STEPS, 1]; they let the pendulum fall."""
    return jnp.full((NUM_STEPS, 1), 0.1)


@pytest.fixture(scope="module")
def native(actions: jax.Array) -> Any:
    """Brax's own states along the same actions, from the same key: leaves [NUM_STEPS, ...]."""
    env = adapter._raw("inverted_pendulum", "positional", {})

    @jax.jit
    def run(key: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
            state = env.step(state, action)
            state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), state)
            return state, (state.obs, state.reward, state.done)

        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), env.reset(key))
        return jax.lax.scan(step, state, actions)[1]

    return run(jax.random.key(0))


def test_a_trajectory_is_brax_own(actions: jax.Array, native: Any) -> None:
    _, steps = rollout(PENDULUM, actions, max_episode_steps=30)
    obs, reward, done = native
    np.testing.assert_allclose(steps.next_obs, obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(steps.reward, reward)
    np.testing.assert_array_equal(steps.terminated, done > 0)
    assert 0 < np.flatnonzero(done)[0] < 29  # the pendulum fell
    np.testing.assert_array_equal(steps.truncated, (np.arange(NUM_STEPS) >= 29) & (np.asarray(done) == 0))
    assert adapter.make(PENDULUM.removeprefix("brax/"), max_episode_steps=30).spec.earliest_truncation == 30


def test_a_repeated_action_sums_rewards_and_stops_where_the_task_ends(actions: jax.Array, native: Any) -> None:
    obs, _, done = (np.asarray(x) for x in native)
    fell = int(np.flatnonzero(done)[0])  # the Brax step that ends the task
    _, steps = rollout(PENDULUM, actions, action_repeat=3, max_episode_steps=100)
    last = fell // 3
    np.testing.assert_array_equal(np.flatnonzero(steps.terminated)[0], last)
    np.testing.assert_array_equal(steps.reward[:last], 3)
    assert steps.reward[last] == fell % 3 + 1  # the steps up to the end, and none after it
    np.testing.assert_allclose(steps.next_obs[last], obs[fell], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(steps.next_obs[:last], obs[2 : 3 * last : 3], rtol=1e-5, atol=1e-6)
    assert make_env(PENDULUM, action_repeat=3, max_episode_steps=100).spec.max_episode_steps == 34


def test_every_episode_in_training_starts_from_a_start_of_its_own() -> None:
    num_envs, num_steps = 4, 120
    envs = wrap_for_training(make_env(PENDULUM, max_episode_steps=10), num_envs)

    @jax.jit
    def run(key: jax.Array) -> tuple[TimeStep, TimeStep]:
        state, first = envs.reset(key)
        xs = jax.random.split(key, num_steps), jax.random.uniform(key, (num_steps, num_envs, 1), minval=-1, maxval=1)
        return first, jax.lax.scan(lambda state, x: envs.step(x[0], state, x[1]), state, xs)[1]

    first, steps = run(jax.random.key(1))
    done = np.asarray(steps.done)
    assert np.any(steps.terminated)
    assert np.any(steps.truncated)
    assert not np.any(np.asarray(steps.terminated) & np.asarray(steps.truncated))
    starts = np.concatenate([first.obs, np.asarray(steps.obs)[done]])
    assert len(starts) > 50
    assert len(np.unique(starts, axis=0)) == len(starts)
    # Brax starts this pendulum within 0.01 of rest, and where an episode ends the true successor is kept
    assert np.abs(starts).max() <= 0.011
    terminated = np.asarray(steps.terminated)
    assert (np.abs(np.asarray(steps.next_obs)[terminated][:, 1]) > 0.2).all()
    np.testing.assert_array_equal(np.asarray(steps.obs)[~done], np.asarray(steps.next_obs)[~done])
    assert np.asarray(steps.episode_length)[done].max() == 10


def test_types_are_those_of_the_spec_and_stay_the_same() -> None:
    # weak types count: a state that turns strong at the first step is compiled twice
    for env_id in (PENDULUM, "brax/hopper", f"{PENDULUM}?action_repeat=2"):
        env, key = make_env(env_id), jax.random.key(0)
        first = jax.eval_shape(env.reset, key)
        after = jax.eval_shape(env.step, key, first[0], jnp.zeros(env.spec.action_space.shape))
        types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (first, after)]
        assert types[0] == types[1]
        assert (first[1].obs.shape, first[1].obs.dtype) == (env.spec.obs_shape, env.spec.obs_dtype)


def test_stepping_leaves_the_state_it_was_given_unchanged() -> None:
    env = make_env("brax/fast")
    state, _ = env.reset(jax.random.key(0))
    before = jax.tree.map(np.array, state)
    for _ in range(2):
        env.step(jax.random.key(0), state, jnp.ones(1))
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, state))


def test_names_are_brax_own() -> None:
    assert set(adapter.SUITE.names()) == set(adapter._import_brax()._envs)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("fast", "hopper", "swimmer") else pytest.param(name, marks=pytest.mark.slow)
        for name in adapter.SUITE.names()
    ],
)
def test_the_table_tells_what_brax_builds_and_it_steps(name: str) -> None:
    env = make_env(f"brax/{name}")
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    _, after = jax.eval_shape(env.step, jax.random.key(0), state, jnp.zeros(env.spec.action_space.shape))
    assert str(first) == str(after)
    listed, built = env_spec(f"brax/{name}"), env.spec
    assert str(listed) == str(built)
    space = built.action_space
    assert isinstance(space, Box)
    assert (space.low == -1).all()
    assert (space.high == 1).all()
    assert built.max_episode_steps == 1_000
    assert built.costly_reset


def test_the_backend_is_chosen_by_id_or_keyword() -> None:
    by_id, by_keyword = make_env("brax/reacher?backend=positional"), make_env("brax/reacher", backend="positional")
    assert by_id.spec.id == by_keyword.spec.id == "brax/reacher?backend=positional"
    leaves = [
        len(jax.tree.leaves(jax.eval_shape(make_env("brax/reacher", backend=backend).reset, jax.random.key(0))))
        for backend in ("spring", "positional", "generalized")
    ]
    assert len(set(leaves)) > 1  # each engine has a state of its own


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backend": "springs"}, "backend is 'springs'; it must be one of spring, positional, generalized, mjx"),
        ({"x": 1}, "brax/hopper has no parameter 'x'; it has: backend, action_repeat, max_episode_steps, ctrl_cost"),
        ({"healthy_reward": "much"}, "healthy_reward is 'much'; it must be a finite number, like its default, 1.0"),
        ({"healthy_z_range": [1]}, "healthy_z_range is \\[1\\]; it must be 2 numbers, like its default"),
        ({"terminate_when_unhealthy": 1}, "is 1; it must be true or false, like its default, True"),
        ({"action_repeat": 0}, "action_repeat is 0; it must be a positive integer"),
        ({"action_repeat": 1.5}, "action_repeat is 1.5; it must be a positive integer"),
        ({"max_episode_steps": "x"}, "max_episode_steps is 'x'; it must be a positive integer"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_env("brax/hopper", **params)


def test_a_backend_that_an_environment_does_not_support_is_refused() -> None:
    with pytest.raises(InputError, match="brax/swimmer cannot be built with backend 'spring'"):
        make_env("brax/swimmer", backend="spring")


def test_brax_parameters_are_passed_on() -> None:
    env = make_env("brax/hopper?reset_noise_scale=0&healthy_z_range=[0.5,2]")
    _, first = jax.jit(env.reset)(jax.random.key(0))
    np.testing.assert_allclose(first.obs[1:], 0, atol=1e-6)


def test_that_brax_is_not_maintained_is_said_once_in_one_line(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture
) -> None:
    adapter._say_once_that_brax_is_not_maintained.cache_clear()
    with caplog.at_level(logging.WARNING, logger="jaxsoft"):
        for _ in range(2):
            make_env("brax/reacher")
    (record,) = caplog.records
    assert "no longer actively maintained" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not [warning for warning in recwarn if "maintained" in str(warning.message)]
    assert capsys.readouterr().out == ""
