"""Code shared by agents that pass over a rollout several times: its samples, shuffled minibatches, step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxsoft.types import Metrics, Rollouts

Carry = TypeVar("Carry")


def rollouts(config: Any) -> Rollouts:
    """Fresh rollouts: `AgentKind.experience` of agents with these four settings."""
    return Rollouts(config.rollout_length, config.noise_repeat, config.num_epochs, config.num_minibatches)


def step_sizes(config: Any, num_updates: int) -> Any:
    """A step size as optax takes it: constant, or falling linearly to 0 over the gradient steps of all updates."""
    if not config.decay_learning_rate:
        return config.learning_rate
    num_steps = num_updates * config.num_epochs * config.num_minibatches
    return lambda count: config.learning_rate * jnp.maximum(1 - count / num_steps, 0)


def flatten_rollout(rollout: Any) -> Any:
    """The samples of a rollout, in a row: leaves [T, num_envs, ...] -> [T · num_envs, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout)


def take_minibatch(samples: Any, indices: jax.Array) -> Any:
    """The samples at `indices` [N], all of them valid: leaves [num_samples, ...] -> [N, ...]."""
    return jax.tree.map(lambda x: x.at[indices].get(mode="promise_in_bounds"), samples)


def minibatch_indices(key: jax.Array, num_samples: int, num_epochs: int, num_minibatches: int) -> jax.Array:
    """A fresh shuffle per epoch, cut into minibatches: [num_epochs · num_minibatches, num_samples/num_minibatches].

    Sorts random numbers whose lowest bits hold the sample's index: ten times faster than sorting samples by random
    keys. Samples whose random bits tie keep their order; this matters only where a minibatch ends between them.
    """
    mask = jnp.uint32((1 << (num_samples - 1).bit_length()) - 1)
    random_bits = jax.random.bits(key, (num_epochs, num_samples), jnp.uint32)
    shuffled = jnp.sort((random_bits & ~mask) | jnp.arange(num_samples, dtype=jnp.uint32)) & mask
    return shuffled.astype(jnp.int32).reshape(num_epochs * num_minibatches, num_samples // num_minibatches)


def scan_mean(
    step: Callable[[Carry, Any], tuple[Carry, Metrics]], carry: Carry, inputs: Any, names: tuple[str, ...]
) -> tuple[Carry, Metrics]:
    """`jax.lax.scan` of steps whose metrics, of these names, come out averaged.

    In the loop they are one array: each by itself would be a write of its own in every step.
    """

    def packed_step(carry: Carry, x: Any) -> tuple[Carry, jax.Array]:
        carry, metrics = step(carry, x)
        return carry, jnp.stack([metrics[name] for name in names])

    carry, metrics = jax.lax.scan(packed_step, carry, inputs)
    return carry, dict(zip(names, jnp.mean(metrics, axis=0), strict=True))
