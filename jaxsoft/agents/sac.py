"""Soft Actor-Critic with twin Q-functions and an adapted or fixed temperature.

One update on a batch of transitions, in this order:

    y    = r + γ (1 − terminated) (min_i Q_θ̄i(s', a') − τ log π(a'|s')),   a' ~ π(·|s')
    J_Q  = ½ Σ_i E (Q_θi(s, a) − y)²
    J_π  = E [τ log π(a|s) − min_i Q_θi(s, a)],                            a ~ π(·|s), reparameterised
    J_τ  = −τ E [log π(a|s) + H̄]
    θ̄   ← polyak θ̄ + (1 − polyak) θ

Source: Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxsoft import normalisation
from jaxsoft.distributions import TanhNormal
from jaxsoft.networks import TanhNormalPolicy, q_ensemble
from jaxsoft.ops import temperature_loss
from jaxsoft.types import Agent, AgentConfig, Box, EnvSpec, Metrics, ReplayBatches, Transition

ACTION_SPACE = Box
"""The kind of actions this agent chooses."""

NUM_CRITICS = 2


@struct.dataclass
class Config(AgentConfig):
    """Settings of SAC. The floating-point ones are leaves, so a sweep can vmap over them.

    Attributes:
        learning_rate: Adam's step size for the policy, the Q-functions and the temperature.
        discount: γ, the weight of the next step's value.
        polyak: share of the old target parameters kept at every update.
        temperature: τ, the price of entropy; where it is learned, its first value.
        learn_temperature: adapt τ so that the policy's entropy meets the target.
        target_entropy: H̄ in nats; by default minus the number of action dimensions.
        batch_size: transitions in one gradient step.
        replay_capacity: transitions kept, the oldest replaced first.
        learning_starts: timesteps of uniformly random actions before the first update.
        random_action_repeat: steps that each of those random actions is held (longer ones reach further).
        updates_per_step: gradient steps after each step of the (one or more) environments.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers, for the policy and the Q-functions alike.
    """

    learning_rate: float = 3e-4
    discount: float = 0.99
    polyak: float = 0.995
    temperature: float = 1.0
    learn_temperature: bool = struct.field(pytree_node=False, default=True)
    target_entropy: float | None = None
    batch_size: int = struct.field(pytree_node=False, default=256)
    replay_capacity: int = struct.field(pytree_node=False, default=1_000_000)
    learning_starts: int = struct.field(pytree_node=False, default=1_000)
    random_action_repeat: int = struct.field(pytree_node=False, default=1)
    updates_per_step: int = struct.field(pytree_node=False, default=1)
    normalise_obs: bool = struct.field(pytree_node=False, default=False)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(256, 256))


@struct.dataclass
class State:
    """Everything SAC learns.

    Attributes:
        actor_params: of `TanhNormalPolicy`.
        critic_params: of the Q ensemble; leaves [2, ...].
        target_critic_params: the slow copy of `critic_params` that targets use.
        log_temperature: [], log τ.
        opt_states: Adam's moments for actor, critic and temperature, by these names.
        obs_statistics: of the observations, where they are normalised; else None.
    """

    actor_params: Any
    critic_params: Any
    target_critic_params: Any
    log_temperature: jax.Array
    opt_states: dict[str, optax.OptState]
    obs_statistics: normalisation.Statistics | None = None


class Networks(NamedTuple):
    """The two functions of parameters and observations that SAC learns.

    Attributes:
        policy: `(actor_params, obs [..., *obs_shape]) -> TanhNormal` over [..., action_dim].
        q_values: `(critic_params, obs, action) -> [2, ...]`.
    """

    policy: Callable[[Any, jax.Array], TanhNormal]
    q_values: Callable[[Any, jax.Array, jax.Array], jax.Array]


def experience(config: Config) -> ReplayBatches:
    """What SAC's updates are fed with: single transitions from a replay."""
    return ReplayBatches(
        capacity=config.replay_capacity,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        updates_per_step=config.updates_per_step,
        random_action_repeat=config.random_action_repeat,
    )


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds SAC for environments with `spec`, whose actions are a `Box` of shape [action_dim] in [−1, 1].

    `num_updates` is that of the whole run; nothing in SAC depends on it.
    """
    (action_dim,) = spec.action_space.shape
    actor = TanhNormalPolicy(action_dim, config.hidden_sizes)
    critic = q_ensemble(NUM_CRITICS, config.hidden_sizes)
    networks = make_networks(actor, critic, len(spec.obs_shape))
    optimiser = optax.adam(config.learning_rate)
    target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy

    def init(key: jax.Array) -> State:
        actor_key, critic_key = jax.random.split(key)
        obs, action = jnp.zeros((1, math.prod(spec.obs_shape))), jnp.zeros((1, action_dim))
        actor_params, critic_params = actor.init(actor_key, obs), critic.init(critic_key, obs, action)
        log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
        learned = {"actor": actor_params, "critic": critic_params, "temperature": log_temperature}
        opt_states = {name: optimiser.init(params) for name, params in learned.items()}
        statistics = normalisation.init(spec.obs_shape) if config.normalise_obs else None
        return State(actor_params, critic_params, critic_params, log_temperature, opt_states, statistics)

    def act(
        key: jax.Array, state: State, obs: jax.Array, *, deterministic: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        policy = networks.policy(state.actor_params, normalisation.normalise(state.obs_statistics, obs))
        return policy.mode() if deterministic else policy.sample(key)

    def update(key: jax.Array, state: State, batch: Transition) -> tuple[State, Metrics]:
        obs, next_obs = (normalisation.normalise(state.obs_statistics, x) for x in (batch.obs, batch.next_obs))
        batch = replace(batch, obs=obs, next_obs=next_obs)
        return _update(key, state, batch, config, networks, optimiser, target_entropy)

    def observe(state: State, obs: jax.Array) -> State:
        return replace(state, obs_statistics=normalisation.observe(state.obs_statistics, obs))

    return Agent(init, act, update, explore=act, observe=observe)


def make_networks(actor: nn.Module, critic: nn.Module, obs_rank: int) -> Networks:
    """The modules as functions of observations of any shape, which are flattened to vectors."""

    def features(obs: jax.Array) -> jax.Array:
        return obs.reshape(*obs.shape[: obs.ndim - obs_rank], -1).astype(jnp.float32)

    def policy(actor_params: Any, obs: jax.Array) -> TanhNormal:
        return actor.apply(actor_params, features(obs))  # type: ignore[return-value]

    def q_values(critic_params: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        return critic.apply(critic_params, features(obs), action)  # type: ignore[return-value]

    return Networks(policy, q_values)


def critic_targets(
    key: jax.Array, state: State, networks: Networks, batch: Transition, discount: float | jax.Array
) -> jax.Array:
    """One-step soft targets y [batch_size] of a batch of transitions; see the module's first equation."""
    next_action, next_log_prob = networks.policy(state.actor_params, batch.next_obs).sample(key)
    next_q = networks.q_values(state.target_critic_params, batch.next_obs, next_action).min(axis=0)
    next_value = next_q - jnp.exp(state.log_temperature) * next_log_prob
    return batch.reward + discount * jnp.where(batch.terminated, 0.0, next_value)


def critic_loss(
    critic_params: Any, networks: Networks, batch: Transition, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_Q for `targets` [batch_size], and metrics."""
    q = networks.q_values(critic_params, batch.obs, batch.action)
    loss = 0.5 * jnp.sum(jnp.mean((q - targets) ** 2, axis=-1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q)}


def actor_loss(
    actor_params: Any, key: jax.Array, state: State, networks: Networks, obs: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """J_π on `obs` [batch_size, ...]; with it the drawn actions' log-probabilities [batch_size], and metrics."""
    action, log_prob = networks.policy(actor_params, obs).sample(key)
    q = networks.q_values(state.critic_params, obs, action).min(axis=0)
    loss = jnp.mean(jnp.exp(state.log_temperature) * log_prob - q)
    return loss, (log_prob, {"actor_loss": loss, "entropy": -jnp.mean(log_prob)})


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    networks: Networks,
    optimiser: optax.GradientTransformation,
    target_entropy: float | jax.Array,
) -> tuple[State, Metrics]:
    """One gradient step each on J_Q, J_π and J_τ, and the move of the targets."""
    target_key, actor_key = jax.random.split(key)

    def descend(name: str, params: Any, grads: Any) -> tuple[Any, optax.OptState]:
        updates, opt_state = optimiser.update(grads, state.opt_states[name], params)
        return optax.apply_updates(params, updates), opt_state

    targets = critic_targets(target_key, state, networks, batch, config.discount)
    critic_grads, critic_metrics = jax.grad(critic_loss, has_aux=True)(state.critic_params, networks, batch, targets)
    critic_params, critic_opt = descend("critic", state.critic_params, critic_grads)
    target_params = optax.incremental_update(critic_params, state.target_critic_params, 1 - config.polyak)
    state = replace(state, critic_params=critic_params, target_critic_params=target_params)

    actor_grads, (log_prob, actor_metrics) = jax.grad(actor_loss, has_aux=True)(
        state.actor_params, actor_key, state, networks, batch.obs
    )
    actor_params, actor_opt = descend("actor", state.actor_params, actor_grads)

    log_temperature, temperature_opt = state.log_temperature, state.opt_states["temperature"]
    if config.learn_temperature:
        temperature_grad = jax.grad(mean_temperature_loss)(log_temperature, log_prob, target_entropy)
        log_temperature, temperature_opt = descend("temperature", log_temperature, temperature_grad)

    metrics = critic_metrics | actor_metrics | {"temperature": jnp.exp(log_temperature)}
    opt_states = {"actor": actor_opt, "critic": critic_opt, "temperature": temperature_opt}
    return replace(state, actor_params=actor_params, log_temperature=log_temperature, opt_states=opt_states), metrics


def mean_temperature_loss(
    log_temperature: jax.Array, log_prob: jax.Array, target_entropy: float | jax.Array
) -> jax.Array:
    """J_τ over a batch: `log_prob` [batch_size] -> []."""
    return jnp.mean(jax.vmap(temperature_loss, (None, 0, None))(log_temperature, log_prob, target_entropy))
