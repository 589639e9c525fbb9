"""Episodes of a fixed policy, many at a time, on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.wrappers import vectorise, wrap_for_evaluation
from jaxsoft.types import Env, TimeStep


@struct.dataclass
class EpisodeTotals:
    """Whole episodes.

    Attributes:
        returns: [num_episodes], undiscounted.
        lengths: [num_episodes], int32, in steps.
    """

    returns: jax.Array
    lengths: jax.Array


def evaluate(
    key: jax.Array, act: Callable[[jax.Array, jax.Array], jax.Array], env: Env, num_episodes: int
) -> EpisodeTotals:
    """Plays `num_episodes` episodes side by side, each to its own end.

    Args:
        key: for the starts, the environment's noise and the policy's.
        act: `(key, obs [num_episodes, *obs_shape]) -> action [num_episodes, *action_shape]`; continuous
            actions in [−1, 1].
        env: an unwrapped environment, as `make_env` gives it.
        num_episodes: how many.
    """
    env = vectorise(wrap_for_evaluation(env), num_episodes)
    key, reset_key = jax.random.split(key)
    env_state, time_step = env.reset(reset_key)

    def running(carry: tuple[jax.Array, Any, TimeStep, jax.Array]) -> jax.Array:
        return ~jnp.all(carry[-1])

    def step(carry: tuple[jax.Array, Any, TimeStep, jax.Array]) -> tuple[jax.Array, Any, TimeStep, jax.Array]:
        key, env_state, time_step, done = carry
        key, act_key, step_key = jax.random.split(key, 3)
        env_state, new = env.step(step_key, env_state, act(act_key, time_step.obs))
        totals = jax.tree.map(
            lambda old, new: jnp.where(done, old, new),
            (time_step.episode_return, time_step.episode_length),
            (new.episode_return, new.episode_length),
        )
        new = replace(new, episode_return=totals[0], episode_length=totals[1])
        return key, env_state, new, done | new.done

    *_, last, _ = jax.lax.while_loop(running, step, (key, env_state, time_step, time_step.done))
    return EpisodeTotals(last.episode_return, last.episode_length)
