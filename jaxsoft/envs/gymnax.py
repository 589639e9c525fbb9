"""gymnax environments as `Env`: time limits told from terminals, float rewards, array observations."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.parameters import changed, check_params, format_id
from jaxsoft.envs.stand_ins import import_gymnax
from jaxsoft.envs.suites import Film, Suite, write_gif
from jaxsoft.errors import InputError
from jaxsoft.random import make_key
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step


def make(name: str, **params: Any) -> Env:
    """Builds one gymnax environment.

    Args:
        name: gymnax's own name, for example `Pendulum-v1`.
        **params: values for the environment's parameters, for example `max_steps_in_episode=100`.

    Raises:
        InputError: the environment has no such parameter, or one of another kind, needs data that cannot be had, or its
            observations are not arrays.
    """
    env, env_params = _raw(name, params)
    return _adapt(env, env_params, f"gymnax/{name}")


def from_gymnax(env: Any, params: Any = None) -> Env:
    """Makes an `Env` of an environment of gymnax, or of one's own with gymnax's interface.

    In its id, what differs from the environment that gymnax has by its name follows as parameters.

    Args:
        env: gymnax's own, as in `env, params = gymnax.make("Pendulum-v1")`, wrapped in nothing.
        params: its parameters; by default `env.default_params`. Their `max_steps_in_episode` is the time limit.

    Raises:
        InputError: `env` is no such environment, or its observations or actions are not of a kind that agents take.
    """
    env_params = _check_native(env, params)
    given = changed(getattr(env_params, "__dict__", {}), getattr(env.default_params, "__dict__", {}))
    if env.name in import_gymnax().registered_envs:
        given |= _own_attributes(env)
    return _adapt(env, env_params, format_id(f"gymnax/{env.name}", given))


def _own_attributes(env: Any) -> dict[str, Any]:
    """Parameters in which an instance differs from gymnax's own environment of its name."""
    if not type(env).__module__.startswith("gymnax."):
        return {"class": type(env).__qualname__}
    with jax.ensure_compile_time_eval(), contextlib.suppress(OSError):  # MNISTBandit's images may be gone
        named, _ = import_gymnax().make(env.name)
        return changed(vars(env), vars(named)) | ({} if type(env) is type(named) else {"class": type(env).__qualname__})
    return {}


def _adapt(env: Any, env_params: Any, env_id: str) -> Env:
    space = env.observation_space(env_params)
    if not hasattr(space, "n") and not hasattr(space, "low"):
        raise InputError(f"{env_id} observes a {type(space).__name__}; only array observations are supported")

    def observe(obs: jax.Array) -> jax.Array:
        return jax.nn.one_hot(obs, int(space.n)) if hasattr(space, "n") else jnp.asarray(obs)

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        obs, state = env.reset_env(key, env_params)
        return _strong_types(state), make_time_step(observe(obs))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, env_params)
        terminated = jnp.asarray(terminated, bool)
        truncated = env.is_truncated(state, env_params) & ~terminated
        return _strong_types(state), make_time_step(observe(obs), reward, terminated, truncated)

    limit = int(env_params.max_steps_in_episode)
    first = jax.eval_shape(lambda: reset(make_key(0)))[1]  # the key within, where nothing is compiled for it
    env_spec = EnvSpec(
        id=env_id,
        obs_shape=first.obs.shape,
        obs_dtype=np.dtype(first.obs.dtype),
        action_space=_action_space(env_id, env.action_space(env_params)),
        max_episode_steps=limit,
        earliest_truncation=limit if type(env).__module__.startswith("gymnax.") else 1,
    )
    return Env(env_spec, reset, step)


_NEEDED = ("reset_env", "step_env", "is_truncated", "observation_space", "action_space", "default_params", "name")
"""What an environment of gymnax has."""


def _check_native(env: Any, params: Any) -> Any:
    """The parameters of an environment that has gymnax's interface."""
    found = type(env).__name__
    if hasattr(env, "_env"):
        raise InputError(f"env is gymnax's wrapper {found}; it must be the environment itself: jaxsoft wraps it")
    missing = [name for name in _NEEDED if not hasattr(env, name)]
    if missing:
        raise InputError(f"env is {found}, without {missing[0]}; it must be like gymnax.make('Pendulum-v1')[0]")
    params = env.default_params if params is None else params
    if not hasattr(params, "max_steps_in_episode"):
        given = type(params).__name__
        raise InputError(f"params is {given}, without max_steps_in_episode; it must be like {found}.default_params")
    return params


def _raw(name: str, params: dict[str, Any]) -> tuple[Any, Any]:
    """Gymnax's own environment and its parameters, checked."""
    gymnax = import_gymnax()
    try:
        env, env_params = gymnax.make(name)
    except OSError as error:  # MNISTBandit downloads its images when it is made
        raise InputError(f"gymnax/{name} needs data that cannot be had here ({error})") from None
    return env, env_params.replace(**check_params(f"gymnax/{name}", params, vars(env_params)))


_CLASSIC_CONTROL = ("Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
_OTHERS_WITH_RENDERER = (
    *("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar"),
    *("Catch-bsuite", "FourRooms-misc", "MetaMaze-misc", "PointRobot-misc", "Pong-misc"),
)


def check_film(name: str) -> None:
    """Checks that an environment can be filmed.

    Raises:
        InputError: gymnax has no renderer for this environment, or one that needs what is not installed.
    """
    if name not in _CLASSIC_CONTROL + _OTHERS_WITH_RENDERER:
        there_are = ", ".join(sorted(_CLASSIC_CONTROL + _OTHERS_WITH_RENDERER))
        raise InputError(f"gymnax/{name} cannot be filmed; of gymnax's, these can: {there_are}")
    if name in _CLASSIC_CONTROL and not all(map(importlib.util.find_spec, ("gymnasium", "pygame"))):
        raise InputError(f"gymnax/{name} is drawn by gymnasium: pip install 'jaxsoft[video]'")


def film(path: Path, states: Sequence[Any], returns: Sequence[float], name: str, **params: Any) -> None:
    """Writes an episode as a GIF, drawn by gymnax's renderer."""
    env, env_params = _raw(name, params)
    if name in _CLASSIC_CONTROL:
        write_gif(path, _classic_control_frames(name, states, env_params))
    else:
        importlib.import_module("gymnax.visualize").Visualizer(env, env_params, states, returns).animate(str(path))


def _classic_control_frames(name: str, states: Sequence[Any], env_params: Any) -> list[np.ndarray]:
    """Gymnasium's pictures of gymnax's states, from one window that is never shown.

    `gymnax.visualize.Visualizer` opens one for every frame, which takes a hundred times as long.
    """
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(driver, "dummy")
    vis_gym = importlib.import_module("gymnax.visualize.vis_gym")
    env = importlib.import_module("gymnasium").make(name, render_mode="rgb_array")
    env.reset()
    drawn = env.unwrapped
    vis_gym.set_gym_params(drawn, name, env_params)
    frames = []
    for state in states:
        drawn.state = vis_gym.get_gym_state(state, name)
        if name == "Pendulum-v1":
            drawn.last_u = np.asarray(state.last_u, float)  # the arrow that shows the torque
        frames.append(drawn.render())
    env.close()
    return frames


def _action_space(env_id: str, space: Any) -> Box | Discrete:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if not hasattr(space, "low"):
        raise InputError(f"{env_id} takes {type(space).__name__} actions; only Box and Discrete are supported")
    low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape).copy() for b in (space.low, space.high))
    return Box(low, high)


def _strong_types(state: Any) -> Any:
    """Gymnax states hold Python numbers, whose weak types would change from reset to step."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), state)


SUITE = Suite(
    "gymnax",
    names=lambda: list(import_gymnax().registered_envs),
    make=make,
    film=Film(".gif", film, check_film),
    fused_keys=True,
)
