"""Episodes of a fixed policy, many at a time: on the device, or in gymnasium's environments on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.check import check_env
from jaxsoft.envs.wrappers import vectorise, wrap_for_evaluation
from jaxsoft.errors import InputError
from jaxsoft.random import make_key, require_threefry
from jaxsoft.trees import batch_like
from jaxsoft.types import Env, TimeStep

DOMAIN = 0x6576616C
"""Folded into the keys of evaluation: without it seed 0 would be judged with the numbers it was trained with."""


def evaluation_key(seed: int) -> jax.Array:
    """The key of an evaluation, of Threefry; no training has the same."""
    return jax.random.fold_in(make_key(seed), DOMAIN)


def member_keys(seed: int, cells: np.ndarray, seeds: np.ndarray) -> jax.Array:
    """A key for each member of an evaluation, [num_members]: the same whichever others are evaluated.

    `seed` is the evaluation's; `cells` and `seeds`, [num_members], are the numbers of each one's cell and its own seed.
    """
    key, fold = evaluation_key(seed), jax.random.fold_in
    return jax.vmap(lambda cell, seed: fold(fold(key, cell), seed))(jnp.asarray(cells), jnp.asarray(seeds))


@struct.dataclass
class EpisodeTotals:
    """Undiscounted returns of whole episodes [num_episodes], and their lengths in steps, int32."""

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

    Raises:
        InputError: the environment is not what it must be, see `check_env`, or the key is not of Threefry.
    """
    check_env(env)
    require_threefry(key)
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

    env_state, time_step = batch_like(key, (env_state, time_step))
    *_, last, _ = jax.lax.while_loop(running, step, (key, env_state, time_step, time_step.done))
    return EpisodeTotals(last.episode_return, last.episode_length)


def evaluate_on_host(
    key: jax.Array, act: Callable[[jax.Array, np.ndarray], jax.Array], envs: Sequence[Any], obs_dtype: np.dtype
) -> EpisodeTotals:
    """Plays an episode in each of gymnasium's environments side by side, each to its own end.

    Args:
        key: for the starts, the environments' noise and the policy's.
        act: `(key, obs [num_envs, *obs_shape]) -> action [num_envs, *action_shape]`; continuous actions in the
            environments' own units.
        envs: from `make_host_envs`.
        obs_dtype: of the observations that the policy takes.

    Raises:
        InputError: an observation does not convert to that.
    """
    key, reset_key = jax.random.split(key)
    seeds = np.asarray(jax.random.randint(reset_key, (len(envs),), 0, 2**31 - 1, jnp.int32))
    starts = np.stack([env.reset(seed=int(own))[0] for env, own in zip(envs, seeds, strict=True)])
    obs = convert_obs(starts, obs_dtype)
    returns, lengths = np.zeros(len(envs)), np.zeros(len(envs), np.int32)
    running = np.arange(len(envs))
    while running.size:
        key, act_key = jax.random.split(key)
        actions = np.asarray(act(act_key, obs))
        ended = np.zeros(len(envs), bool)
        for i in map(int, running):
            new, reward, terminated, truncated, _ = envs[i].step(actions[i])
            obs[i] = convert_obs(new, obs_dtype)
            returns[i] += float(reward)
            lengths[i] += 1
            ended[i] = terminated or truncated
        running = running[~ended[running]]
    return EpisodeTotals(jnp.asarray(returns, jnp.float32), jnp.asarray(lengths))


def convert_obs(obs: Any, dtype: np.dtype) -> np.ndarray:
    """Observations from the host as a policy takes them; float64 is rounded to float32, and nothing else is lost.

    Raises:
        InputError: they are no numbers, or some are not of this dtype: 0.5 or NaN where those are integers.
    """
    try:
        given = np.asarray(obs)
    except ValueError as error:
        raise InputError(f"the observation is no array of numbers ({str(error)[:100]})") from None
    if given.dtype.kind not in "biu" and not jnp.issubdtype(given.dtype, jnp.floating):
        raise InputError(f"the observation is an array of {given.dtype}; it must be one of numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = given.astype(dtype)
        is_float = jnp.issubdtype(dtype, jnp.floating)
        lost = np.isfinite(given) & ~np.isfinite(converted) if is_float else converted != given
    if lost.any():
        raise InputError(f"the observation has {given[lost].flat[0]} in it, which is no {np.dtype(dtype).name}")
    return converted
