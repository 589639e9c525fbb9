"""The first Soft Actor-Critic: a state-value network with a slow copy, twin Q-functions, a fixed temperature.

One gradient step, in this order:

    J_V  = ½ E (V_ψ(s) − [min_i Q_θi(s, a) − τ log π(a|s)])²,              a ~ π(·|s), drawn afresh
    J_Q  = ½ Σ_i E (Q_θi(s, a) − [r + γ (1 − terminated) V_ψ̄(s')])²
    J_π  = E [τ log π(a|s) − min_i Q_θi(s, a)],                            a ~ π(·|s), reparameterised
    ψ̄   ← polyak ψ̄ + (1 − polyak) ψ

The paper keeps τ at 1 and scales rewards instead: by 1/τ, which has the same best policy and values 1/τ times as large.

Source: Haarnoja et al. 2018a, "Soft Actor-Critic: Off-policy maximum entropy deep reinforcement learning with a
stochastic actor", arXiv:1801.01290, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import actor_critic
from jaxsoft.agents.actor_critic import ActorCriticConfig, critic_loss, descend, of_vectors, one_step_targets
from jaxsoft.agents.sac import NUM_CRITICS, Networks, actor_loss, make_networks
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, TanhNormal
from jaxsoft.nn.networks import TanhNormalPolicy, ValueFunction, q_ensemble
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec, Metrics, ReplayBatches, Transition

METRICS = ("value_loss", "value_mean", "critic_loss", "q_mean", "actor_loss", "entropy", "temperature")
"""What an update measures."""


@struct.dataclass
class Config(ActorCriticConfig):
    """Settings of the first SAC, with the paper's values.

    Attributes:
        temperature: τ, the price of entropy: 1 over the paper's reward scale.
    """

    temperature: float = 0.2


@struct.dataclass
class State:
    """Everything the agent learns.

    Attributes:
        actor_params: of `TanhNormalPolicy`.
        critic_params: of the Q ensemble; leaves [2, ...].
        value_params: of `ValueFunction`.
        target_value_params: their slow copy, which the Q-functions' targets use.
        opt_states: Adam's moments for actor, critic and value, by these names.
        obs_statistics: of the observations, where they are normalised; else None.
    """

    actor_params: Any
    critic_params: Any
    value_params: Any
    target_value_params: Any
    opt_states: dict[str, optax.OptState]
    obs_statistics: normalisation.Statistics | None = None


Value = Callable[[Any, jax.Array], jax.Array]
"""The value network as a function: `(value_params, obs [..., *obs_shape]) -> [...]`."""


def experience(config: Config) -> ReplayBatches:
    """What the updates are fed with: single transitions from a replay."""
    return actor_critic.replay_batches(config)


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the first SAC for environments with `spec`, whose actions are a `Box` of shape [action_dim] in [−1, 1].

    `num_updates` is that of the whole run; nothing here depends on it.
    """
    (action_dim,) = spec.action_space.shape
    actor, critic = TanhNormalPolicy(action_dim, config.hidden_sizes), q_ensemble(NUM_CRITICS, config.hidden_sizes)
    value = ValueFunction(config.hidden_sizes)
    networks, value_of = make_networks(actor, critic, len(spec.obs_shape)), of_vectors(value, len(spec.obs_shape))
    optimiser = optax.adam(config.learning_rate)

    def init(key: jax.Array) -> State:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        obs, action = jnp.zeros((1, math.prod(spec.obs_shape))), jnp.zeros((1, action_dim))
        actor_params, critic_params = actor.init(actor_key, obs), critic.init(critic_key, obs, action)
        value_params = value.init(value_key, obs)
        learned = {"actor": actor_params, "critic": critic_params, "value": value_params}
        opt_states = {name: optimiser.init(params) for name, params in learned.items()}
        statistics = actor_critic.init_statistics(config, spec)
        return State(actor_params, critic_params, value_params, value_params, opt_states, statistics)

    def policy_at(state: State, obs: jax.Array) -> TanhNormal | Categorical:
        return networks.policy(state.actor_params, actor_critic.features(state, obs))

    act, explore = actor_critic.acting(policy_at)

    def update(key: jax.Array, state: State, batch: Transition) -> tuple[State, Metrics]:
        batch = actor_critic.with_features(state, batch)
        return _update(key, state, batch, config, networks, value_of, optimiser)

    return Agent(init, act, update, explore, METRICS, actor_critic.observe)


def value_targets(
    key: jax.Array, state: State, networks: Networks, obs: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """What J_V draws V(s) to: min_i Q_i(s, a) − τ log π(a|s); obs [batch_size, ...] -> [batch_size]."""
    q, log_prob = networks.of_policy(key, state.actor_params, state.critic_params, obs)
    return q - temperature * log_prob


def value_loss(value_params: Any, value_of: Value, obs: jax.Array, targets: jax.Array) -> tuple[jax.Array, Metrics]:
    """J_V for `targets` [batch_size], and metrics."""
    value = value_of(value_params, obs)
    loss = 0.5 * jnp.mean((value - targets) ** 2)
    return loss, {"value_loss": loss, "value_mean": jnp.mean(value)}


def critic_targets(state: State, value_of: Value, batch: Transition, discount: float | jax.Array) -> jax.Array:
    """What J_Q draws both Q(s, a) to: r + γ (1 − terminated) V_ψ̄(s'); [batch_size]."""
    return one_step_targets(batch, value_of(state.target_value_params, batch.next_obs), discount)


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    networks: Networks,
    value_of: Value,
    optimiser: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """One gradient step each on J_V, J_Q and J_π, and the move of the slow value network."""
    value_key, actor_key = jax.random.split(key)
    opt = state.opt_states

    targets = value_targets(value_key, state, networks, batch.obs, config.temperature)
    grads, value_metrics = jax.grad(value_loss, has_aux=True)(state.value_params, value_of, batch.obs, targets)
    value_params, value_opt = descend(optimiser, grads, state.value_params, opt["value"])

    targets = critic_targets(state, value_of, batch, config.discount)
    grads, critic_metrics = jax.grad(critic_loss, has_aux=True)(state.critic_params, networks.q_values, batch, targets)
    critic_params, critic_opt = descend(optimiser, grads, state.critic_params, opt["critic"])

    grads, (_, actor_metrics) = jax.grad(actor_loss, has_aux=True)(
        state.actor_params, actor_key, critic_params, config.temperature, networks, batch.obs
    )
    actor_params, actor_opt = descend(optimiser, grads, state.actor_params, opt["actor"])

    target_params = polyak_average(state.target_value_params, value_params, config.polyak)
    opt_states = {"actor": actor_opt, "critic": critic_opt, "value": value_opt}
    metrics = value_metrics | critic_metrics | actor_metrics | {"temperature": jnp.asarray(config.temperature)}
    return State(actor_params, critic_params, value_params, target_params, opt_states, state.obs_statistics), metrics


KIND = AgentKind("sac_v1", Config, (Box,), experience, make)
