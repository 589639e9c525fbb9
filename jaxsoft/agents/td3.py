"""Twin Delayed DDPG: a deterministic policy, clipped twin Q-functions, smoothed targets, delayed policy updates.

One update on a batch of transitions, in this order; π̄ and Q̄_i are the slow copies:

    ã    = clip(π̄(s') + clip(ε, −c, c), −1, 1),    ε ~ N(0, σ²)          target policy smoothing
    y    = r + γ (1 − terminated) min_i Q̄_i(s', ã)
    J_Q  = ½ Σ_i E (Q_i(s, a) − y)²
    every `policy_delay` updates:
    J_π  = −E Q_1(s, π(s))
    θ̄   ← polyak θ̄ + (1 − polyak) θ,                                     of the policy and the Q-functions

While it learns it acts by clip(π(s) + N(0, σ_e²), −1, 1). Neither the policy nor that has a density on the actions (all
of the first, and what the second clips to the bounds, sits on single points): their log-probabilities are None.

Source: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", arXiv:1802.09477.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import actor_critic
from jaxsoft.agents.actor_critic import ActorCriticConfig, QValues, critic_loss, descend, of_vectors, one_step_targets
from jaxsoft.nn import normalisation
from jaxsoft.nn.networks import DeterministicPolicy, q_ensemble
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec, Metrics, ReplayBatches, Transition

METRICS = ("critic_loss", "q_mean")
"""What an update measures."""


@struct.dataclass
class Config(ActorCriticConfig):
    """Settings of TD3. Actions are in [−1, 1]; so are the units of their noise.

    Attributes:
        exploration_noise: σ_e, standard deviation of the noise on the actions taken in training.
        target_noise: σ, standard deviation of the noise on the targets' actions.
        target_noise_clip: c, bound of that noise.
        policy_delay: updates of the Q-functions for one of the policy and of the slow copies.
        num_critics: Q-functions, of which the least counts: 1, or 2 for twins.
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
    """What TD3 learns, as functions of parameters and observations.

    Attributes:
        policy: `(actor_params, obs [..., *obs_shape]) -> [..., action_dim]` in [−1, 1].
        q_values: `(critic_params, obs, action) -> [num_critics, ...]`.
        first_q: the same with the first critic alone, [1, ...].
    """

    policy: Callable[[Any, jax.Array], jax.Array]
    q_values: QValues
    first_q: QValues


def experience(config: ActorCriticConfig) -> ReplayBatches:
    """What the updates are fed with: single transitions from a replay."""
    return actor_critic.replay_batches(config)


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds TD3 for environments with `spec`, whose actions are a `Box` of shape [action_dim] in [−1, 1].

    `num_updates` is that of the whole run; nothing in TD3 depends on it.
    """
    (action_dim,) = spec.action_space.shape
    actor, critic = (
        DeterministicPolicy(action_dim, config.hidden_sizes),
        q_ensemble(config.num_critics, config.hidden_sizes),
    )
    networks = make_networks(config, spec)
    optimiser = optax.adam(config.learning_rate)

    def init(key: jax.Array) -> State:
        actor_key, critic_key = jax.random.split(key)
        obs, action = jnp.zeros((1, math.prod(spec.obs_shape))), jnp.zeros((1, action_dim))
        actor_params, critic_params = actor.init(actor_key, obs), critic.init(critic_key, obs, action)
        opt_states = {"actor": optimiser.init(actor_params), "critic": optimiser.init(critic_params)}
        copies = actor_params, actor_params, critic_params, critic_params
        return State(*copies, opt_states, jnp.zeros((), jnp.int32), actor_critic.init_statistics(config, spec))

    def act(key: jax.Array, state: State, obs: jax.Array, *, deterministic: bool = False) -> tuple[jax.Array, None]:
        return networks.policy(state.actor_params, actor_critic.features(state, obs)), None

    def explore(key: jax.Array, state: State, obs: jax.Array) -> tuple[jax.Array, None]:
        action, _ = act(key, state, obs)
        noise = config.exploration_noise * jax.random.normal(key, action.shape, action.dtype)
        return jnp.clip(action + noise, -1, 1), None

    def update(key: jax.Array, state: State, batch: Transition) -> tuple[State, Metrics]:
        return _update(key, state, actor_critic.with_features(state, batch), config, networks, optimiser)

    return Agent(init, act, update, explore, METRICS, actor_critic.observe)


def make_networks(config: Config, spec: EnvSpec) -> Networks:
    """The modules as functions of observations of any shape, which are flattened to vectors."""
    (action_dim,) = spec.action_space.shape
    obs_rank = len(spec.obs_shape)
    policy = of_vectors(DeterministicPolicy(action_dim, config.hidden_sizes), obs_rank)
    q_values, one_q = (of_vectors(q_ensemble(n, config.hidden_sizes), obs_rank) for n in (config.num_critics, 1))

    def first_q(critic_params: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        return one_q(jax.tree.map(lambda x: x[:1], critic_params), obs, action)

    return Networks(policy, q_values, first_q)


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


def actor_loss(actor_params: Any, critic_params: Any, networks: Networks, obs: jax.Array) -> jax.Array:
    """J_π on `obs` [batch_size, ...]."""
    return -jnp.mean(networks.first_q(critic_params, obs, networks.policy(actor_params, obs)))


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    networks: Networks,
    optimiser: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """A gradient step on J_Q and, when it is due, one on J_π and the move of the slow copies."""
    targets = critic_targets(key, state, networks, batch, config)
    grads, metrics = jax.grad(critic_loss, has_aux=True)(state.critic_params, networks.q_values, batch, targets)
    critic_params, critic_opt = descend(optimiser, grads, state.critic_params, state.opt_states["critic"])
    opt_states = state.opt_states | {"critic": critic_opt}
    state = replace(state, critic_params=critic_params, opt_states=opt_states, num_updates=state.num_updates + 1)

    def update_policy(state: State) -> State:
        grads = jax.grad(actor_loss)(state.actor_params, state.critic_params, networks, batch.obs)
        actor_params, actor_opt = descend(optimiser, grads, state.actor_params, state.opt_states["actor"])
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


KIND = AgentKind("td3", Config, (Box,), experience, make)
