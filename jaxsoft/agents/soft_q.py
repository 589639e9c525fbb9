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
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import boltzmann
from jaxsoft.agents.boltzmann import Boltzmann, PolicyState, SoftQConfig
from jaxsoft.agents.minibatches import as_samples, minibatch_indices, minibatch_of, step_sizes
from jaxsoft.nn.networks import action_value
from jaxsoft.ops import boltzmann_policy, entropy, soft_q_targets
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec, Metrics, Rollouts, Transition

METRICS = ("q_loss", "q_mean", "temperature", "exploration", "entropy", "kl")
"""What an update measures."""


@struct.dataclass
class Config(SoftQConfig):
    """Settings of Soft Q(λ) on rollouts.

    Attributes:
        learning_rate: step size of the Q-function; of its first step, where it decays.
        rollout_length: T, steps of every environment between updates.
        noise_repeat: steps for which the random numbers that choose actions are kept, within a rollout. Actions that
            persist reach further; their log-probabilities are those of each step by itself, which tree_backup and
            uncorrected do not use.
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
        policy: the Q-function's parameters and what belongs to acting by them.
        opt_state: the optimiser's moments.
    """

    policy: PolicyState
    opt_state: optax.OptState


def experience(config: Config) -> Rollouts:
    """What the updates are fed with: fresh rollouts."""
    return Rollouts(config.rollout_length, config.noise_repeat, config.num_epochs, config.num_minibatches)


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for environments with `spec`, whose actions are `Discrete`.

    `num_updates` is that of the whole run: the schedules span it.
    """
    network = boltzmann.q_function(config, spec)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]
    optimiser = make_optimiser(config, num_updates)

    def init(key: jax.Array) -> State:
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return State(boltzmann.init(policy, params), optimiser.init(params))

    def act(
        key: jax.Array, state: State, obs: jax.Array, *, deterministic: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        return boltzmann.act(key, policy, state.policy, obs, deterministic=deterministic)

    def explore(key: jax.Array, state: State, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return boltzmann.explore(key, policy, state.policy, obs)

    def observe(state: State, obs: jax.Array) -> State:
        return replace(state, policy=boltzmann.observe(state.policy, obs))

    def update(key: jax.Array, state: State, batch: Transition) -> tuple[State, Metrics]:
        return _update(key, state, batch, config, policy, optimiser)

    def log_probs(state: State, obs: jax.Array) -> jax.Array:
        return boltzmann.policy_log_probs(policy, state.policy, obs)

    return Agent(init, act, update, explore, METRICS, observe, log_probs)


def make_optimiser(config: Config, num_updates: int) -> optax.GradientTransformation:
    """Adam with rectified variance and shortened gradients: its first steps are not larger than the later ones."""
    num_steps = num_updates * config.num_epochs * config.num_minibatches
    learning_rate = step_sizes(config.learning_rate, num_steps, decay=config.decay_learning_rate)
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.radam(learning_rate))


def targets_of_batch(
    policy: Boltzmann, batch: Transition, q_next: jax.Array, reference_next: jax.Array, tau: jax.Array
) -> jax.Array:
    """Soft Q(λ) targets of sequences, time first.

    Args:
        policy: for λ, the trace coefficient and the discount.
        batch: [T, B, ...], with `truncated` and `log_prob`.
        q_next: [T, B, A], Q of the true successors.
        reference_next: [T, B, A] or what broadcasts to it, log π0 of them.
        tau: [], temperature.

    Returns:
        [T, B].
    """
    config = policy.config
    following = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), (batch.action, batch.log_prob))

    def of_sequence(*sequence: Any) -> jax.Array:
        return soft_q_targets(
            *sequence, discount=config.discount, temperature=tau, lambda_=config.lambda_, trace=config.trace
        )

    sequences = (
        batch.reward,
        batch.terminated,
        batch.truncated,
        q_next,
        jnp.broadcast_to(reference_next, q_next.shape),
        *following,
    )
    return jax.vmap(of_sequence, in_axes=1, out_axes=1)(*sequences)


def q_loss(
    params: Any, policy: Boltzmann, features: jax.Array, action: jax.Array, targets: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
    """J_Q for actions and `targets` [B] in states `features` [B, *obs_shape]; with it Q [B, A], and metrics."""
    q = policy.q_values(params, features)
    q_a = action_value(q, action)
    loss = 0.5 * jnp.mean((q_a - targets) ** 2)
    return loss, (q, {"q_loss": loss, "q_mean": jnp.mean(q_a)})


def policy_metrics(policy: Boltzmann, state: PolicyState, log_probs: jax.Array, divergence: jax.Array) -> Metrics:
    """Temperature, exploration, and the policy's entropy and divergence from the reference, in nats."""
    return {
        "temperature": boltzmann.temperature(policy, state),
        "exploration": boltzmann.exploration(policy, state),
        "entropy": jnp.mean(entropy(log_probs)),
        "kl": jnp.mean(divergence),
    }


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    policy: Boltzmann,
    optimiser: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """Targets once, then gradient steps on shuffled minibatches of the rollout."""
    learned = state.policy
    q_next = policy.q_values(learned.params, boltzmann.features(learned, batch.next_obs))
    reference_next = boltzmann.reference_log_probs(policy, learned, batch.next_obs)
    targets = targets_of_batch(policy, batch, q_next, reference_next, boltzmann.temperature(policy, learned))
    reference = boltzmann.reference_log_probs(policy, learned, batch.obs)
    # one that all states share is neither gathered nor normalised for each of them
    per_state = (jnp.broadcast_to(reference, q_next.shape),) if reference.ndim > 1 else ()
    features = boltzmann.features(learned, batch.obs)
    samples = as_samples((features, batch.action, targets, *per_state))

    def step(
        carry: tuple[PolicyState, optax.OptState], indices: jax.Array
    ) -> tuple[tuple[PolicyState, optax.OptState], Metrics]:
        learned, opt_state = carry
        features, action, targets, *gathered = minibatch_of(samples, indices)
        grads, (q, metrics) = jax.grad(q_loss, has_aux=True)(learned.params, policy, features, action, targets)
        updates, opt_state = optimiser.update(grads, opt_state, learned.params)
        tau = boltzmann.temperature(policy, learned)
        log_probs, divergence = boltzmann_policy(q, gathered[0] if gathered else reference, tau)
        metrics |= policy_metrics(policy, learned, log_probs, divergence)
        learned = boltzmann.adapt_temperature(policy, learned, log_probs, divergence)
        return (replace(learned, params=optax.apply_updates(learned.params, updates)), opt_state), metrics

    indices = minibatch_indices(key, targets.size, config.num_epochs, config.num_minibatches)
    (learned, opt_state), metrics = jax.lax.scan(step, (learned, state.opt_state), indices)
    learned = boltzmann.after_update(policy, learned, learned.params)
    return State(learned, opt_state), jax.tree.map(jnp.mean, metrics)


LOOP_DEFAULTS = {"num_envs": 32, "total_timesteps": 500_000, "eval_every": 25_000}
"""The loop's settings where neither a preset nor the user says otherwise."""

KIND = AgentKind("soft_q", Config, (Discrete,), experience, make, LOOP_DEFAULTS)
