"""Code shared by the actor-critic agents: settings, normalised observations, acting, targets, the critics' loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, TanhNormal
from jaxsoft.nn.networks import ActivationName, Network, check_network
from jaxsoft.ops import soft_lambda_returns
from jaxsoft.types import Agent, AgentConfig, Discrete, EnvSpec, Metrics, ReplayBatches, Transition

QValues = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""Critics: `(critic_params, obs [..., *obs_shape], action [..., *action_shape]) -> [num_critics, ...]`."""


@struct.dataclass
class ActorCriticConfig(AgentConfig):
    """Settings that every actor-critic agent has. The floating-point ones are leaves, so a sweep can vmap over them.

    Attributes:
        learning_rate: Adam's step size, for everything that is learned.
        discount: γ, the weight of the next step's value.
        polyak: share of the old target parameters kept at every update. Swept or traced it is a float32, and 1 − polyak
            as coarse: 1.2e-7 at 0.9999999.
        batch_size: transitions in one gradient step.
        replay_capacity: transitions kept, the oldest replaced first.
        learning_starts: timesteps of uniformly random actions before the first update.
        random_action_repeat: steps that each of those random actions is held (longer ones reach further).
        updates_per_step: gradient steps after each step of the (one or more) environments.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers, of all networks alike.
        activation: after the hidden layers.
        network: hidden layers of one's own in their place, a Flax module or a function that makes one; Python only.
    """

    polyak: float = 0.995
    batch_size: int = struct.field(pytree_node=False, default=256)
    replay_capacity: int = struct.field(pytree_node=False, default=1_000_000)
    learning_starts: int = struct.field(pytree_node=False, default=1_000)
    random_action_repeat: int = struct.field(pytree_node=False, default=1)
    updates_per_step: int = struct.field(pytree_node=False, default=1)
    normalise_obs: bool = struct.field(pytree_node=False, default=False)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(256, 256))
    activation: ActivationName = struct.field(pytree_node=False, default="relu")
    network: Network = struct.field(pytree_node=False, default=None)


def replay_batches(config: ActorCriticConfig, sequence_length: int = 0) -> ReplayBatches:
    """Transitions, or sequences of them, from a replay: `AgentKind.experience` of the actor-critic agents."""
    return ReplayBatches(
        capacity=config.replay_capacity,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        updates_per_step=config.updates_per_step,
        random_action_repeat=config.random_action_repeat,
        sequence_length=sequence_length,
        uses_terminal_obs=False,
    )


def check_networks(config: ActorCriticConfig, spec: EnvSpec) -> None:
    """Checks a network of one's own as actor and as critic; see `check_network`."""
    size = math.prod(spec.obs_shape)
    for num_inputs in (size, size + spec.action_space.shape[0]):
        check_network(config.network, (num_inputs,))


def flatten_obs(module: nn.Module, obs_rank: int) -> Callable[..., Any]:
    """A module of vectors as a function `(params, obs, *inputs)` of observations of any shape, which it flattens."""

    def function(params: Any, obs: jax.Array, *inputs: jax.Array) -> Any:
        features = obs.reshape(*obs.shape[: obs.ndim - obs_rank], -1).astype(jnp.float32)
        return module.apply(params, features, *inputs)

    return function


def init_params(
    key: jax.Array, spec: EnvSpec, actor: nn.Module, critic: nn.Module, *values: nn.Module
) -> tuple[Any, ...]:
    """Parameters of modules of vectors: a policy's, the critics', and those of state-value functions."""
    obs, action = jnp.zeros((1, math.prod(spec.obs_shape))), jnp.zeros((1, *spec.action_space.shape))
    actor_key, critic_key, *keys = jax.random.split(key, 2 + len(values))
    value_params = [value.init(key, obs) for key, value in zip(keys, values, strict=True)]
    return actor.init(actor_key, obs), critic.init(critic_key, obs, action), *value_params


def init_statistics(config: Any, spec: EnvSpec) -> normalisation.Statistics | None:
    """Statistics of the observations if they are to be normalised, else None."""
    return normalisation.init(spec.obs_shape) if config.normalise_obs else None


def normalise_batch(state: Any, batch: Transition) -> Transition:
    """A batch of normalised observations."""
    obs, next_obs = (normalisation.features(state, x) for x in (batch.obs, batch.next_obs))
    return replace(batch, obs=obs, next_obs=next_obs)


def make_agent(
    spec: EnvSpec,
    init: Callable[[jax.Array], Any],
    distribution: Callable[[Any, jax.Array], TanhNormal | Categorical],
    update: Callable[[jax.Array, Any, Transition], tuple[Any, Metrics]],
    metrics: tuple[str, ...],
) -> Agent:
    """An agent that acts by a stochastic policy, and whose states have `obs_statistics`.

    `distribution`, `(state, obs) -> TanhNormal` or `Categorical`, and `update` get normalised observations; the rest is
    as in `Agent`.
    """

    def policy(state: Any, obs: jax.Array) -> Any:
        return distribution(state, normalisation.features(state, obs))

    def act(key: jax.Array, state: Any, obs: jax.Array, *, deterministic: bool = False) -> tuple[jax.Array, jax.Array]:
        return policy(state, obs).mode() if deterministic else policy(state, obs).sample(key)

    return Agent(
        init=init,
        act=act,
        update=lambda key, state, batch: update(key, state, normalise_batch(state, batch)),
        explore=lambda key, state, obs: policy(state, obs).choose(key),
        metrics=metrics,
        observe=normalisation.observe,
        log_probs=(lambda state, obs: policy(state, obs).log_probs)
        if isinstance(spec.action_space, Discrete)
        else None,
    )


def stored_log_prob(policy: TanhNormal | Categorical, action: jax.Array, pre_tanh: jax.Array | None) -> jax.Array:
    """Log π(a|s) [...] of stored actions; computed from arctanh(a) where it is stored, too."""
    if isinstance(policy, TanhNormal) and pre_tanh is not None:
        return policy.log_prob_of_pre_tanh(pre_tanh)
    return policy.log_prob(action)


def one_step_targets(batch: Transition, next_value: jax.Array, discount: float | jax.Array) -> jax.Array:
    """Targets r + γ (1 − terminated) V(s'), finite even if V after a terminal is not; [...] -> [...]."""
    return batch.reward + discount * jnp.where(batch.terminated, 0.0, next_value)


def lambda_returns(
    batch: Transition,
    next_value: jax.Array,
    next_q_a: jax.Array,
    next_coefficient: float | jax.Array,
    *,
    discount: float | jax.Array,
    lambda_: float | jax.Array,
) -> jax.Array:
    """Returns G [T, B] of sequences, by `soft_lambda_returns`, in which episodes may end in both ways.

    Args:
        batch: [T, B, ...], with `truncated`.
        next_value: [T, B], V(s_{t+1}) of the true successors; not used after a terminal.
        next_q_a: [T, B], Q(s_{t+1}, a_{t+1}).
        next_coefficient: [T, B] or [], c_{t+1}; not used where an episode ended with step t.
        discount: γ.
        lambda_: λ, between 0 and 1.
    """
    assert batch.truncated is not None
    sequences = (
        batch.reward,
        discount * (1 - batch.terminated),
        jnp.where(batch.terminated, 0.0, next_value),
        next_q_a,
        jnp.where(batch.terminated | batch.truncated, 0.0, next_coefficient),
        jnp.broadcast_to(lambda_, batch.reward.shape),
    )
    return jax.vmap(soft_lambda_returns, in_axes=1, out_axes=1)(*sequences)


def critic_loss(
    critic_params: Any, q_values: QValues, batch: Transition, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_Q = ½ Σ_i E (Q_θi(s, a) − y)² for `targets` [batch_size], and metrics."""
    q = q_values(critic_params, batch.obs, batch.action)
    loss = 0.5 * jnp.sum(jnp.mean((q - targets) ** 2, axis=-1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q)}
