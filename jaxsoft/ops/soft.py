"""Operators of the maximum-entropy objective."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def temperature_loss(log_temperature: jax.Array, log_prob: jax.Array, target_entropy: float | jax.Array) -> jax.Array:
    """The loss whose descent holds a policy's entropy at a target (dual ascent on the temperature).

        J(τ) = −τ (log π(a|s) + H̄),    τ = exp(log_temperature)

    Args:
        log_temperature: [], log τ; the gradient goes to it alone.
        log_prob: [], log π(a|s) of an action drawn from the policy.
        target_entropy: H̄, in nats.

    Returns:
        [], the loss.

    Source: Haarnoja et al. 2018b, arXiv:1812.05905, equation 18.
    """
    chex.assert_rank([log_temperature, log_prob], 0)
    return -jnp.exp(log_temperature) * jax.lax.stop_gradient(log_prob + target_entropy)
