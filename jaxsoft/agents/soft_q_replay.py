"""Soft Q(λ) on sequences from a replay: fully off-policy, with a target network and optional twin Q-functions.

One update on B sequences of L steps:

    Q̄    = min_i Q_θ̄i                                                            for V, the policy and c
    G_t  = r_t + γ_t [ V̄(s_{t+1}) + λ c_{t+1} (G_{t+1} − Q̄(s_{t+1}, a_{t+1})) ]  within the sequence
    J_Q  = ½ Σ_i E (Q_θi(s_t, a_t) − G_t)²                                        over all its steps
    θ̄   ← polyak θ̄ + (1 − polyak) θ

Where an episode ends inside a sequence, the trace is cut. The behaviour's log-probabilities are those of the time when
the action was taken. λ = 0 is soft Q-learning with a target network, whatever the coefficient.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, which leaves replay open; twins: Fujimoto et al. 2018,
arXiv:1802.09477.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import boltzmann
from jaxsoft.agents.boltzmann import Boltzmann, PolicyState
from jaxsoft.agents.gradients import clip_by_norm, descend
from jaxsoft.agents.soft_q import METRICS, policy_metrics, sequence_targets
from jaxsoft.agents.soft_q_config import SoftQConfig
from jaxsoft.nn.networks import DiscreteQFunction, action_value, ensemble
from jaxsoft.nn.normalisation import features
from jaxsoft.ops import boltzmann_policy
from jaxsoft.ops.averages import least, polyak_average
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec, Metrics, ReplayBatches, Transition


@struct.dataclass
class Config(SoftQConfig):
    """Settings of Soft Q(λ) on replayed sequences.

    Attributes:
        polyak: share of the old target parameters kept at every update.
        num_critics: Q-functions, whose minimum is used: 1, or 2 for twins.
        batch_size: sequences in one gradient step.
        sequence_length: L, steps of a sequence; returns look no further.
        replay_capacity: transitions kept, the oldest replaced first.
        learning_starts: timesteps of uniformly random actions before the first update.
        updates_per_step: gradient steps after each step of the (one or more) environments.
        max_grad_norm: gradients longer than this are shortened to it.
    """

    polyak: float = 0.995
    num_critics: int = struct.field(pytree_node=False, default=1)
    batch_size: int = struct.field(pytree_node=False, default=32)
    sequence_length: int = struct.field(pytree_node=False, default=8)
    replay_capacity: int = struct.field(pytree_node=False, default=100_000)
    learning_starts: int = struct.field(pytree_node=False, default=1_000)
    updates_per_step: int = struct.field(pytree_node=False, default=1)
    max_grad_norm: float = 10.0


@struct.dataclass
class State:
    """Everything the agent learns.

    Attributes:
        policy: the Q-functions' parameters, leaves [num_critics, ...], and all else that acting needs.
        target_params: their slow copy.
        opt_state: Adam's moments.
    """

    policy: PolicyState
    target_params: Any
    opt_state: optax.OptState


def experience(config: Config) -> ReplayBatches:
    """Sequences from a replay."""
    return ReplayBatches(
        capacity=config.replay_capacity,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        updates_per_step=config.updates_per_step,
        sequence_length=config.sequence_length,
        uses_terminal_obs=False,
    )


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for `Discrete` actions; the schedules span `num_updates`."""
    members = boltzmann.q_function(config, spec, ensemble(DiscreteQFunction, config.num_critics))
    apply: Any = members.apply
    policy = boltzmann.make_boltzmann(config, spec, lambda params, obs: least(apply(params, obs)), num_updates)

    def init(key: jax.Array) -> State:
        params = members.init(key, jnp.zeros((1, *spec.obs_shape)))
        return State(boltzmann.init(policy, params), params, make_optimiser(config).init(params))

    update = partial(_update, config=config, policy=policy, members=apply)
    return boltzmann.make_agent(policy, init, update, METRICS)


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """Adam on gradients of bounded length."""
    return optax.chain(clip_by_norm(config.max_grad_norm), optax.adam(config.learning_rate))


def q_loss(
    params: Any, members: Any, obs: jax.Array, action: jax.Array, targets: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """J_Q for actions and `targets` [L, B] at normalised `obs` [L, B, *obs_shape]; Q [L, B, A], and metrics."""
    q = members(params, obs)  # [num_critics, L, B, A]
    q_a = action_value(q, action)
    loss = 0.5 * jnp.sum(jnp.mean((q_a - targets) ** 2, axis=(1, 2)))
    return loss, (least(q), {"q_loss": loss, "q_mean": jnp.mean(q_a)})


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, policy: Boltzmann, members: Any
) -> tuple[State, Metrics]:
    """Targets of the slow copy, one gradient step, and the move of the slow copy."""
    policy_state = state.policy
    tau = boltzmann.temperature(policy, policy_state)
    targets = sequence_targets(state.target_params, policy, policy_state, batch, tau)
    obs = features(policy_state, batch.obs)
    params, opt_state, (q, metrics) = descend(
        make_optimiser(config), q_loss, policy_state.params, state.opt_state, members, obs, batch.action, targets
    )
    target_params = polyak_average(state.target_params, params, config.polyak)
    reference = boltzmann.reference_log_probs(policy, policy_state, batch.obs)
    log_probs, divergence = boltzmann_policy(q, reference, tau)
    metrics |= policy_metrics(policy, policy_state, log_probs, divergence)
    policy_state = boltzmann.adapt_temperature(policy, policy_state, log_probs, divergence)
    return State(boltzmann.finish_update(policy, policy_state, params), target_params, opt_state), metrics


KIND = AgentKind("soft_q_replay", Config, (Discrete,), experience, make)
