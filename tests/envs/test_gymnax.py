"""Every gymnax environment through the adapter: shapes, flags, and gymnax's own trajectories."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import partial
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import gymnax as adapter
from jaxsoft.envs import make_env, names
from jaxsoft.envs.stand_ins import stand_ins
from jaxsoft.envs.wrappers import auto_reset, record_episodes
from jaxsoft.errors import InputError
from jaxsoft.training.turns import random_action
from jaxsoft.types import Discrete, Env, TimeStep

NUM_STEPS = 60
SHORT_LIMIT = 25


# MNISTBandit downloads its images when it is made
ENV_NAMES = [name for name in adapter.SUITE.names() if name != "MNISTBandit-bsuite"]


def rollout(env: Env, num_steps: int, key: jax.Array, action: Any = None) -> TimeStep:
    """Steps with random (or the given) actions through an environment that resets itself; leaves [num_steps, ...]."""

    def step(state: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        action_key, step_key = jax.random.split(key)
        chosen = random_action(action_key, env.spec.action_space, 1)[0] if action is None else action
        return env.step(step_key, state, chosen)

    reset_key, key = jax.random.split(key)
    return jax.jit(lambda: jax.lax.scan(step, env.reset(reset_key)[0], jax.random.split(key, num_steps))[1])()


class Recorded(NamedTuple):
    """A rollout with random actions, restarted from `first` wherever an episode ends.

    Attributes:
        env: whose time limit is short enough to be met.
        first: the time step of the reset.
        steps: leaves [NUM_STEPS, ...].
        times: [NUM_STEPS], steps since the episode's start, counted by the test.
    """

    env: Env
    first: TimeStep
    steps: TimeStep
    times: np.ndarray


@pytest.fixture(scope="module", params=ENV_NAMES)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    env_id = f"gymnax/{request.param}"
    limit = min(SHORT_LIMIT, make_env(env_id).spec.max_episode_steps)
    env = make_env(env_id, max_steps_in_episode=limit)

    def step(carry: tuple[Any, jax.Array], xs: tuple[jax.Array, jax.Array], first_state: Any) -> tuple[Any, Any]:
        (state, time), (key, action) = carry, xs
        state, time_step = env.step(key, state, action)
        state = jax.tree.map(lambda a, b: jnp.where(time_step.done, a, b), first_state, state)
        return (state, jnp.where(time_step.done, 0, time + 1)), (time_step, time + 1)

    @jax.jit
    def run(key: jax.Array) -> tuple[TimeStep, TimeStep, jax.Array]:
        state, first = env.reset(key)
        actions = random_action(key, env.spec.action_space, NUM_STEPS)
        xs = jax.random.split(key, NUM_STEPS), actions
        _, (steps, times) = jax.lax.scan(partial(step, first_state=state), (state, jnp.int32(0)), xs)
        return first, steps, times

    first, steps, times = run(jax.random.key(1))
    return Recorded(env, first, steps, np.asarray(times))


def test_shapes_and_dtypes_are_those_of_the_spec(recorded: Recorded) -> None:
    spec, first, steps = recorded.env.spec, recorded.first, recorded.steps
    assert (first.obs.shape, first.obs.dtype) == (spec.obs_shape, spec.obs_dtype)
    for obs in (steps.obs, steps.next_obs):
        assert (obs.shape, obs.dtype) == ((NUM_STEPS, *spec.obs_shape), spec.obs_dtype)
    for name, dtype in (("reward", jnp.float32), ("terminated", jnp.bool), ("truncated", jnp.bool)):
        value = getattr(steps, name)
        assert (value.shape, value.dtype) == ((NUM_STEPS,), dtype)
    assert np.isfinite(steps.obs).all()
    assert np.isfinite(steps.reward).all()


def test_step_returns_the_types_that_reset_does(recorded: Recorded) -> None:
    # weak types count: a state that turns strong at the first step is compiled twice
    env, key = recorded.env, jax.random.key(0)
    action = random_action(key, env.spec.action_space, 1)[0]
    first = jax.eval_shape(env.reset, key)
    after = jax.eval_shape(env.step, key, first[0], action)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (first, after)]
    assert types[0] == types[1]


def test_flags_tell_the_time_limit_from_the_end(recorded: Recorded) -> None:
    terminated, truncated = np.asarray(recorded.steps.terminated), np.asarray(recorded.steps.truncated)
    assert not (terminated & truncated).any()
    at_limit = recorded.times == recorded.env.spec.max_episode_steps
    np.testing.assert_array_equal(truncated, at_limit & ~terminated)
    assert recorded.env.spec.earliest_truncation == recorded.env.spec.max_episode_steps
    assert (terminated | truncated).any()


@pytest.mark.parametrize(
    "name",
    ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Catch-bsuite", "FourRooms-misc", "FrozenLake-misc"],
)
def test_trajectory_is_gymnax_own(name: str) -> None:
    env, (native, params) = make_env(f"gymnax/{name}"), gymnax.make(name)

    def step(states: tuple[Any, Any], xs: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        key, action = xs
        state, time_step = env.step(key, states[0], action)
        obs, native_state, reward, terminated, _ = native.step_env(key, states[1], action, params)
        native_state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), native_state, state)
        return (state, native_state), (time_step, obs, reward, terminated)

    @jax.jit
    def run(key: jax.Array) -> Any:
        state, first = env.reset(key)
        obs, native_state = native.reset_env(key, params)
        native_state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), native_state, state)
        actions = random_action(key, env.spec.action_space, NUM_STEPS)
        return first, obs, jax.lax.scan(step, (state, native_state), (jax.random.split(key, NUM_STEPS), actions))[1]

    first, native_first, (steps, obs, reward, terminated) = run(jax.random.key(2))
    if name == "FrozenLake-misc":  # its observation is a number, which the adapter makes one-hot
        native_first, obs = (np.eye(16, dtype=np.float32)[x] for x in (native_first, obs))
    np.testing.assert_allclose(first.obs, native_first, rtol=1e-6)
    np.testing.assert_allclose(steps.next_obs, obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(steps.reward, reward, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(steps.terminated, terminated)


def test_pendulum_is_truncated_after_exactly_200_steps_and_never_terminates() -> None:
    env = auto_reset(record_episodes(make_env("gymnax/Pendulum-v1")))
    steps = rollout(env, 650, jax.random.key(0))
    assert not np.any(steps.terminated)
    np.testing.assert_array_equal(np.flatnonzero(steps.truncated), [199, 399, 599])
    np.testing.assert_array_equal(steps.episode_length[np.asarray(steps.truncated)], 200)


def test_cartpole_terminates_when_the_pole_falls_long_before_its_limit() -> None:
    env = auto_reset(record_episodes(make_env("gymnax/CartPole-v1")))
    steps = rollout(env, 400, jax.random.key(0), action=jnp.int32(1))  # always pushed to the right
    ended = np.asarray(steps.terminated)
    assert ended.sum() > 20
    assert not np.any(steps.truncated)
    assert steps.episode_length[ended].max() < 20
    np.testing.assert_array_equal(steps.episode_return[ended], steps.episode_length[ended])


def test_discrete_observations_are_one_hot() -> None:
    env = make_env("gymnax/FrozenLake-misc")
    steps = rollout(auto_reset(env), 100, jax.random.key(0))
    assert env.spec.obs_shape == (16,)
    np.testing.assert_array_equal(np.sort(steps.obs, axis=-1)[:, -2:], np.tile([0.0, 1.0], (100, 1)))
    assert len(np.unique(np.argmax(steps.obs, axis=-1))) > 1


def test_action_spaces_are_gymnax_own() -> None:
    pendulum, cartpole = (make_env(f"gymnax/{name}").spec.action_space for name in ("Pendulum-v1", "CartPole-v1"))
    np.testing.assert_array_equal([pendulum.low, pendulum.high], [[-2.0], [2.0]])  # type: ignore[union-attr]
    assert cartpole == Discrete(2)


def test_parameters_can_be_overridden() -> None:
    env = make_env("gymnax/Pendulum-v1", max_steps_in_episode=7, g=0.0)
    assert env.spec.max_episode_steps == 7
    steps = rollout(auto_reset(env), 15, jax.random.key(0))
    np.testing.assert_array_equal(np.flatnonzero(steps.truncated), [6, 13])
    # without gravity and torque the pendulum keeps its speed
    state, first = env.reset(jax.random.key(0))
    _, after = env.step(jax.random.key(0), state, jnp.zeros(1))
    assert after.obs[2] == first.obs[2]


def test_names_are_ids_of_this_suite() -> None:
    assert set(names()) >= {f"gymnax/{name}" for name in ENV_NAMES}
    assert len(ENV_NAMES) >= 24


def test_an_unknown_environment_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match=r"unknown environment 'gymnax/Pendulm-v1'; did you mean gymnax/Pendulum-v1"):
        make_env("gymnax/Pendulm-v1")


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "brax/nothing", "gymnax/", "", "gymnax/pendulum-v1"])
def test_incomplete_and_misspelt_ids_are_refused(env_id: str) -> None:
    with pytest.raises(InputError, match="unknown environment"):
        make_env(env_id)


def test_a_parameter_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"max_steps_in_episode is 'many'; it must be a positive integer"):
        make_env("gymnax/Pendulum-v1", max_steps_in_episode="many")


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"Pendulum-v1 has no parameter 'gravity'; it has: .*max_torque"):
        make_env("gymnax/Pendulum-v1", gravity=9.8)


def test_an_environment_without_array_observations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Space:
        pass

    native, _ = gymnax.make("Pendulum-v1")
    monkeypatch.setattr(type(native), "observation_space", lambda *_: Space())
    with pytest.raises(InputError, match="observes a Space; only array observations are supported"):
        adapter.make("Pendulum-v1")


def test_an_environment_whose_data_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(gymnax, "make", no_network)
    with pytest.raises(InputError, match=r"MNISTBandit-bsuite needs data that cannot be had here \(no network\)"):
        adapter.make("MNISTBandit-bsuite")


def test_plotting_libraries_are_imported_when_something_is_drawn() -> None:
    program = """
import sys
import jaxsoft
jaxsoft.make_env("gymnax/Pendulum-v1")
assert "matplotlib" not in sys.modules and "seaborn" not in sys.modules
from gymnax.environments.misc import pong
assert pong.plt.figure.__module__ == "matplotlib.pyplot" and "matplotlib" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_asks_a_stand_in_while_gymnax_is_imported_is_told_that_it_cannot() -> None:
    assert "wave" not in sys.modules  # of the standard library, and not needed here
    with stand_ins(("wave",)):
        stand_in = sys.modules["wave"]
        with pytest.raises(AttributeError):
            _ = stand_in.open
    assert "wave" not in sys.modules
    assert stand_in.open is importlib.import_module("wave").open
