"""Running statistics of observations and of returns, which observations and rewards are normalised by.

An agent's state contains its statistics: they are saved with it, and a loaded policy normalises as the agent did.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.ops.averages import Sum, add
from jaxsoft.types import Env, TimeStep

CLIP = 10.0
"""Bound of normalised observations, in standard deviations, and of scaled rewards."""

SMALLEST_DEVIATION = 1e-6
"""The least that observations near 0 are divided by; for others it is `ROUNDING` times the mean."""

ROUNDING = 16 * float(jnp.finfo(jnp.float32).eps)
"""Relative deviation below which differences are rounding."""

MAX_COUNT = 2**31 - 1
"""Largest count; from there on old samples lose weight."""


@struct.dataclass
class Statistics:
    """Mean and variance of everything seen so far.

    Attributes:
        count: [], int32, number of samples, up to `MAX_COUNT`; 0 at first, with mean 0 and variance 1.
        mean: [*shape].
        variance: [*shape].
        mean_rest: [*shape], the rounding error of the mean, see `jaxsoft.ops.averages`.
        variance_rest: [*shape], likewise.
    """

    count: jax.Array
    mean: jax.Array
    variance: jax.Array
    mean_rest: jax.Array
    variance_rest: jax.Array


def init(shape: tuple[int, ...]) -> Statistics:
    """Statistics before the first sample: `normalise` changes nothing."""
    zeros, ones = jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32)
    return Statistics(jnp.zeros((), jnp.int32), zeros, ones, zeros, zeros)


def observe(state: Any, obs: jax.Array) -> Any:
    """The state of an agent whose `obs_statistics`, unless they are None, have seen `obs` [..., *obs_shape], too."""
    statistics = state.obs_statistics
    return state if statistics is None else replace(state, obs_statistics=update(statistics, obs))


def features(state: Any, obs: jax.Array) -> jax.Array:
    """Inputs of an agent's networks: observations [..., *obs_shape] normalised by its `obs_statistics`."""
    return normalise(state.obs_statistics, obs)


def update(statistics: Statistics, x: jax.Array) -> Statistics:
    """Adds a batch to the statistics, as if all samples had come at once.

        n = n_a + n_b,    d = mean_b − mean_a
        mean = mean_a + d n_b/n,    var = var_a + (var_b − var_a + d² n_a/n) n_b/n

    Args:
        statistics: of `shape`.
        x: [..., *shape].

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
    """
    axes = tuple(range(x.ndim - statistics.mean.ndim))
    x = x.astype(statistics.mean.dtype)
    count_b = min(x.size // max(statistics.mean.size, 1), MAX_COUNT)
    first = x[(0,) * len(axes)]  # subtracted, so that mean and variance of what never varies are exact
    mean_b, variance_b = first + jnp.mean(x - first, axes), jnp.var(x - first, axes)
    count = jnp.minimum(statistics.count, MAX_COUNT - count_b) + count_b
    share = count_b / count.astype(jnp.float32)
    shift = mean_b - statistics.mean
    variance = jnp.where(statistics.count > 0, statistics.variance, 0)
    mean = add(Sum(statistics.mean, statistics.mean_rest), share * shift)
    spread = share * (variance_b - variance + shift**2 * (1 - share))
    variance = add(Sum(variance, statistics.variance_rest), spread)
    return Statistics(count, mean.value, variance.value, mean.rest, variance.rest)


def normalise(statistics: Statistics | None, x: jax.Array) -> jax.Array:
    """To mean 0 and variance 1, within ±`CLIP`; without statistics, or before the first sample, `x` as it is.

        (x − mean) / max(√var, `ROUNDING` |mean|, `SMALLEST_DEVIATION`)

    An entry that has never varied is 0 until it does; after a single sample the variance counts as 1.
    Shapes: [..., *shape] -> [..., *shape], float32.
    """
    if statistics is None:
        return x
    smallest = jnp.maximum(ROUNDING * jnp.abs(statistics.mean), SMALLEST_DEVIATION)
    deviation = jnp.where(statistics.count > 1, jnp.maximum(jnp.sqrt(statistics.variance), smallest), 1)
    normalised = jnp.clip((x - statistics.mean) / deviation, -CLIP, CLIP)
    return jnp.where(statistics.count > 0, normalised, x)


def scale_rewards(envs: Env, discount: float | jax.Array) -> Env:
    """Divides the rewards of vectorised environments by the running size of their discounted returns.

        u ← γ (1 − done) u + r,    r ↦ r / √E[u²], within ±`CLIP`

    Returns of about unit size suit one temperature and one step size everywhere. Rewards are not centred: that would
    change the task. The root of the mean square is used, and not the deviation, which is 0 as long as all rewards are
    alike. A first reward after n steps without any would be √n: the bound, which is that of Stable-Baselines3's
    VecNormalize, holds until the mean has seen more of them. A replay stores rewards as they were scaled when they
    were earned: older ones are not scaled anew. `episode_return` stays in the environment's own units, since it is
    summed before.

    Args:
        envs: vectorised environments, leaves [num_envs, ...].
        discount: γ.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = envs.reset(key)
        return (state, jnp.zeros_like(time_step.reward), init(())), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, returns, squares = state
        inner, time_step = envs.step(key, inner, action)
        returns = discount * returns + time_step.reward
        seen = update(squares, returns**2)
        squares = replace(seen, variance=squares.variance, variance_rest=squares.variance_rest)  # which nobody reads
        size = jnp.sqrt(squares.mean)
        returns = jnp.where(time_step.done, 0, returns)
        reward = jnp.clip(time_step.reward / jnp.where(size > 0, size, 1), -CLIP, CLIP)
        return (inner, returns, squares), replace(time_step, reward=reward)

    return Env(envs.spec, reset, step)


def scale_recorded_rewards(reward: jax.Array, done: jax.Array, discount: float | jax.Array) -> jax.Array:
    """Divides the rewards of a data set by the size of their discounted returns, as `scale_rewards` ends to.

    One number for all of them, known before the first is used, changes units and not the task: they need no bound.

    Args:
        reward: [num_steps, num_envs], time first.
        done: likewise; whether an episode ended with the step.
        discount: γ.
    """

    def step(returns: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, done = row
        returns = discount * returns + reward
        return jnp.where(done, 0, returns), returns**2

    reward = reward.astype(jnp.float32)
    _, squares = jax.lax.scan(step, jnp.zeros_like(reward[0]), (reward, done))
    size = jnp.sqrt(jnp.mean(squares))
    return reward / jnp.where(size > 0, size, 1)
