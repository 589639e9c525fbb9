"""What the actor-critic agents share: their replay's settings, how they act, targets and losses, gradient steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, TanhNormal
from jaxsoft.types import Act, AgentConfig, EnvSpec, Explore, Metrics, ReplayBatches, Transition

Params = TypeVar("Params")

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
    """

    learning_rate: float = 3e-4
    discount: float = 0.99
    polyak: float = 0.995
    batch_size: int = struct.field(pytree_node=False, default=256)
    replay_capacity: int = struct.field(pytree_node=False, default=1_000_000)
    learning_starts: int = struct.field(pytree_node=False, default=1_000)
    random_action_repeat: int = struct.field(pytree_node=False, default=1)
    updates_per_step: int = struct.field(pytree_node=False, default=1)
    normalise_obs: bool = struct.field(pytree_node=False, default=False)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(256, 256))


def replay_batches(config: ActorCriticConfig, sequence_length: int = 0) -> ReplayBatches:
    """What the updates are fed with: transitions, or sequences of them, from a replay."""
    return ReplayBatches(
        capacity=config.replay_capacity,
        batch_size=config.batch_size,
        learning_starts=config.learning_starts,
        updates_per_step=config.updates_per_step,
        random_action_repeat=config.random_action_repeat,
        sequence_length=sequence_length,
    )


def of_vectors(module: nn.Module, obs_rank: int) -> Callable[..., Any]:
    """A module as a function `(params, obs, *inputs)` of observations of any shape, which are flattened to vectors."""

    def function(params: Any, obs: jax.Array, *inputs: jax.Array) -> Any:
        features = obs.reshape(*obs.shape[: obs.ndim - obs_rank], -1).astype(jnp.float32)
        return module.apply(params, features, *inputs)

    return function


def init_statistics(config: ActorCriticConfig, spec: EnvSpec) -> normalisation.Statistics | None:
    """Statistics of the observations, where they are normalised."""
    return normalisation.init(spec.obs_shape) if config.normalise_obs else None


def observe(state: Any, obs: jax.Array) -> Any:
    """Takes observations into the agent's statistics, where it keeps any."""
    return replace(state, obs_statistics=normalisation.observe(state.obs_statistics, obs))


def features(state: Any, obs: jax.Array) -> jax.Array:
    """What the networks see of observations [..., *obs_shape]."""
    return normalisation.normalise(state.obs_statistics, obs)


def with_features(state: Any, batch: Transition) -> Transition:
    """A batch as the networks see it."""
    obs, next_obs = (features(state, x) for x in (batch.obs, batch.next_obs))
    return replace(batch, obs=obs, next_obs=next_obs)


def acting(policy_at: Callable[[Any, jax.Array], TanhNormal | Categorical]) -> tuple[Act, Explore]:
    """`Agent.act` and `Agent.explore` of a stochastic policy: `policy_at(state, obs)` is its distribution."""

    def act(key: jax.Array, state: Any, obs: jax.Array, *, deterministic: bool = False) -> tuple[jax.Array, jax.Array]:
        policy = policy_at(state, obs)
        return policy.mode() if deterministic else policy.sample(key)

    return act, lambda key, state, obs: policy_at(state, obs).choose(key)


def log_prob_of(policy: TanhNormal | Categorical, action: jax.Array, pre_tanh: jax.Array | None) -> jax.Array:
    """Log π(a|s) [...] of stored actions, by the value before tanh wherever that was stored, too."""
    if isinstance(policy, TanhNormal) and pre_tanh is not None:
        return policy.log_prob_of_pre_tanh(pre_tanh)
    return policy.log_prob(action)


def one_step_targets(batch: Transition, next_value: jax.Array, discount: float | jax.Array) -> jax.Array:
    """Targets r + γ (1 − terminated) V(s'), whatever V is beyond an end; `next_value` [...] -> [...]."""
    return batch.reward + discount * jnp.where(batch.terminated, 0.0, next_value)


def critic_loss(
    critic_params: Any, q_values: QValues, batch: Transition, targets: jax.Array
) -> tuple[jax.Array, Metrics]:
    """J_Q = ½ Σ_i E (Q_θi(s, a) − y)² for `targets` [batch_size], and metrics."""
    q = q_values(critic_params, batch.obs, batch.action)
    loss = 0.5 * jnp.sum(jnp.mean((q - targets) ** 2, axis=-1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q)}


def descend(
    optimiser: optax.GradientTransformation, grads: Any, params: Params, opt_state: optax.OptState
) -> tuple[Params, optax.OptState]:
    """One step of an optimiser: new parameters, new moments."""
    updates, opt_state = optimiser.update(grads, opt_state, params)  # type: ignore[arg-type]
    return optax.apply_updates(params, updates), opt_state  # type: ignore[type-var]
