"""Wrappers, each an `Env -> Env`, and the one order in which training and evaluation put them on.

    scale_actions → time_limit → record_episodes → auto_reset → vectorise

The first three keep an episode an episode: evaluation stops there. Auto-reset and vectorise are for training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.types import Box, Env, TimeStep


def wrap_for_evaluation(env: Env) -> Env:
    """An environment whose continuous actions are in [−1, 1] and whose episodes carry their return."""
    return record_episodes(scale_actions(env))


def wrap_for_training(env: Env, num_envs: int) -> Env:
    """`num_envs` environments side by side that start a fresh episode wherever one has ended."""
    return vectorise(auto_reset(wrap_for_evaluation(env)), num_envs)


def scale_actions(env: Env) -> Env:
    """Takes continuous actions in [−1, 1] and maps them onto the environment's bounds.

        action ↦ low + (action + 1) (high − low) / 2

    Discrete actions pass through. The map is outside every policy's density (shared convention of SAC).
    """
    space = env.spec.action_space
    if not isinstance(space, Box):
        return env

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return env.step(key, state, to_bounds(action, space))

    unit = Box(np.full_like(space.low, -1), np.full_like(space.high, 1))
    return Env(replace(env.spec, action_space=unit), env.reset, step)


def to_bounds(action: jax.Array, space: Box) -> jax.Array:
    """Maps actions in [−1, 1] onto the bounds of `space`; [..., *action_shape] -> [..., *action_shape]."""
    return jnp.asarray(space.low) + 0.5 * (action + 1) * jnp.asarray(space.high - space.low)


def time_limit(env: Env, max_episode_steps: int) -> Env:
    """Truncates episodes after `max_episode_steps`; an episode that terminates on that step is no truncation."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.reset(key)
        return (state, jnp.zeros((), jnp.int32)), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, time = state
        inner, time_step = env.step(key, inner, action)
        time = time + 1
        out_of_time = (time >= max_episode_steps) & ~time_step.terminated
        return (inner, time), replace(time_step, truncated=time_step.truncated | out_of_time)

    limit = min(max_episode_steps, env.spec.max_episode_steps)
    return Env(replace(env.spec, max_episode_steps=limit), reset, step)


def record_episodes(env: Env) -> Env:
    """Fills `episode_return` and `episode_length`; on an episode's last step they are its totals."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.reset(key)
        return (state, time_step.episode_return, time_step.episode_length), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, episode_return, episode_length = state
        inner, time_step = env.step(key, inner, action)
        episode_return = episode_return + time_step.reward
        episode_length = episode_length + 1
        time_step = replace(time_step, episode_return=episode_return, episode_length=episode_length)
        return (inner, episode_return, episode_length), time_step

    return Env(env.spec, reset, step)


def auto_reset(env: Env) -> Env:
    """Starts a new episode, from a fresh random state, in the step that ends one.

    The ended episode's flags, reward, totals and true successor (`next_obs`) stay in that step's `TimeStep`;
    only `obs` is the new episode's first. The reset is computed at every step and selected: right for
    environments whose reset is cheap.
    """

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        step_key, reset_key = jax.random.split(key)
        state, time_step = env.step(step_key, state, action)
        fresh_state, fresh = env.reset(reset_key)
        state, obs = jax.tree.map(
            lambda new, old: jnp.where(time_step.done, new, old),
            (fresh_state, fresh.obs),
            (state, time_step.obs),
        )
        return state, replace(time_step, obs=obs)

    return Env(env.spec, env.reset, step)


def vectorise(env: Env, num_envs: int) -> Env:
    """`num_envs` independent copies: every array gains a leading axis [num_envs], every copy its own key."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return jax.vmap(env.step)(jax.random.split(key, num_envs), state, action)

    return Env(env.spec, reset, step)
