"""What the Soft Q(λ) agents share: how they act, and relative to what.

    π(a|s) = π0(a|s) exp((Q(s,a) − V(s))/τ)              the learned policy
    μ(a|s) = (1 − ε) π(a|s) + ε ρ(a|s)                   how it acts while it learns; ρ is uniform or π0

Functions of a `Boltzmann`, which is fixed, and of a `PolicyState`, which is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.core import Tracer

from jaxsoft.agents import temperature as temperatures
from jaxsoft.agents.references import Reference, is_average, make_reference
from jaxsoft.errors import InputError
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, mix
from jaxsoft.nn.networks import DiscreteQFunction, check_channels
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import AgentConfig, EnvSpec

Trace = Literal["tree_backup", "retrace", "importance_sampling", "uncorrected"]


@struct.dataclass
class SoftQConfig(AgentConfig):
    """Settings that every Soft Q(λ) agent has.

    Attributes:
        learning_rate: step size of the Q-function.
        discount: γ, the weight of the next step's value.
        lambda_: λ, from 0 (one-step targets) to 1 (as long as the trace coefficients let them be).
        trace: trace coefficient: tree_backup, retrace, importance_sampling or uncorrected.
        temperature: τ, the price of a nat of divergence from the reference, in units of reward.
        final_temperature: where a scheduled τ ends; it falls geometrically.
        target_entropy: entropy in nats that τ is adapted to keep.
        target_kl: divergence from the reference in nats that τ is adapted to keep.
        temperature_learning_rate: Adam's step size for log τ, where it is adapted.
        exploration: ε, share of `exploration_policy` mixed into the actions taken in training; uniform takes actions
            that the reference forbids, too.
        final_exploration: where a scheduled ε ends; it falls linearly.
        exploration_policy: what is mixed in: uniform or reference.
        decay_fraction: share of the training after which scheduled τ and ε have arrived.
        reference: π0: uniform, average (of the agent itself), logits (comma-separated), or an earlier run's directory.
        reference_polyak: share of the old average kept at every update, for the reference `average`.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers; none: a linear function.
        channels: of the 3 × 3 convolutions before them, where observations are images.
    """

    learning_rate: float = 5e-4
    discount: float = 0.99
    lambda_: float = 0.9
    trace: Trace = struct.field(pytree_node=False, default="retrace")
    temperature: float = 0.1
    final_temperature: float | None = None
    target_entropy: float | None = None
    target_kl: float | None = None
    temperature_learning_rate: float = 1e-3
    exploration: float = 0.0
    final_exploration: float | None = None
    exploration_policy: Literal["uniform", "reference"] = struct.field(pytree_node=False, default="uniform")
    decay_fraction: float = 0.5
    reference: Reference = struct.field(pytree_node=False, default="uniform")
    reference_polyak: float = 0.99
    normalise_obs: bool = struct.field(pytree_node=False, default=False)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(128, 128))
    channels: tuple[int, ...] = struct.field(pytree_node=False, default=(16,))


@struct.dataclass
class PolicyState:
    """What a Boltzmann policy has learned.

    Attributes:
        params: of the Q-function.
        reference_params: their exponential average, where that is the reference; else None.
        log_temperature: [], log τ; not used where τ follows a schedule.
        temperature_opt_state: Adam's.
        obs_statistics: of the observations, where they are normalised; else None.
        num_updates: [], int32, updates made.
    """

    params: Any
    reference_params: Any
    log_temperature: jax.Array
    temperature_opt_state: optax.OptState
    obs_statistics: normalisation.Statistics | None
    num_updates: jax.Array


class Boltzmann(NamedTuple):
    """What a Boltzmann policy is made of.

    Attributes:
        config: the settings.
        spec: of the environment.
        q_values: `(params, obs [..., *obs_shape]) -> [..., A]`, of normalised observations.
        fixed_reference: `(obs) -> log π0`; of the average reference, that of the average itself.
        num_updates: of the whole run, which the schedules span.
    """

    config: SoftQConfig
    spec: EnvSpec
    q_values: Callable[[Any, jax.Array], jax.Array]
    fixed_reference: Callable[[jax.Array], jax.Array]
    num_updates: int


def make_boltzmann(
    config: SoftQConfig, spec: EnvSpec, q_values: Callable[[Any, jax.Array], jax.Array], num_updates: int
) -> Boltzmann:
    """Assembles a policy from its Q-function.

    Raises:
        InputError: the settings of the temperature or of the reference contradict themselves.
    """
    temperatures.check_settings(config)
    _check_targets(config, num_actions(spec))
    reference = make_reference(config.reference, num_actions(spec))
    return Boltzmann(config, spec, q_values, reference, num_updates)


def _check_targets(config: SoftQConfig, num_actions: int) -> None:
    """Refuses an entropy or a divergence that no policy has: it would drive τ for ever."""
    most = math.log(num_actions)
    for name in ("target_entropy", "target_kl"):
        target = getattr(config, name)
        if target is not None and not isinstance(target, Tracer) and not 0 < target < most:
            raise InputError(f"{name} is {target}; with {num_actions} actions it must be between 0 and {most:.4g}")


def num_actions(spec: EnvSpec) -> int:
    """Actions to choose from."""
    return spec.action_space.num_actions  # type: ignore[union-attr]


def q_function(
    config: SoftQConfig, spec: EnvSpec, module: Callable[..., nn.Module] = DiscreteQFunction, **options: Any
) -> nn.Module:
    """The Q-function, obs [..., *obs_shape] -> [..., A], of the sizes in `config`; `options` are the module's own.

    Raises:
        InputError: the observations are images too small for its convolutions.
    """
    check_channels(config.channels if config.hidden_sizes else (), spec)
    return module(num_actions(spec), config.hidden_sizes, config.channels, len(spec.obs_shape), **options)


def init(policy: Boltzmann, params: Any) -> PolicyState:
    """The state before learning."""
    config = policy.config
    log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
    return PolicyState(
        params=params,
        reference_params=params if is_average(config.reference) else None,
        log_temperature=log_temperature,
        temperature_opt_state=temperatures.temperature_optimiser(config).init(log_temperature),
        obs_statistics=normalisation.init(policy.spec.obs_shape) if config.normalise_obs else None,
        num_updates=jnp.zeros((), jnp.int32),
    )


def temperature(policy: Boltzmann, state: PolicyState) -> jax.Array:
    """τ now; []."""
    return temperatures.present_temperature(policy.config, state.log_temperature, state.num_updates, policy.num_updates)


def exploration(policy: Boltzmann, state: PolicyState) -> jax.Array:
    """ε now; []."""
    config = policy.config
    first = jnp.asarray(config.exploration, jnp.float32)
    if config.final_exploration is None:
        return first
    span = config.decay_fraction * policy.num_updates
    return temperatures.decayed(first, config.final_exploration, state.num_updates, span)


def features(state: PolicyState, obs: jax.Array) -> jax.Array:
    """What the Q-function sees of observations [..., *obs_shape]."""
    return normalisation.normalise(state.obs_statistics, obs)


def reference_log_probs(policy: Boltzmann, state: PolicyState, obs: jax.Array) -> jax.Array:
    """Log π0 of observations [..., *obs_shape], [..., A] or what broadcasts to it."""
    log_probs = jnp.asarray(policy.fixed_reference(obs), state.log_temperature.dtype)
    if state.reference_params is None:
        return log_probs
    average = policy.q_values(state.reference_params, features(state, obs))
    return jax.lax.stop_gradient(boltzmann_log_probs(average, log_probs, temperature(policy, state)))


def policy_log_probs(policy: Boltzmann, state: PolicyState, obs: jax.Array) -> jax.Array:
    """Log π of observations [..., *obs_shape] -> [..., A]."""
    q = policy.q_values(state.params, features(state, obs))
    return boltzmann_log_probs(q, reference_log_probs(policy, state, obs), temperature(policy, state))


def act(
    key: jax.Array, policy: Boltzmann, state: PolicyState, obs: jax.Array, *, deterministic: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Actions of π [...], and their log-probabilities [...]."""
    distribution = Categorical(policy_log_probs(policy, state, obs))
    return distribution.mode() if deterministic else distribution.sample(key)


def explore(key: jax.Array, policy: Boltzmann, state: PolicyState, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Actions of μ [...], and their log-probabilities [...] under μ."""
    config, distribution = policy.config, Categorical(policy_log_probs(policy, state, obs))
    if config.final_exploration is not None or not (isinstance(config.exploration, float) and config.exploration == 0):
        mixed_in = reference_log_probs(policy, state, obs)
        if config.exploration_policy == "uniform":
            mixed_in = jnp.full((num_actions(policy.spec),), -jnp.log(num_actions(policy.spec)))
        distribution = mix(distribution, Categorical(mixed_in), exploration(policy, state))
    return distribution.sample(key)


def observe(state: PolicyState, obs: jax.Array) -> PolicyState:
    """Takes observations into the statistics, where there are any."""
    return replace(state, obs_statistics=normalisation.observe(state.obs_statistics, obs))


def adapt_temperature(
    policy: Boltzmann, state: PolicyState, log_probs: jax.Array, divergence: jax.Array
) -> PolicyState:
    """Moves τ by one step towards its target, if there is one.

    Args:
        policy: what does not change.
        state: with the present τ.
        log_probs: [..., A], log π where the agent acted; where a task ended nobody acts, and Q is nothing learned.
        divergence: [...], KL[π ‖ π0] there.
    """
    log_temperature, opt_state = temperatures.adapt_temperature(
        policy.config, state.log_temperature, state.temperature_opt_state, log_probs, divergence
    )
    return replace(state, log_temperature=log_temperature, temperature_opt_state=opt_state)


def after_update(policy: Boltzmann, state: PolicyState, params: Any) -> PolicyState:
    """Takes over an update's new parameters; moves their average and the count of updates."""
    average = state.reference_params
    if average is not None:
        average = polyak_average(average, params, policy.config.reference_polyak)
    return replace(state, params=params, reference_params=average, num_updates=state.num_updates + 1)
