"""An agent that learns nothing and remembers, in one number, all batches that it was handed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.types import Agent, AgentConfig, AgentKind, Discrete, Metrics, ReplayBatches, Transition


@struct.dataclass
class Config(AgentConfig):
    """Its experience."""

    replay_capacity: int = 412
    batch_size: int = 8
    learning_starts: int = 60
    steps: int = 0
    uses_terminal_obs: bool = False


def checksum(batch: Transition) -> jax.Array:
    """A number that tells every bit of a batch, but for successors of terminated transitions; [], int32."""
    next_obs = jnp.where(batch.terminated[..., None], 0, batch.next_obs)
    total = jnp.zeros((), jnp.int32)
    for x in jax.tree.leaves(replace(batch, next_obs=next_obs)):
        words = jax.lax.bitcast_convert_type(x, jnp.int32) if x.dtype == jnp.float32 else x.astype(jnp.int32)
        total = 31 * total + jnp.sum(words.ravel() * (1 + 2 * jnp.arange(x.size, dtype=jnp.int32)))
    return total


def explore(key: jax.Array, state: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.random.randint(key, obs.shape[:-1], 0, 2, jnp.int32), jnp.full(obs.shape[:-1], -jnp.log(2.0))


def update(key: jax.Array, state: jax.Array, batch: Transition) -> tuple[jax.Array, Metrics]:
    return 31 * state + checksum(batch), {"mean": jnp.mean(batch.reward)}


def make(config: Any, spec: Any, num_updates: int) -> Agent:
    act = lambda key, state, obs, *, deterministic=False: explore(key, state, obs)  # noqa: E731
    return Agent(lambda key: jnp.zeros((), jnp.int32), act, update, explore, ("mean",))


def experience(config: Any) -> ReplayBatches:
    sizes = config.replay_capacity, config.batch_size, config.learning_starts, 1
    return ReplayBatches(*sizes, sequence_length=config.steps, uses_terminal_obs=config.uses_terminal_obs)


RECORDER = AgentKind("replay_recorder", Config, (Discrete,), experience, make)
"""The kind; its state is [], int32."""
