"""Code shared by the adapters of suites with discrete actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxsoft.envs.wrappers import as_types_of, time_limit
from jaxsoft.random import make_key
from jaxsoft.types import Discrete, Env, EnvSpec, TimeStep, make_time_step


def adapt(
    env_id: str,
    reset: Callable[[jax.Array], tuple[Any, jax.Array]],
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, jax.Array, jax.Array, jax.Array]],
    *,
    num_actions: int,
    max_episode_steps: int,
    costly_reset: bool = False,
) -> Env:
    """An `Env` of a suite's own functions, whose states need not keep their types.

    Args:
        env_id: of the environment.
        reset: `(key) -> (state, obs)`.
        step: `(key, state, action) -> (state, obs, reward, terminated)`, `terminated` by no time limit.
        num_actions: actions 0, …, `num_actions` − 1.
        max_episode_steps: the time limit, which `Env` has of its own.
        costly_reset: see `EnvSpec`.
    """
    like, obs = jax.eval_shape(lambda: reset(make_key(0)))

    @jax.jit  # traced once, though training asks for it thrice
    def own_reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, obs = reset(key)
        return as_types_of(like, state), make_time_step(obs)

    @jax.jit
    def own_step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        state, obs, reward, terminated = step(key, state, action)
        return as_types_of(like, state), make_time_step(obs, reward, terminated)

    dtype = np.dtype(obs.dtype)
    space = Discrete(num_actions)
    more = {"costly_reset": costly_reset, "earliest_truncation": max_episode_steps}
    spec = EnvSpec(env_id, obs.shape, dtype, space, max_episode_steps, **more)
    return time_limit(Env(spec, own_reset, own_step), max_episode_steps)
