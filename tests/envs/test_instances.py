"""Instances of gymnax's and Brax's environments, and of one's own with their interfaces: the same as the named ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import brax.envs
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments.bsuite.deep_sea import DeepSea
from gymnax.wrappers import LogWrapper

from jaxsoft import check_env, from_brax, from_gymnax, make_env, make_train
from jaxsoft.envs import env_of_run
from jaxsoft.errors import InputError


def test_an_instance_of_gymnax_is_the_named_environment() -> None:
    native, params = gymnax.make("Pendulum-v1")
    env, named = from_gymnax(native, params.replace(g=5.0)), make_env("gymnax/Pendulum-v1?g=5")
    assert env.spec.id == "gymnax/Pendulum-v1?g=5.0"
    assert from_gymnax(native).spec.id == "gymnax/Pendulum-v1"
    key, action = jax.random.key(0), jnp.ones(1)
    obs, same = (one.step(key, one.reset(key)[0], action)[1].obs for one in (env, named))
    np.testing.assert_array_equal(obs, same)
    check_env(from_gymnax(native))
    jax.eval_shape(make_train("sac", env, total_timesteps=20, learning_starts=5), key)


class Light(type(gymnax.make("Pendulum-v1")[0])):
    """Of the same name as the environment that it is like."""


@pytest.mark.filterwarnings("ignore")
def test_the_id_of_an_instance_makes_the_same_one_or_none() -> None:
    native, params = gymnax.make("Pendulum-v1")
    short = from_gymnax(native, params.replace(g=0.0, max_steps_in_episode=50)).spec.id
    assert short == env_of_run(short).spec.id == "gymnax/Pendulum-v1?g=0.0&max_steps_in_episode=50"
    assert env_of_run(short).spec.max_episode_steps == 50
    for instance, differs in ((from_gymnax(DeepSea(20)), "size"), (from_gymnax(Light()), "class")):
        assert f"{differs}=" in instance.spec.id
        own_class = differs == "class"  # which may truncate whenever it likes
        assert (instance.spec.earliest_truncation < instance.spec.max_episode_steps) is own_class
        with pytest.raises(InputError, match=r"has no parameter '.*; a run in an instance of your own is read with it"):
            env_of_run(instance.spec.id)
    rooms, rooms_params = gymnax.make("FourRooms-misc")
    traced = jax.jit(lambda: from_gymnax(rooms, rooms_params).spec.id == "gymnax/FourRooms-misc")
    assert traced()  # its maps are compared though a trace is on
    get = brax.envs.get_environment
    assert from_brax(get("fast")).spec.id == "brax/fast"
    limited = from_brax(get("inverted_pendulum", backend="positional"), 500).spec.id
    assert limited == "brax/inverted_pendulum?max_episode_steps=500"
    noisy = from_brax(get("reacher", backend="spring"))
    assert noisy.spec.id == "brax/reacher"
    hopper: Any = get("hopper", backend="spring", reset_noise_scale=0.1)
    assert from_brax(hopper).spec.id == "brax/hopper?reset_noise_scale=0.1"
    hopper.sys = hopper.sys.replace(gravity=hopper.sys.gravity / 2)
    assert from_brax(hopper).spec.id == "brax/hopper?reset_noise_scale=0.1&sys=…"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogWrapper(gymnax.make("CartPole-v1")[0]), "env is gymnax's wrapper LogWrapper; it m"),
        (lambda: gymnax.make("CartPole-v1"), "env is tuple, without reset_env; it must be like gymnax.make('Pendul"),
        (lambda: Pusher(), "env is Pusher, without reset_env; it must be like gymnax.make('Pendulum-v1')[0]"),
    ],
)
def test_what_is_no_environment_of_gymnax_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        from_gymnax(make())
    with pytest.raises(InputError, match="params is dict, without max_steps_in_episode; it must be like"):
        from_gymnax(gymnax.make("CartPole-v1")[0], {"gravity": 9.8})


@struct.dataclass
class Pushed:
    place: jax.Array
    obs: Any
    reward: Any
    done: Any


class Pusher:
    """With Brax's interface: pushes sum up, and beyond 2 is the end. Its numbers are Python's, as Brax's often are."""

    action_size = 1

    def __init__(self, robot: bool = False) -> None:
        self.robot = robot

    def reset(self, rng: jax.Array) -> Pushed:
        return self._state(jax.random.uniform(rng), 0.0)

    def step(self, state: Pushed, action: jax.Array) -> Pushed:
        return self._state(state.place + action[0], action[0])

    def _state(self, place: jax.Array, reward: Any) -> Pushed:
        obs = place[None]
        return Pushed(place, {"state": obs, "privileged_state": obs} if self.robot else obs, reward, 1.0 * (place > 2))


class Wrapper(Pusher):
    pass


@pytest.mark.parametrize("robot", [False, True])
def test_an_instance_of_brax_is_stepped_as_brax_does(robot: bool) -> None:
    env = from_brax(Pusher(robot), max_episode_steps=6)
    assert env.spec.id == "brax/Pusher?max_episode_steps=6"  # and not brax/pusher, another one of that name
    check_env(env)
    state, first = env.reset(jax.random.key(0))
    steps = jax.lax.scan(
        lambda state, action: env.step(jax.random.key(0), state, action), state, jnp.full((6, 1), 0.3)
    )[1]
    place = np.asarray(first.obs)[0] + 0.3 * np.arange(1, 7)
    np.testing.assert_allclose(steps.obs[:, 0], place, rtol=1e-6)
    np.testing.assert_allclose(steps.reward, 0.3)
    np.testing.assert_array_equal(steps.terminated, place > 2)
    np.testing.assert_array_equal(steps.truncated, (np.arange(6) == 5) & (place <= 2))
    with pytest.raises(InputError, match="env is Brax's wrapper Wrapper; it must be the environment itself"):
        from_brax(Wrapper())
    with pytest.raises(InputError, match=r"env is object, without reset; it must be like brax.envs.get_environment"):
        from_brax(object())
