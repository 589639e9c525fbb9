"""gymnax environments as `Env`: time limits told from terminals, float rewards, array observations."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step

_ONLY_FOR_RENDERING = ("matplotlib.pyplot", "seaborn")


class _Deferred(ModuleType):
    """Stands for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _import_gymnax() -> ModuleType:
    """Imports gymnax without its plotting libraries, which would double the time a command takes to start.

    gymnax's modules hold stand-ins for them, which import the real ones when a renderer first needs them.
    """
    stand_ins = {name: _Deferred(name) for name in _ONLY_FOR_RENDERING if name not in sys.modules}
    if "gymnax" not in sys.modules:
        sys.modules.update(stand_ins)
        try:
            importlib.import_module("gymnax")
        finally:
            for name in stand_ins:
                del sys.modules[name]
    return sys.modules["gymnax"]


def names() -> list[str]:
    """The environments' names within this suite."""
    return list(_import_gymnax().registered_envs)


def has(name: str) -> bool:
    """Whether the suite has an environment of this name."""
    return name in names()


def spec(name: str) -> EnvSpec:
    """What one environment looks like; see `make`."""
    return make(name).spec


def make(name: str, **params: Any) -> Env:
    """Builds one gymnax environment.

    Args:
        name: gymnax's own name, for example `Pendulum-v1`.
        **params: values for the environment's parameters, for example `max_steps_in_episode=100`.

    Raises:
        InputError: the environment has no such parameter, needs data that cannot be had, or its
            observations are not arrays.
    """
    gymnax = _import_gymnax()
    try:
        env, env_params = gymnax.make(name)
    except OSError as error:  # MNISTBandit downloads its images when it is made
        raise InputError(f"gymnax/{name} needs data that cannot be had here ({error})") from None
    unknown = [param for param in params if not hasattr(env_params, param)]
    if unknown:
        known = ", ".join(sorted(vars(env_params)))
        raise InputError(f"gymnax/{name} has no parameter {unknown[0]!r}; it has: {known}")
    params = {param: _as_default(param, value, getattr(env_params, param)) for param, value in params.items()}
    env_params = env_params.replace(**params)
    num_obs = _num_discrete_observations(env.observation_space(env_params), name)

    def observe(obs: jax.Array) -> jax.Array:
        return jnp.asarray(obs) if num_obs is None else jax.nn.one_hot(obs, num_obs)

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        obs, state = env.reset_env(key, env_params)
        return _strongly_typed(state), make_time_step(observe(obs))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, env_params)
        terminated = jnp.asarray(terminated, bool)
        truncated = env.is_truncated(state, env_params) & ~terminated
        return _strongly_typed(state), make_time_step(observe(obs), reward, terminated, truncated)

    first = jax.eval_shape(reset, jax.random.key(0))[1]
    env_spec = EnvSpec(
        id=f"gymnax/{name}",
        obs_shape=first.obs.shape,
        obs_dtype=np.dtype(first.obs.dtype),
        action_space=_action_space(env.action_space(env_params)),
        max_episode_steps=int(env_params.max_steps_in_episode),
    )
    return Env(env_spec, reset, step)


def _as_default(param: str, value: Any, default: Any) -> Any:
    """A parameter's value in its default's type: gymnax mixes them in arithmetic that takes only one."""
    try:
        return type(default)(value) if isinstance(default, (int, float)) else value
    except (TypeError, ValueError):
        raise InputError(f"{param} is {value!r}; it must be a number, like its default, {default}") from None


def _num_discrete_observations(space: Any, name: str) -> int | None:
    """The number of observations of a discrete observation space (made one-hot); None for arrays."""
    if hasattr(space, "n"):
        return int(space.n)
    if not hasattr(space, "low"):
        raise InputError(f"gymnax/{name} observes a {type(space).__name__}; only array observations are supported")
    return None


def _action_space(space: Any) -> Box | Discrete:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(b, np.float32), space.shape).copy() for b in (space.low, space.high))
    return Box(low, high)


def _strongly_typed(state: Any) -> Any:
    """Gymnax states hold Python numbers, whose weak types would change from reset to step."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), state)
