"""The temperature of a Boltzmann agent: fixed, scheduled, or adapted to a target entropy or divergence.

    fixed       τ
    scheduled   τ_k = τ_0 (τ_1/τ_0)^(k/K) for the first K updates, then τ_1
    adapted     J(log τ) = τ (H[π] − H̄), or τ (D̄ − KL[π ‖ π0]), descended with Adam: the entropy falls to H̄, or the
                divergence to D̄, whatever the size of the rewards

Which of them is said by the settings: `final_temperature`, `target_entropy`, `target_kl`; at most one is not None.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxsoft.errors import InputError
from jaxsoft.ops import entropy


class Settings(Protocol):
    """The settings that say how the temperature goes."""

    @property
    def temperature(self) -> float | jax.Array:
        """τ, or τ_0, or where the adaptation begins."""
        ...

    @property
    def final_temperature(self) -> float | None:
        """τ_1 of the schedule."""
        ...

    @property
    def target_entropy(self) -> float | None:
        """H̄ in nats."""
        ...

    @property
    def target_kl(self) -> float | None:
        """D̄ in nats."""
        ...

    @property
    def temperature_learning_rate(self) -> float:
        """Adam's step size for log τ."""
        ...

    @property
    def decay_fraction(self) -> float:
        """K as a share of all updates."""
        ...


def check_settings(settings: Settings) -> None:
    """Refuses two ways at once.

    Raises:
        InputError: names them.
    """
    names = ("final_temperature", "target_entropy", "target_kl")
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are both given; the temperature can follow only one of them")


def decayed(first: Any, last: Any, num_done: jax.Array, num_in_all: float | jax.Array) -> jax.Array:
    """Linear from `first` to `last` over the first `num_in_all` of anything, constant afterwards; []."""
    share = jnp.clip(num_done / jnp.maximum(num_in_all, 1), 0, 1)
    return first + share * (last - first)


def present_temperature(
    settings: Settings, log_temperature: jax.Array, num_done: jax.Array, num_updates: int
) -> jax.Array:
    """τ after `num_done` of all `num_updates` updates; []."""
    if settings.final_temperature is None:
        return jnp.exp(log_temperature)
    span = settings.decay_fraction * num_updates
    return jnp.exp(decayed(jnp.log(settings.temperature), jnp.log(settings.final_temperature), num_done, span))


def adapt_temperature(
    settings: Settings,
    log_temperature: jax.Array,
    opt_state: optax.OptState,
    log_probs: jax.Array,
    divergence: jax.Array,
) -> tuple[jax.Array, optax.OptState]:
    """One step on J where a target is set; otherwise nothing changes.

    Args:
        settings: the targets and the step size.
        log_temperature: [], log τ.
        opt_state: Adam's, of `temperature_optimiser`.
        log_probs: [..., A], log π in some states.
        divergence: [...], KL[π ‖ π0] there.
    """
    if settings.target_entropy is not None:
        surplus = jnp.mean(entropy(log_probs)) - settings.target_entropy
    elif settings.target_kl is not None:
        surplus = settings.target_kl - jnp.mean(divergence)
    else:
        return log_temperature, opt_state
    gradient = jnp.exp(log_temperature) * surplus
    updates, opt_state = temperature_optimiser(settings).update(gradient, opt_state)
    return optax.apply_updates(log_temperature, updates), opt_state  # type: ignore[return-value]


def temperature_optimiser(settings: Settings) -> optax.GradientTransformation:
    """Adam on log τ."""
    return optax.adam(settings.temperature_learning_rate)
