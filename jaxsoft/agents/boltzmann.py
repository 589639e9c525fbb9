"""The policy that the Soft Q(λ) agents share: a Boltzmann policy relative to a reference.

    π(a|s) = π0(a|s) exp((Q(s,a) − V(s))/τ)              the learned policy
    μ(a|s) = (1 − ε) π(a|s) + ε ρ(a|s)                   how it acts while it learns; ρ is uniform or π0

The temperature τ is one of these; at most one of `final_temperature`, `target_entropy` and `target_kl` is not None:

    fixed       τ
    scheduled   τ_k = τ_0 (τ_1/τ_0)^(k/K) for the first K updates, then τ_1
    adapted     J(log τ) = τ (H[π] − H̄), or τ (D̄ − KL[π ‖ π0]), descended with Adam: the entropy falls to H̄, or the
                divergence to D̄, whatever the size of the rewards

Functions of a `Boltzmann`, which is fixed, and of a `PolicyState`, which is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from jaxsoft.agents.references import AVERAGE, make_reference
from jaxsoft.agents.soft_q_config import SoftQConfig, check_targets
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, mix
from jaxsoft.nn.networks import DiscreteQFunction, check_channels, check_network, make_layers
from jaxsoft.ops import boltzmann_log_probs, entropy
from jaxsoft.ops.averages import polyak_average
from jaxsoft.types import Agent, EnvSpec, Metrics, Transition

Init = Callable[[jax.Array], Any]
Update = Callable[[jax.Array, Any, Transition], tuple[Any, Metrics]]


@struct.dataclass
class PolicyState:
    """The learned part of a Boltzmann policy.

    Attributes:
        params: of the Q-function.
        reference_params: their exponential average, if the reference is `average`; else None.
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
    """The fixed part of a Boltzmann policy.

    Attributes:
        config: the settings.
        spec: of the environment.
        q_values: `(params, obs [..., *obs_shape]) -> [..., A]`, of normalised observations.
        fixed_reference: `(obs) -> log π0`; for the reference `average`, the reference of that average.
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
        InputError: the settings of the temperature or of the reference contradict each other.
    """
    check_targets(config, num_actions(spec))
    return Boltzmann(config, spec, q_values, make_reference(config.reference, num_actions(spec)), num_updates)


def make_agent(policy: Boltzmann, init: Init, update: Update, metrics: tuple[str, ...]) -> Agent:
    """An agent that acts by a Boltzmann policy; the field `policy` of its state is a `PolicyState`."""
    return Agent(
        init=init,
        act=lambda key, state, obs, *, deterministic=False: act(
            key, policy, state.policy, obs, deterministic=deterministic
        ),
        update=update,
        explore=lambda key, state, obs: explore(key, policy, state.policy, obs),
        metrics=metrics,
        observe=lambda state, obs: replace(state, policy=normalisation.observe(state.policy, obs)),
        log_probs=lambda state, obs: policy_log_probs(policy, state.policy, obs),
    )


def num_actions(spec: EnvSpec) -> int:
    """Number of actions."""
    return spec.action_space.num_actions  # type: ignore[union-attr]


def q_function(
    config: SoftQConfig, spec: EnvSpec, module: Callable[..., nn.Module] = DiscreteQFunction, **options: Any
) -> nn.Module:
    """The Q-function, obs [..., *obs_shape] -> [..., A], of the sizes in `config`; `options` are the module's own.

    Raises:
        InputError: the observations are images too small for its convolutions.
    """
    check_network(config.network, spec.obs_shape)
    check_channels(config.channels if config.hidden_sizes and config.network is None else (), spec)
    return module(num_actions(spec), make_layers(config), config.channels, len(spec.obs_shape), **options)


def init(policy: Boltzmann, params: Any) -> PolicyState:
    """The state before learning."""
    config = policy.config
    log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
    return PolicyState(
        params=params,
        reference_params=params if config.reference == AVERAGE else None,
        log_temperature=log_temperature,
        temperature_opt_state=optax.adam(config.temperature_learning_rate).init(log_temperature),
        obs_statistics=normalisation.init(policy.spec.obs_shape) if config.normalise_obs else None,
        num_updates=jnp.zeros((), jnp.int32),
    )


def temperature(policy: Boltzmann, state: PolicyState) -> jax.Array:
    """τ now: fixed, adapted, or on its schedule; []."""
    config = policy.config
    if config.final_temperature is None:
        return jnp.exp(state.log_temperature)
    return jnp.exp(schedule(policy, state, jnp.log(config.temperature), jnp.log(config.final_temperature)))


def exploration(policy: Boltzmann, state: PolicyState) -> jax.Array:
    """ε now; []."""
    first = jnp.asarray(policy.config.exploration, jnp.float32)
    last = policy.config.final_exploration
    return first if last is None else schedule(policy, state, first, last)


def schedule(policy: Boltzmann, state: PolicyState, first: Any, last: Any) -> jax.Array:
    """Linear from `first` to `last` over the share `decay_fraction` of all updates, constant afterwards; []."""
    span = policy.config.decay_fraction * policy.num_updates
    share = jnp.clip(state.num_updates / jnp.maximum(span, 1), 0, 1)
    return first + share * (last - first)


def reference_log_probs(policy: Boltzmann, state: PolicyState, obs: jax.Array) -> jax.Array:
    """Log π0 of observations [..., *obs_shape], [..., A] or what broadcasts to it."""
    log_probs, dtype = policy.fixed_reference(obs), state.log_temperature.dtype
    # A NumPy array stays one: as a constant of the program it makes the soft value cheaper.
    log_probs = log_probs.astype(dtype) if isinstance(log_probs, np.ndarray) else jnp.asarray(log_probs, dtype)
    if state.reference_params is None:
        return log_probs
    average = policy.q_values(state.reference_params, normalisation.features(state, obs))
    return jax.lax.stop_gradient(boltzmann_log_probs(average, log_probs, temperature(policy, state)))


def policy_log_probs(policy: Boltzmann, state: PolicyState, obs: jax.Array) -> jax.Array:
    """Log π of observations [..., *obs_shape] -> [..., A]."""
    q = policy.q_values(state.params, normalisation.features(state, obs))
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
        rho = reference_log_probs(policy, state, obs)
        if config.exploration_policy == "uniform":
            rho = jnp.full((num_actions(policy.spec),), -jnp.log(num_actions(policy.spec)))
        distribution = mix(distribution, Categorical(rho), exploration(policy, state))
    return distribution.sample(key)


def adapt_temperature(
    policy: Boltzmann, state: PolicyState, log_probs: jax.Array, divergence: jax.Array
) -> PolicyState:
    """One step of Adam on J(log τ), where a target is set; otherwise nothing changes.

    Args:
        policy: with the targets.
        state: with the present τ.
        log_probs: [..., A], log π of observations at which the agent acted. (Nobody acts after a terminal: Q is not
            learned there.)
        divergence: [...], KL[π ‖ π0] of the same observations.
    """
    config = policy.config
    if config.target_entropy is not None:
        surplus = jnp.mean(entropy(log_probs)) - config.target_entropy
    elif config.target_kl is not None:
        surplus = config.target_kl - jnp.mean(divergence)
    else:
        return state
    gradient = jnp.exp(state.log_temperature) * surplus
    adam = optax.adam(config.temperature_learning_rate)
    updates, opt_state = adam.update(gradient, state.temperature_opt_state)
    log_temperature: Any = optax.apply_updates(state.log_temperature, updates)
    return replace(state, log_temperature=log_temperature, temperature_opt_state=opt_state)


def finish_update(policy: Boltzmann, state: PolicyState, params: Any) -> PolicyState:
    """The state with an update's new parameters; their average moves, the update is counted."""
    average = state.reference_params
    if average is not None:
        average = polyak_average(average, params, policy.config.reference_polyak)
    return replace(state, params=params, reference_params=average, num_updates=state.num_updates + 1)
