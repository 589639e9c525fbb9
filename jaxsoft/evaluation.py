"""Episodes of a fixed policy, many at a time: on the device, or in gymnasium's environments on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def evaluate_on_host(
    key: jax.Array, act: Callable[[jax.Array, jax.Array], jax.Array], envs: Sequence[Any], *, seed: int
) -> EpisodeTotals:
    """Plays an episode in each of gymnasium's environments side by side, each to its own end.

    Args:
        key: for the policy's draws.
        act: `(key, obs [num_envs, *obs_shape]) -> action [num_envs, *action_shape]`; continuous actions in the
            environments' own units.
        envs: from `make_host_envs`.
        seed: for the starts and the environments' noise.
    """
    seeds = np.random.default_rng(seed).integers(2**31, size=len(envs))
    obs = np.stack([env.reset(seed=int(own))[0] for env, own in zip(envs, seeds, strict=True)]).astype(np.float32)
    returns, lengths = np.zeros(len(envs)), np.zeros(len(envs), np.int32)
    running = np.arange(len(envs))
    while running.size:
        key, act_key = jax.random.split(key)
        actions = np.asarray(act(act_key, jnp.asarray(obs)))
        ended = np.zeros(len(envs), bool)
        for i in map(int, running):
            obs[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            returns[i] += float(reward)
            lengths[i] += 1
            ended[i] = terminated or truncated
        running = running[~ended[running]]
    return EpisodeTotals(jnp.asarray(returns, jnp.float32), jnp.asarray(lengths))
