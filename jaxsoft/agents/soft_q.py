"""Soft Q(λ) on fresh rollouts of parallel environments: no replay and no target network.

One update on a rollout of T steps:

    G_t  = r_t + γ_t [ V(s_{t+1}) + λ c_{t+1} (G_{t+1} − Q(s_{t+1}, a_{t+1})) ]    by a reverse scan, Q as it was
    J_Q  = ½ E (Q(s_t, a_t) − G_t)²                                               some epochs of minibatches

V and the policy are relative to a reference policy, see `jaxsoft.ops.soft`. What stands in for the target network is
layer normalisation (Gallici et al. 2024, "Simplifying deep temporal difference learning", arXiv:2407.04811).

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, which leaves function approximation open.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import boltzmann
from jaxsoft.agents.boltzmann import Boltzmann, PolicyState
from jaxsoft.agents.gradients import Packing, clip_by_norm, descend
from jaxsoft.agents.minibatches import (
    flatten_rollout,
    minibatch_indices,
    rollouts,
    scan_mean,
    step_sizes,
    take_minibatch,
)
from jaxsoft.agents.soft_q_config import SoftQConfig
from jaxsoft.nn.networks import action_value
from jaxsoft.nn.normalisation import features
from jaxsoft.ops import boltzmann_policy, entropy, soft_q_targets
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec, Metrics, Transition

METRICS = ("q_loss", "q_mean", "temperature", "exploration", "entropy", "kl")
"""Names of an update's metrics."""


@struct.dataclass
class Config(SoftQConfig):
    """Settings of Soft Q(λ) on rollouts.

    Attributes:
        learning_rate: step size of the Q-function; of its first step, where it decays.
        rollout_length: T, steps of every environment between updates.
        noise_repeat: steps for which the random numbers that choose actions are kept, within a rollout. Actions that
            persist reach further; their log-probabilities are those of each step by itself, which retrace and
            importance_sampling use.
        num_epochs: passes over a rollout.
        num_minibatches: gradient steps in one pass.
        max_grad_norm: gradients longer than this are shortened to it.
        decay_learning_rate: let the step size fall linearly to 0 over the training.
    """

    learning_rate: float = 1e-3
    rollout_length: int = struct.field(pytree_node=False, default=32)
    noise_repeat: int = struct.field(pytree_node=False, default=1)
    num_epochs: int = struct.field(pytree_node=False, default=4)
    num_minibatches: int = struct.field(pytree_node=False, default=8)
    max_grad_norm: float = 10.0
    decay_learning_rate: bool = struct.field(pytree_node=False, default=True)


@struct.dataclass
class State:
    """Everything the agent learns.

    Attributes:
        policy: the Q-function's parameters, and all else that acting needs.
        opt_state: the optimiser's moments.
    """

    policy: PolicyState
    opt_state: optax.OptState


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for `Discrete` actions; the schedules span `num_updates`."""
    network = boltzmann.q_function(config, spec)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]

    def init(key: jax.Array) -> State:
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return State(boltzmann.init(policy, params), make_optimiser(config, num_updates).init(params))

    return boltzmann.make_agent(policy, init, partial(_update, config=config, policy=policy), METRICS)


def make_optimiser(config: Config, num_updates: int) -> optax.GradientTransformation:
    """Adam with rectified variance, whose first steps are no larger than later ones, on gradients of bounded length."""
    step_size = step_sizes(config, num_updates)
    return optax.chain(clip_by_norm(config.max_grad_norm), optax.radam(step_size))


def sequence_targets(
    params: Any, policy: Boltzmann, state: PolicyState, batch: Transition, tau: jax.Array
) -> jax.Array:
    """Soft Q(λ) targets G [T, B] of sequences [T, B, ...] with `truncated` and `log_prob`; Q and V by `params`."""
    assert batch.truncated is not None
    config = policy.config
    q_next = policy.q_values(params, features(state, batch.next_obs))
    reference_next = boltzmann.reference_log_probs(policy, state, batch.next_obs)
    action_next, log_mu_next = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), (batch.action, batch.log_prob))
    targets = partial(
        soft_q_targets, discount=config.discount, temperature=tau, lambda_=config.lambda_, trace=config.trace
    )
    is_shared = reference_next.shape == q_next.shape[-1:]
    if not is_shared:
        reference_next = jnp.broadcast_to(reference_next, q_next.shape)
    return jax.vmap(targets, in_axes=(1, 1, 1, 1, None if is_shared else 1, 1, 1), out_axes=1)(
        batch.reward, batch.terminated, batch.truncated, q_next, reference_next, action_next, log_mu_next
    )


def q_loss(
    params: Any, policy: Boltzmann, obs: jax.Array, action: jax.Array, targets: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """J_Q for actions and `targets` [B] at normalised `obs` [B, *obs_shape]; Q [B, A], and metrics of each [B]."""
    q = policy.q_values(params, obs)
    q_a = action_value(q, action)
    losses = 0.5 * (q_a - targets) ** 2
    return jnp.mean(losses), (q, {"q_loss": losses, "q_mean": q_a})


def policy_metrics(
    policy: Boltzmann, state: PolicyState, log_probs: jax.Array, divergence: jax.Array, **others: jax.Array
) -> Metrics:
    """Temperature, exploration, the policy's mean entropy and divergence from the reference, and means of others.

    All means are one kernel.
    """
    measured = {"entropy": entropy(log_probs), "kl": divergence, **others}
    means = jnp.mean(jnp.stack([x.ravel() for x in measured.values()]), axis=1)
    return {
        "temperature": boltzmann.temperature(policy, state),
        "exploration": boltzmann.exploration(policy, state),
        **dict(zip(measured, means, strict=True)),
    }


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, policy: Boltzmann
) -> tuple[State, Metrics]:
    """Targets once, then gradient steps on shuffled minibatches of the rollout."""
    optimiser = make_optimiser(config, policy.num_updates)
    tau = boltzmann.temperature(policy, state.policy)
    targets = sequence_targets(state.policy.params, policy, state.policy, batch, tau)
    reference = boltzmann.reference_log_probs(policy, state.policy, batch.obs)
    # a reference [A] that all states share is neither gathered nor normalised per state
    shape = (*targets.shape, boltzmann.num_actions(policy.spec))
    per_state = (jnp.broadcast_to(reference, shape),) if reference.ndim > 1 else ()
    samples = flatten_rollout((features(state.policy, batch.obs), batch.action, targets, *per_state))

    packing = Packing(state.policy.params)

    def step(state: State, indices: jax.Array) -> tuple[State, Metrics]:
        policy_state = state.policy
        obs, action, targets, *gathered = take_minibatch(samples, indices)
        params, opt_state, (q, losses) = descend(
            optimiser, q_loss, policy_state.params, state.opt_state, policy, obs, action, targets, packing=packing
        )
        tau = boltzmann.temperature(policy, policy_state)
        log_probs, divergence = boltzmann_policy(q, gathered[0] if gathered else reference, tau)
        metrics = policy_metrics(policy, policy_state, log_probs, divergence, **losses)
        policy_state = boltzmann.adapt_temperature(policy, policy_state, log_probs, divergence)
        return State(replace(policy_state, params=params), opt_state), metrics

    indices = minibatch_indices(key, targets.size, config.num_epochs, config.num_minibatches)
    policy_state = replace(state.policy, params=packing.join(state.policy.params))
    state = State(policy_state, packing.join_state(state.opt_state))
    state, metrics = scan_mean(step, state, indices, METRICS)
    policy_state = boltzmann.finish_update(policy, state.policy, packing.split(state.policy.params))
    return State(policy_state, packing.split_state(state.opt_state)), metrics


KIND = AgentKind(
    "soft_q",
    Config,
    (Discrete,),
    rollouts,
    make,
    loop_defaults={"num_envs": 32, "total_timesteps": 500_000, "eval_every": 25_000},
)
