"""What the agents that pass over a rollout several times share: its samples, shuffled minibatches, step sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def as_samples(rollout: Any) -> Any:
    """The leaves of a rollout without its order: [T, num_envs, ...] -> [T · num_envs, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout)


def minibatch_of(samples: Any, indices: jax.Array) -> Any:
    """The leaves at `indices` [N], all of them valid: [num_samples, ...] -> [N, ...]."""
    return jax.tree.map(lambda x: x.at[indices].get(mode="promise_in_bounds"), samples)


def minibatch_indices(key: jax.Array, num_samples: int, num_epochs: int, num_minibatches: int) -> jax.Array:
    """A fresh shuffle per epoch, cut into minibatches: [num_epochs · num_minibatches, num_samples/num_minibatches].

    Sorts random numbers whose lowest bits are the samples' own: an order of magnitude faster here than sorting samples
    by random keys. Where the random bits of two samples tie they keep their order, which matters only to neighbours
    between which one minibatch ends and the next begins.
    """
    mask = jnp.uint32((1 << (num_samples - 1).bit_length()) - 1)
    random_bits = jax.random.bits(key, (num_epochs, num_samples), jnp.uint32)
    shuffled = jnp.sort((random_bits & ~mask) | jnp.arange(num_samples, dtype=jnp.uint32)) & mask
    return shuffled.astype(jnp.int32).reshape(num_epochs * num_minibatches, num_samples // num_minibatches)


def step_sizes(learning_rate: float | jax.Array, num_steps: int, *, decay: bool) -> Any:
    """What optax takes for a step size: constant, or falling linearly to 0 over `num_steps` gradient steps."""
    if not decay:
        return learning_rate
    return lambda count: learning_rate * jnp.maximum(1 - count / num_steps, 0)
