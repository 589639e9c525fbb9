"""Operators of the maximum-entropy objective, relative to a reference policy π0.

    objective    E Σ_t γ^t (r_t − τ KL[π(·|s_t) ‖ π0(·|s_t)])

`reference_log_probs` is log π0. Zeros stand for the counting measure, which is no distribution: they give the
maximum-entropy convention, V = τ log Σ exp(Q/τ) and a penalty of minus the entropy. Minus infinity forbids an action.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError, nearest, require


def soft_value(q: jax.Array, reference_log_probs: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """The value of a state whose action is chosen by the Boltzmann policy.

        V_Q(s) = τ log Σ_a π0(a|s) exp(Q(s,a)/τ)

    τ → 0 gives the maximum over the actions that π0 allows, τ → ∞ the mean under π0. A forbidden action's Q has
    no effect, whatever it is, and no gradient.

    Args:
        q: [..., A], Q(s,·).
        reference_log_probs: [..., A] or any shape that broadcasts to it, log π0(·|s).
        temperature: [], τ > 0, in units of reward per nat.

    Returns:
        [...], V_Q(s); minus infinity where every action is forbidden.

    Raises:
        InputError: the temperature is not a positive number.

    Source: Haarnoja et al. 2017, arXiv:1702.08165; with a reference policy: Schulman et al. 2017, arXiv:1704.06440.
    """
    highest, logits = _logits(q, reference_log_probs, temperature)
    return highest[..., 0] + temperature * jax.nn.logsumexp(logits, axis=-1)


def boltzmann_log_probs(q: jax.Array, reference_log_probs: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Log-probabilities of the policy that is best for this Q at this temperature.

        log π_Q(a|s) = log π0(a|s) + (Q(s,a) − V_Q(s)) / τ

    τ → 0 gives the greedy policy (its ties are shared as π0 shares them), τ → ∞ gives π0.

    Args:
        q: [..., A], Q(s,·).
        reference_log_probs: [..., A] or any shape that broadcasts to it, log π0(·|s).
        temperature: [], τ > 0, in units of reward per nat.

    Returns:
        [..., A]; minus infinity exactly where π0 is zero.

    Raises:
        InputError: the temperature is not a positive number.

    Source: Schulman et al. 2017, arXiv:1704.06440.
    """
    _, logits = _logits(q, reference_log_probs, temperature)
    return logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def kl_divergence(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """Divergence of a policy from the reference; for the counting measure, minus the policy's entropy.

        KL[π ‖ π0] = Σ_a π(a) (log π(a) − log π0(a)),    0 log 0 = 0

    Args:
        log_probs: [..., A], log π.
        reference_log_probs: [..., A] or any shape that broadcasts to it, log π0.

    Returns:
        [...], in nats; infinite where π takes an action that π0 forbids.
    """
    taken = log_probs > -jnp.inf
    log_ratio = _log_ratio(log_probs, reference_log_probs)
    return jnp.sum(jnp.where(taken, jnp.exp(log_probs) * log_ratio, 0), axis=-1)


def kl_penalty(name: str, log_probs: jax.Array, reference_log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """What a step under a policy costs: the divergence of its state, or the log-ratio of the action taken there.

        full       KL[π ‖ π0] = Σ_a π(a) (log π(a) − log π0(a))
        sampled    log π(a_t) − log π0(a_t)

    Under π the sampled penalty is the full one on average. With which of them an n-step return varies less depends on
    Q. Near Q* it is the sampled one: it takes off what was good about the action, Q(s, a) − τ log π_Q(a|s)/π0(a|s) =
    V_Q(s). Far from Q*, where the differences between actions are mostly wrong, it is the full one.

    Args:
        name: `full` or `sampled`.
        log_probs: [..., A], log π.
        reference_log_probs: [..., A] or any shape that broadcasts to it, log π0.
        action: [...], int, a_t; the full penalty does not look at it.

    Returns:
        [...], in nats; sampled, 0 of an action that π never takes.

    Raises:
        InputError: there is no such penalty.

    Source: Schulman et al. 2017, arXiv:1704.06440.
    """
    check_penalty(name)
    if name == "full":
        return kl_divergence(log_probs, reference_log_probs)
    log_ratio = _log_ratio(log_probs, reference_log_probs)
    return jnp.take_along_axis(log_ratio, action[..., None], axis=-1)[..., 0]


PENALTIES = ("full", "sampled")
"""Every penalty's name."""


def check_penalty(name: str) -> None:
    """Checks a penalty's name.

    Raises:
        InputError: there is no such one; the nearest are suggested.
    """
    if name not in PENALTIES:
        raise InputError(f"unknown penalty {name!r}{nearest(name, PENALTIES)} (there are: {', '.join(PENALTIES)})")


def _log_ratio(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """Log π/π0 of every action [..., A], 0 of those that π never takes."""
    reference_log_probs = jnp.broadcast_to(reference_log_probs, log_probs.shape)
    taken = log_probs > -jnp.inf
    # Both are replaced before they are subtracted: a gradient through −inf − (−inf) would be NaN even if unused.
    return jnp.where(taken, log_probs, 0) - jnp.where(taken, reference_log_probs, 0)


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


def _logits(
    q: jax.Array, reference_log_probs: jax.Array, temperature: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The highest allowed Q [..., 1], and log π0 + (Q − highest)/τ [..., A], the policy's unnormalised log."""
    chex.assert_rank(temperature, 0)
    require("temperature", temperature, lambda x: (x > 0) & np.isfinite(x), "a positive number")
    reference_log_probs = jnp.broadcast_to(reference_log_probs, q.shape)
    allowed = reference_log_probs > -jnp.inf
    # Shifting Q before the division keeps its digits at small temperatures; the shift cancels, gradients included.
    shift = jax.lax.stop_gradient(jnp.max(q, axis=-1, keepdims=True, initial=-jnp.inf, where=allowed))
    shift = jnp.where(jnp.isfinite(shift), shift, 0)
    logits = jnp.where(allowed, reference_log_probs, 0) + jnp.where(allowed, q - shift, 0) / temperature
    return shift, jnp.where(allowed, logits, -jnp.inf)
