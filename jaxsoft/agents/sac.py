"""Soft Actor-Critic with twin Q-functions and an adapted or fixed temperature.

One update on a batch of transitions, in this order:

    y    = r + γ (1 − terminated) (min_i Q_θ̄i(s', a') − τ log π(a'|s')),   a' ~ π(·|s')
    J_Q  = ½ Σ_i E (Q_θi(s, a) − y)²
    J_π  = E [τ log π(a|s) − min_i Q_θi(s, a)],                            a ~ π(·|s), reparameterised
    J_τ  = −τ E [log π(a|s) + H̄]
    θ̄   ← polyak θ̄ + (1 − polyak) θ

On sequences of L > 1 steps the critics' targets are λ-returns with the coefficients of Retrace, Q̄ = min_i Q_θ̄i:

    y_t  = r_t + γ_t [ Q̄(s_{t+1}, a') − τ log π(a'|s_{t+1}) + λ c_{t+1} (y_{t+1} − Q̄(s_{t+1}, a_{t+1})) ]
    c_t  = min(1, π(a_t|s_t) / μ(a_t|s_t)),    0 where an episode ended before step t

and the losses are averaged over all steps: with λ = 0 that is the update on the same L · B transitions.

Source: Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905; the coefficients:
Munos et al. 2016, arXiv:1606.02647.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.core import Tracer

from jaxsoft.agents.actor_critic import (
    ActorCriticConfig,
    QValues,
    check_networks,
    critic_loss,
    flatten_obs,
    init_params,
    init_statistics,
    lambda_returns,
    make_agent,
    one_step_targets,
    replay_batches,
    stored_log_prob,
)
from jaxsoft.agents.gradients import descend
from jaxsoft.errors import InputError
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, TanhNormal
from jaxsoft.nn.networks import QFunction, TanhNormalPolicy, ensemble, make_layers
from jaxsoft.ops import temperature_loss, trace_coefficients
from jaxsoft.ops.averages import least, polyak_average
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec, Metrics, ReplayBatches, Transition

NUM_CRITICS = 2

METRICS = ("critic_loss", "q_mean", "actor_loss", "entropy", "temperature")
"""Names of an update's metrics."""


@struct.dataclass
class Config(ActorCriticConfig):
    """Settings of SAC.

    Attributes:
        learning_rate: Adam's step size for the policy, the Q-functions and the temperature.
        temperature: τ, the price of entropy; where it is learned, its first value.
        learn_temperature: adapt τ so that the policy's entropy meets the target.
        target_entropy: H̄ in nats; by default minus the number of action dimensions.
        batch_size: transitions in one gradient step; with a sequence_length, sequences.
        sequence_length: L, steps of a replayed sequence; returns look no further. 1: single transitions.
        lambda_: λ of the critics' targets on sequences, from 0 (one step) to 1 (as far as Retrace allows).
            Without sequences it must be 0; if it is traced, it then has no effect. Random actions that are held
            (random_action_repeat) count as drawn at each step.
    """

    temperature: float = 1.0
    learn_temperature: bool = struct.field(pytree_node=False, default=True)
    target_entropy: float | None = None
    sequence_length: int = struct.field(pytree_node=False, default=1)
    lambda_: float = 0.0


@struct.dataclass
class State:
    """Everything SAC learns.

    Attributes:
        actor_params: of the policy.
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
    """SAC's networks, as functions of parameters and observations. Continuous and discrete actions differ only here.

    Attributes:
        policy: `(actor_params, obs [..., *obs_shape]) -> TanhNormal` over [..., action_dim], or `Categorical`.
        q_values: `(critic_params, obs, action [..., *action_shape]) -> [2, ...]`.
        policy_and_q: `(key, actor_params, critic_params, obs) -> (q, log_prob)`, each [...]: min_i Q_i(s, a) and
            log π(a|s) of an action a ~ π(·|s), or the expectations of both.
    """

    policy: Callable[[Any, jax.Array], TanhNormal | Categorical]
    q_values: QValues
    policy_and_q: Callable[[jax.Array, Any, Any, jax.Array], tuple[jax.Array, jax.Array]]


def experience(config: Config) -> ReplayBatches:
    """Transitions from a replay, or sequences of them."""
    return replay_batches(config, config.sequence_length if config.sequence_length > 1 else 0)


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds SAC for a `Box` of shape [action_dim] in [−1, 1].

    Raises:
        InputError: a λ without sequences to use it on.
    """
    (action_dim,) = spec.action_space.shape
    check_networks(config, spec)
    layers = make_layers(config)
    actor, critic = TanhNormalPolicy(action_dim, layers), ensemble(QFunction, NUM_CRITICS)(layers)
    target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
    networks = make_networks(actor, critic, len(spec.obs_shape))
    return assemble(config, spec, networks, partial(init_params, spec=spec, actor=actor, critic=critic), target_entropy)


def make_networks(actor: nn.Module, critic: nn.Module, obs_rank: int) -> Networks:
    """The modules as functions of observations of any shape, which are flattened to vectors."""
    policy, q_values = flatten_obs(actor, obs_rank), flatten_obs(critic, obs_rank)

    def policy_and_q(
        key: jax.Array, actor_params: Any, critic_params: Any, obs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        action, log_prob = policy(actor_params, obs).sample(key)
        return least(q_values(critic_params, obs, action)), log_prob

    return Networks(policy, q_values, policy_and_q)


def assemble(
    config: Config,
    spec: EnvSpec,
    networks: Networks,
    init_both: Callable[[jax.Array], tuple[Any, ...]],
    target_entropy: float | jax.Array,
) -> Agent:
    """SAC from its networks and `init_both`, `(key) -> (actor_params, critic_params)`.

    Raises:
        InputError: a λ without sequences to use it on.
    """
    if config.sequence_length == 1 and not isinstance(config.lambda_, Tracer) and config.lambda_ != 0:
        raise InputError(
            f"lambda_ is {config.lambda_}; without sequences it must be 0 (sequence_length is 1: set it to 2 or more)"
        )

    def init(key: jax.Array) -> State:
        actor_params, critic_params = init_both(key)
        log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
        params = {"actor": actor_params, "critic": critic_params, "temperature": log_temperature}
        opt_states = {name: optax.adam(config.learning_rate).init(x) for name, x in params.items()}
        statistics = init_statistics(config, spec)
        return State(actor_params, critic_params, critic_params, log_temperature, opt_states, statistics)

    update = partial(_update, config=config, networks=networks, target_entropy=target_entropy)
    return make_agent(spec, init, lambda state, obs: networks.policy(state.actor_params, obs), update, METRICS)


def soft_value(key: jax.Array, state: State, networks: Networks, obs: jax.Array) -> jax.Array:
    """Q̄(s, a) − τ log π(a|s), a ~ π(·|s), or its expectation, by the slow critics; obs [..., *obs_shape] -> [...]."""
    q, log_prob = networks.policy_and_q(key, state.actor_params, state.target_critic_params, obs)
    return q - jnp.exp(state.log_temperature) * log_prob


def critic_targets(
    key: jax.Array, state: State, networks: Networks, batch: Transition, discount: float | jax.Array
) -> jax.Array:
    """One-step soft targets y [batch_size] of a batch of transitions; see the module's first equation."""
    return one_step_targets(batch, soft_value(key, state, networks, batch.next_obs), discount)


def multi_step_targets(
    key: jax.Array, state: State, networks: Networks, batch: Transition, config: Config
) -> jax.Array:
    """Soft λ-returns [L, B] of sequences [L, B, ...] with Retrace's coefficients; see the module's second equations.

    `batch.log_prob` is log μ of the policies that acted, a density of actions in [−1, 1] like that of π.
    """
    next_value = soft_value(key, state, networks, batch.next_obs)
    q_a = networks.q_values(state.target_critic_params, batch.obs, batch.action).min(axis=0)
    log_pi_a = stored_log_prob(networks.policy(state.actor_params, batch.obs), batch.action, batch.pre_tanh)
    coefficient = trace_coefficients("retrace", log_pi_a, batch.log_prob)
    next_q_a, next_coefficient = (jnp.roll(x, -1, axis=0) for x in (q_a, coefficient))
    return lambda_returns(
        batch, next_value, next_q_a, next_coefficient, discount=config.discount, lambda_=config.lambda_
    )


def actor_loss(
    actor_params: Any,
    key: jax.Array,
    critic_params: Any,
    temperature: float | jax.Array,
    networks: Networks,
    obs: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """J_π on `obs` [batch_size, ...]; with it log π(a|s) [batch_size] of the actions drawn, and metrics."""
    q, log_prob = networks.policy_and_q(key, actor_params, critic_params, obs)
    loss = jnp.mean(temperature * log_prob - q)
    return loss, (log_prob, {"actor_loss": loss, "entropy": -jnp.mean(log_prob)})


def mean_temperature_loss(
    log_temperature: jax.Array, log_prob: jax.Array, target_entropy: float | jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_τ over a batch: `log_prob` [batch_size] -> []; no metrics."""
    return jnp.mean(jax.vmap(temperature_loss, (None, 0, None))(log_temperature, log_prob, target_entropy)), {}


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    networks: Networks,
    target_entropy: float | jax.Array,
) -> tuple[State, Metrics]:
    """One gradient step each on J_Q, J_π and J_τ, and the move of the targets."""
    target_key, actor_key = jax.random.split(key)
    adam, opt = optax.adam(config.learning_rate), state.opt_states
    if config.sequence_length == 1:
        targets = critic_targets(target_key, state, networks, batch, config.discount)
    else:
        targets = multi_step_targets(target_key, state, networks, batch, config)
        batch, targets = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (batch, targets))

    critic_params, critic_opt, critic_metrics = descend(
        adam, critic_loss, state.critic_params, opt["critic"], networks.q_values, batch, targets
    )
    target_params = polyak_average(state.target_critic_params, critic_params, config.polyak)

    temperature = jnp.exp(state.log_temperature)
    actor_params, actor_opt, (log_prob, actor_metrics) = descend(
        adam, actor_loss, state.actor_params, opt["actor"], actor_key, critic_params, temperature, networks, batch.obs
    )

    log_temperature, temperature_opt = state.log_temperature, opt["temperature"]
    if config.learn_temperature:
        log_temperature, temperature_opt, _ = descend(
            adam, mean_temperature_loss, log_temperature, temperature_opt, log_prob, target_entropy
        )

    metrics = critic_metrics | actor_metrics | {"temperature": jnp.exp(log_temperature)}
    opt_states = {"actor": actor_opt, "critic": critic_opt, "temperature": temperature_opt}
    statistics = state.obs_statistics
    return State(actor_params, critic_params, target_params, log_temperature, opt_states, statistics), metrics


KIND = AgentKind("sac", Config, (Box,), experience, make)
