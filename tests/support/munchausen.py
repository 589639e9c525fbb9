"""Munchausen deep Q-learning, as a user would add it: one file, and nothing of jaxsoft knows of it.

One update on a batch of transitions; Q̄ is the slow copy, π = softmax(Q̄/τ):

    y    = r + α max(τ log π(a|s), l) + γ (1 − terminated) τ log Σ_a' exp(Q̄(s', a')/τ)
    J_Q  = ½ E (Q(s, a) − y)²
    θ̄   ← polyak θ̄ + (1 − polyak) θ

Source: Vieillard, Pietquin & Geist 2020, "Munchausen reinforcement learning", arXiv:2007.14430.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.nn.distributions import Categorical
from jaxsoft.nn.networks import DiscreteQFunction, Layers, action_value
from jaxsoft.ops import boltzmann_log_probs, soft_value
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, AgentConfig, AgentKind, Discrete, EnvSpec, Metrics, ReplayBatches, Transition

LOWEST_BONUS = -1.0
"""The bound l of τ log π(a|s)."""


@struct.dataclass
class Config(AgentConfig):
    """Settings: the step size, γ, the temperature τ, α, and those of the slow copy, the replay and the network."""

    learning_rate: float = 1e-3
    temperature: float = 0.03
    munchausen_weight: float = 0.9
    polyak: float = 0.99
    batch_size: int = struct.field(pytree_node=False, default=32)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(64,))


@struct.dataclass
class State:
    """The Q-function's parameters, their slow copy, and Adam's moments."""

    params: Any
    target_params: Any
    opt_state: optax.OptState


def experience(config: Config) -> ReplayBatches:
    """Single transitions from a replay."""
    return ReplayBatches(capacity=1000, batch_size=config.batch_size, learning_starts=32, updates_per_step=1)


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for `Discrete` actions."""
    network = DiscreteQFunction(spec.action_space.num_actions, Layers(config.hidden_sizes), (), len(spec.obs_shape))  # type: ignore[union-attr]

    def init(key: jax.Array) -> State:
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return State(params, params, optax.adam(config.learning_rate).init(params))

    def log_probs(state: State, obs: jax.Array) -> jax.Array:
        return boltzmann_log_probs(network.apply(state.params, obs), jnp.zeros(()), config.temperature)  # type: ignore[arg-type]

    def act(
        key: jax.Array, state: State, obs: jax.Array, *, deterministic: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        policy = Categorical(log_probs(state, obs))
        return policy.mode() if deterministic else policy.sample(key)

    update = partial(_update, config=config, q_values=network.apply)
    return Agent(init, act, update, explore=act, metrics=("q_loss",), log_probs=log_probs)


def q_loss(params: Any, q_values: Any, batch: Transition, targets: jax.Array) -> jax.Array:
    """J_Q."""
    return 0.5 * jnp.mean((action_value(q_values(params, batch.obs), batch.action) - targets) ** 2)


def munchausen_targets(target_params: Any, q_values: Any, batch: Transition, config: Config) -> jax.Array:
    """Targets y [batch_size]."""
    tau, uniform = config.temperature, jnp.zeros(())
    log_pi = boltzmann_log_probs(q_values(target_params, batch.obs), uniform, tau)
    bonus = jnp.maximum(tau * action_value(log_pi, batch.action), LOWEST_BONUS)
    next_value = soft_value(q_values(target_params, batch.next_obs), uniform, tau)
    ahead = config.discount * jnp.where(batch.terminated, 0, next_value)
    return batch.reward + config.munchausen_weight * bonus + ahead


def _update(key: jax.Array, state: State, batch: Transition, config: Config, q_values: Any) -> tuple[State, Metrics]:
    targets = munchausen_targets(state.target_params, q_values, batch, config)
    loss, grads = jax.value_and_grad(q_loss)(state.params, q_values, batch, targets)
    updates, opt_state = optax.adam(config.learning_rate).update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    return State(params, polyak_average(state.target_params, params, config.polyak), opt_state), {"q_loss": loss}


KIND = AgentKind("munchausen", Config, (Discrete,), experience, make, {"total_timesteps": 2_000})
