"""Twin Delayed DDPG: a deterministic policy, clipped twin Q-functions, smoothed targets, delayed policy updates.

One update on a batch of transitions, in this order; π̄ and Q̄_i are the slow copies:

    ã    = clip(π̄(s') + clip(ε, −c, c), −1, 1),    ε ~ N(0, σ²)          target policy smoothing
    y    = r + γ (1 − terminated) min_i Q̄_i(s', ã)
    J_Q  = ½ Σ_i E (Q_i(s, a) − y)²
    every `policy_delay` updates:
    J_π  = −E Q_1(s, π(s))
    θ̄   ← polyak θ̄ + (1 − polyak) θ,                                     of the policy and the Q-functions

While it learns it acts by clip(π(s) + N(0, σ_e²), −1, 1). Neither that nor the policy has a density, since both give
single actions a positive probability: their log-probabilities are None.

Source: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", arXiv:1802.09477.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import actor_critic
from jaxsoft.agents.actor_critic import (
    ActorCriticConfig,
    QValues,
    check_networks,
    critic_loss,
    flatten_obs,
    init_params,
    one_step_targets,
    replay_batches,
)
from jaxsoft.agents.gradients import descend
from jaxsoft.nn import normalisation
from jaxsoft.nn.networks import DeterministicPolicy, QFunction, ensemble, make_layers
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec, Metrics, Transition

METRICS = ("critic_loss", "q_mean")
"""Names of an update's metrics."""


@struct.dataclass
class Config(ActorCriticConfig):
    """Settings of TD3. Actions are in [−1, 1]; so are the units of their noise.

    Attributes:
        exploration_noise: σ_e, standard deviation of the noise on the actions taken in training.
        target_noise: σ, standard deviation of the noise on the targets' actions.
        target_noise_clip: c, bound of that noise.
        policy_delay: updates of the Q-functions for one of the policy and of the slow copies.
        num_critics: Q-functions, whose minimum is used: 1, or 2 for twins.
    """

    exploration_noise: float = 0.1
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    policy_delay: int = struct.field(pytree_node=False, default=2)
    num_critics: int = struct.field(pytree_node=False, default=2)


@struct.dataclass
class State:
    """Everything TD3 learns.

    Attributes:
        actor_params: of `DeterministicPolicy`.
        target_actor_params: their slow copy.
        critic_params: of the Q ensemble; leaves [num_critics, ...].
        target_critic_params: their slow copy.
        opt_states: Adam's moments for actor and critic, by these names.
        num_updates: [], int32, updates made.
        obs_statistics: of the observations, where they are normalised; else None.
    """

    actor_params: Any
    target_actor_params: Any
    critic_params: Any
    target_critic_params: Any
    opt_states: dict[str, optax.OptState]
    num_updates: jax.Array
    obs_statistics: normalisation.Statistics | None = None


class Networks(NamedTuple):
    """TD3's networks, as functions of parameters and observations.

    Attributes:
        policy: `(actor_params, obs [..., *obs_shape]) -> [..., action_dim]` in [−1, 1].
        q_values: `(critic_params, obs, action) -> [num_critics, ...]`.
        first_q: the same with the first critic alone, [1, ...].
    """

    policy: Callable[[Any, jax.Array], jax.Array]
    q_values: QValues
    first_q: QValues


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds TD3 for a `Box` of shape [action_dim] in [−1, 1]."""
    (action_dim,) = spec.action_space.shape
    check_networks(config, spec)
    actor = DeterministicPolicy(action_dim, make_layers(config))
    critic, one_critic = (ensemble(QFunction, num)(make_layers(config)) for num in (config.num_critics, 1))
    policy, q_values, one_q = (flatten_obs(module, len(spec.obs_shape)) for module in (actor, critic, one_critic))

    def first_q(critic_params: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        return one_q(jax.tree.map(lambda x: x[:1], critic_params), obs, action)

    networks = Networks(policy, q_values, first_q)

    def init(key: jax.Array) -> State:
        actor_params, critic_params = init_params(key, spec, actor, critic)
        params = {"actor": actor_params, "critic": critic_params}
        opt_states = {name: optax.adam(config.learning_rate).init(x) for name, x in params.items()}
        copies = actor_params, actor_params, critic_params, critic_params
        return State(*copies, opt_states, jnp.zeros((), jnp.int32), actor_critic.init_statistics(config, spec))

    def act(key: jax.Array, state: State, obs: jax.Array, *, deterministic: bool = False) -> tuple[jax.Array, None]:
        return policy(state.actor_params, normalisation.features(state, obs)), None

    def explore(key: jax.Array, state: State, obs: jax.Array) -> tuple[jax.Array, None]:
        action, _ = act(key, state, obs)
        noise = config.exploration_noise * jax.random.normal(key, action.shape, action.dtype)
        return jnp.clip(action + noise, -1, 1), None

    update = partial(_update, config=config, networks=networks)
    return Agent(init, act, update, explore, METRICS, normalisation.observe)


def target_actions(key: jax.Array, state: State, networks: Networks, next_obs: jax.Array, config: Config) -> jax.Array:
    """ã, the slow policy's smoothed actions; next_obs [batch_size, ...] -> [batch_size, action_dim]."""
    action = networks.policy(state.target_actor_params, next_obs)
    if isinstance(config.target_noise, float) and config.target_noise == 0:
        return action
    noise = config.target_noise * jax.random.normal(key, action.shape, action.dtype)
    return jnp.clip(action + jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip), -1, 1)


def critic_targets(key: jax.Array, state: State, networks: Networks, batch: Transition, config: Config) -> jax.Array:
    """Targets y [batch_size] of a batch of transitions; see the module's second equation."""
    next_action = target_actions(key, state, networks, batch.next_obs, config)
    next_value = networks.q_values(state.target_critic_params, batch.next_obs, next_action).min(axis=0)
    return one_step_targets(batch, next_value, config.discount)


def actor_loss(actor_params: Any, critic_params: Any, networks: Networks, obs: jax.Array) -> tuple[jax.Array, Metrics]:
    """J_π on `obs` [batch_size, ...]; no metrics, since not every update computes it."""
    return -jnp.mean(networks.first_q(critic_params, obs, networks.policy(actor_params, obs))), {}


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, networks: Networks
) -> tuple[State, Metrics]:
    """A gradient step on J_Q and, when it is due, one on J_π and the move of the slow copies."""
    adam, batch = optax.adam(config.learning_rate), actor_critic.normalise_batch(state, batch)
    targets = critic_targets(key, state, networks, batch, config)
    critic_params, critic_opt, metrics = descend(
        adam, critic_loss, state.critic_params, state.opt_states["critic"], networks.q_values, batch, targets
    )
    opt_states = state.opt_states | {"critic": critic_opt}
    state = replace(state, critic_params=critic_params, opt_states=opt_states, num_updates=state.num_updates + 1)

    def update_policy(state: State) -> State:
        actor_params, actor_opt, _ = descend(
            adam, actor_loss, state.actor_params, state.opt_states["actor"], state.critic_params, networks, batch.obs
        )
        fast, slow = (actor_params, state.critic_params), (state.target_actor_params, state.target_critic_params)
        target_params = polyak_average(slow, fast, config.polyak)
        return replace(
            state,
            actor_params=actor_params,
            target_actor_params=target_params[0],
            target_critic_params=target_params[1],
            opt_states=state.opt_states | {"actor": actor_opt},
        )

    if config.policy_delay == 1:
        return update_policy(state), metrics
    # Seeds under a vmap compute both branches and select: a delay saves time only where one seed trains alone.
    return jax.lax.cond(state.num_updates % config.policy_delay == 0, update_policy, lambda s: s, state), metrics


KIND = AgentKind("td3", Config, (Box,), replay_batches, make)
