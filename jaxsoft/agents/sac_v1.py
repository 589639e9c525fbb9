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

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents.actor_critic import (
    ActorCriticConfig,
    check_networks,
    critic_loss,
    flatten_obs,
    init_params,
    init_statistics,
    make_agent,
    one_step_targets,
    replay_batches,
)
from jaxsoft.agents.gradients import descend
from jaxsoft.agents.sac import NUM_CRITICS, Networks, actor_loss, make_networks
from jaxsoft.nn import normalisation
from jaxsoft.nn.networks import QFunction, TanhNormalPolicy, ValueFunction, ensemble, make_layers
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec, Metrics, Transition

METRICS = ("value_loss", "value_mean", "critic_loss", "q_mean", "actor_loss", "entropy", "temperature")
"""Names of an update's metrics."""


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


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the first SAC for a `Box` of shape [action_dim] in [−1, 1]."""
    (action_dim,) = spec.action_space.shape
    check_networks(config, spec)
    layers = make_layers(config)
    actor, critic = TanhNormalPolicy(action_dim, layers), ensemble(QFunction, NUM_CRITICS)(layers)
    value = ValueFunction(layers)
    networks = make_networks(actor, critic, len(spec.obs_shape))

    def init(key: jax.Array) -> State:
        actor_params, critic_params, value_params = init_params(key, spec, actor, critic, value)
        params = {"actor": actor_params, "critic": critic_params, "value": value_params}
        opt_states = {name: optax.adam(config.learning_rate).init(x) for name, x in params.items()}
        statistics = init_statistics(config, spec)
        return State(actor_params, critic_params, value_params, value_params, opt_states, statistics)

    value_function = flatten_obs(value, len(spec.obs_shape))
    update = partial(_update, config=config, networks=networks, value_function=value_function)
    return make_agent(spec, init, lambda state, obs: networks.policy(state.actor_params, obs), update, METRICS)


def value_targets(
    key: jax.Array, state: State, networks: Networks, obs: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Targets of V(s) in J_V: min_i Q_i(s, a) − τ log π(a|s); obs [batch_size, ...] -> [batch_size]."""
    q, log_prob = networks.policy_and_q(key, state.actor_params, state.critic_params, obs)
    return q - temperature * log_prob


def value_loss(
    value_params: Any, value_function: Value, obs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_V for `targets` [batch_size], and metrics."""
    value = value_function(value_params, obs)
    loss = 0.5 * jnp.mean((value - targets) ** 2)
    return loss, {"value_loss": loss, "value_mean": jnp.mean(value)}


def critic_targets(state: State, value_function: Value, batch: Transition, discount: float | jax.Array) -> jax.Array:
    """Targets of both Q(s, a) in J_Q: r + γ (1 − terminated) V_ψ̄(s'); [batch_size]."""
    return one_step_targets(batch, value_function(state.target_value_params, batch.next_obs), discount)


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, networks: Networks, value_function: Value
) -> tuple[State, Metrics]:
    """One gradient step each on J_V, J_Q and J_π, and the move of the slow value network."""
    value_key, actor_key = jax.random.split(key)
    adam, opt, temperature = optax.adam(config.learning_rate), state.opt_states, config.temperature

    targets = value_targets(value_key, state, networks, batch.obs, temperature)
    value_params, value_opt, value_metrics = descend(
        adam, value_loss, state.value_params, opt["value"], value_function, batch.obs, targets
    )
    targets = critic_targets(state, value_function, batch, config.discount)
    critic_params, critic_opt, critic_metrics = descend(
        adam, critic_loss, state.critic_params, opt["critic"], networks.q_values, batch, targets
    )
    actor_params, actor_opt, (_, actor_metrics) = descend(
        adam, actor_loss, state.actor_params, opt["actor"], actor_key, critic_params, temperature, networks, batch.obs
    )
    target_params = polyak_average(state.target_value_params, value_params, config.polyak)
    opt_states = {"actor": actor_opt, "critic": critic_opt, "value": value_opt}
    metrics = value_metrics | critic_metrics | actor_metrics | {"temperature": jnp.asarray(temperature)}
    return State(actor_params, critic_params, value_params, target_params, opt_states, state.obs_statistics), metrics


KIND = AgentKind("sac_v1", Config, (Box,), replay_batches, make)
