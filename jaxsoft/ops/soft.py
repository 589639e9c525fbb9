"""Operators of the maximum-entropy objective, relative to a reference policy π0.

    objective    E Σ_t γ^t (r_t − τ KL[π(·|s_t) ‖ π0(·|s_t)])

`reference_log_probs` is log π0. Zeros stand for the counting measure, which is no distribution: they give the
maximum-entropy convention, V = τ log Σ exp(Q/τ) and a penalty of minus the entropy. Minus infinity forbids an action.
A NumPy array is a constant of the program, which is smaller for it.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError, nearest, require
from jaxsoft.ops.reductions import max_last, sum_last, take_last


def soft_value(q: jax.Array, reference_log_probs: jax.Array | np.ndarray, temperature: float | jax.Array) -> jax.Array:
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
    highest, _, _, log_mean, log_mass = _parts(q, reference_log_probs, temperature)
    return highest[..., 0] + temperature * (log_mean + log_mass)[..., 0]


def boltzmann_log_probs(
    q: jax.Array, reference_log_probs: jax.Array | np.ndarray, temperature: float | jax.Array
) -> jax.Array:
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
    _, log_prior, log_ratio, _, _ = _parts(q, reference_log_probs, temperature)
    return log_prior + log_ratio


def boltzmann_policy(
    q: jax.Array, reference_log_probs: jax.Array | np.ndarray, temperature: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`boltzmann_log_probs`, and the policy's divergence from the reference, both from one log-sum-exp.

    The divergence is that of `kl_divergence`, from a log-ratio that has not been rounded to the digits of log π, and
    has no gradient.

    Returns:
        log π_Q, [..., A], and KL[π_Q ‖ π0], [...], in nats.
    """
    _, log_prior, log_ratio, _, log_mass = _parts(q, reference_log_probs, temperature)
    log_probs = log_prior + log_ratio
    terms = _second_order(log_probs, log_prior, log_ratio)
    return log_probs, sum_last(terms) - log_mass[..., 0]


def kl_divergence(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """Divergence of a policy from the reference; for the counting measure, minus the policy's entropy.

        KL[π ‖ π0] = Σ_a π(a) (log π(a) − log π0(a)),    0 log 0 = 0

    Args:
        log_probs: [..., A], log π.
        reference_log_probs: [..., A] or any shape that broadcasts to it, log π0.

    Returns:
        [...], in nats; infinite where π takes an action that π0 forbids.
    """
    reference_log_probs = jnp.broadcast_to(reference_log_probs, log_probs.shape)
    taken = log_probs > -jnp.inf
    log_ratio = _log_ratio(log_probs, reference_log_probs)
    divergence = sum_last(jnp.where(taken, jnp.exp(log_probs) * log_ratio, 0))
    # Between distributions the rounding of each log-ratio enters to first order, though what is left of their sum is of
    # second order: the sum of terms that are of second order themselves replaces its value.
    exact = sum_last(_second_order(log_probs, reference_log_probs, log_ratio))
    mass, reference_mass = (sum_last(jnp.exp(x)) for x in (log_probs, reference_log_probs))
    are_distributions = _is_rounding(mass - 1) & _is_rounding(reference_mass - 1)
    correction = jnp.where(are_distributions & jnp.isfinite(divergence), exact - divergence, 0)
    return divergence + jax.lax.stop_gradient(correction)


def entropy(log_probs: jax.Array) -> jax.Array:
    """Entropy −Σ_a π(a) log π(a) of a policy over discrete actions, 0 log 0 = 0; log π [..., A] -> [...], in nats."""
    return -sum_last(jnp.exp(log_probs) * jnp.where(log_probs > -jnp.inf, log_probs, 0))


def kl_penalty(name: str, log_probs: jax.Array, reference_log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """The penalty of a step: the divergence in its state, or the log-ratio of the action taken there.

        full       KL[π ‖ π0] = Σ_a π(a) (log π(a) − log π0(a))
        sampled    log π(a_t) − log π0(a_t)

    Under π the sampled penalty is the full one on average. Which of them gives an n-step return the smaller variance
    depends on Q. Near Q* it is the sampled one, since Q(s, a) − τ log π_Q(a|s)/π0(a|s) = V_Q(s) for every action. Far
    from Q*, where the differences between actions are mostly wrong, it is the full one.

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
    return take_last(log_ratio, action)


PENALTIES = ("full", "sampled")
"""Every penalty's name."""


def check_penalty(name: str) -> None:
    """Raises an `InputError`, which suggests the nearest, where no penalty has this name."""
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


def _second_order(log_probs: jax.Array, reference_log_probs: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Terms whose sum is the divergence of two distributions, π d + π0 − π with d = log π/π0; [..., A] each.

    Without gradient: for a very unlikely action it would be NaN.
    """
    log_probs, reference_log_probs, d = jax.lax.stop_gradient((log_probs, reference_log_probs, log_ratio))
    probs, reference = jnp.exp(log_probs), jnp.exp(reference_log_probs)
    terms = jnp.where(d > -1, probs * (d + jnp.expm1(-d)), probs * d + reference - probs)
    return jnp.where(log_probs > -jnp.inf, terms, reference)


def _parts(
    q: jax.Array, reference_log_probs: jax.Array | np.ndarray, temperature: float | jax.Array
) -> tuple[jax.Array, Any, jax.Array, jax.Array, Any]:
    """Terms of the value and the policy. M is the sum of π0, 1 if it is a distribution; p = π0/M.

        V = highest + τ (log_mean + log M),    log π = log p + log_ratio

    Returns:
        The highest allowed Q [..., 1]; log p; log π/p [..., A], of what is forbidden any finite number;
        log Σ_a p(a) exp((Q(a) − highest)/τ) [..., 1]; log M. Log p [..., A] and log M [..., 1] have axes of 1 where the
        reference has; of a NumPy array they are NumPy arrays.
    """
    chex.assert_rank(temperature, 0)
    require("temperature", temperature, lambda x: (x > 0) & np.isfinite(x), "a positive number")
    shape = (1,) * (q.ndim - np.ndim(reference_log_probs)) + np.shape(reference_log_probs)
    shape = (*shape[:-1], q.shape[-1])  # a reference that all states share is normalised once
    log_prior: Any
    log_mass: Any
    if isinstance(reference_log_probs, np.ndarray):
        log_prior, log_mass = _normalise_constant(reference_log_probs, shape)
    else:
        log_prior, log_mass = _normalise(reference_log_probs, shape)
    allowed = log_prior > -np.inf
    # Shifting Q before the division keeps its digits at small temperatures; the shift cancels, gradients included.
    highest = max_last(jax.lax.stop_gradient(jnp.where(allowed, q, -jnp.inf)), keepdims=True)
    excess = jnp.where(allowed, q - jnp.where(jnp.isfinite(highest), highest, 0), 0) / temperature
    log_mean = _log_mean_exp(log_prior, excess)
    return highest, log_prior, excess - log_mean, log_mean, log_mass


def _normalise(reference_log_probs: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Log π0/M of this shape [..., A], and log M [..., 1] without its rounding."""
    reference_log_probs = jnp.broadcast_to(reference_log_probs, shape)
    allowed = reference_log_probs > -jnp.inf
    largest = _finite_max(reference_log_probs)
    log_mass = largest + jnp.log(sum_last(jnp.exp(reference_log_probs - largest), keepdims=True))
    # If π0 is a distribution this is rounding, which the temperature would multiply in V.
    log_mass = log_mass - jax.lax.stop_gradient(jnp.where(_is_rounding(log_mass), log_mass, 0))
    log_prior = jnp.where(allowed, reference_log_probs, 0) - jnp.where(log_mass > -jnp.inf, log_mass, 0)
    return jnp.where(allowed, log_prior, -jnp.inf), log_mass


def _normalise_constant(reference_log_probs: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`_normalise` of a constant, in double precision, when the program is made; of the dtype that JAX gives it."""
    is_float = jnp.issubdtype(reference_log_probs.dtype, jnp.floating)
    dtype = jax.dtypes.canonicalize_dtype(reference_log_probs.dtype if is_float else float)
    exact = np.broadcast_to(reference_log_probs, shape).astype(np.float64)
    allowed = exact > -np.inf
    log_mass = np.logaddexp.reduce(exact, axis=-1, keepdims=True)
    log_prior = np.where(allowed, exact, 0) - np.where(log_mass > -np.inf, log_mass, 0)
    log_mass = np.where(abs(log_mass) < 32 * float(jnp.finfo(dtype).eps), 0, log_mass)
    return np.where(allowed, log_prior, -np.inf).astype(dtype), log_mass.astype(dtype)


def _log_mean_exp(log_probs: Any, excess: jax.Array) -> jax.Array:
    """Returns log Σ p exp(x) [..., 1] of x ≤ 0, of which it keeps the digits however small x is; [..., A] each.

        near    log(1 + Σ p (exp(x) − 1))              where most of p has an x near 0
        far     h + log Σ exp(log p + x − h)           elsewhere; h is the largest exponent

    `near` loses digits as the sum gets smaller, and it is at least the p of x = 0. So of constant p, none of which is
    below a quarter, it is taken everywhere.
    """
    if isinstance(log_probs, np.ndarray) and jnp.finfo(excess.dtype).eps < 1e-6:
        constant = np.exp(log_probs.astype(np.float64))
        if np.all((constant > 0.25 - 1e-6) | (constant == 0)):
            return jnp.log1p(sum_last(jnp.expm1(excess) * constant.astype(log_probs.dtype), keepdims=True))
    probs = jnp.exp(log_probs)
    is_near = sum_last(jnp.where(excess > -0.25, 0, probs), keepdims=True) < 0.35  # then the sum is above a half
    exponent = excess + log_probs
    highest = jnp.where(is_near, 0, _finite_max(exponent))
    terms = jnp.where(is_near, probs * jnp.expm1(excess), jnp.exp(exponent - highest))
    total = sum_last(terms, keepdims=True)
    return highest + jnp.log1p(jnp.where(is_near, total, total - 1))  # one logarithm for both


def _finite_max(x: jax.Array) -> jax.Array:
    """The maximum over the last axis [..., 1], without gradient; 0 where it is infinite."""
    highest = max_last(jax.lax.stop_gradient(x), keepdims=True)
    return jnp.where(jnp.isfinite(highest), highest, 0)


def _is_rounding(x: jax.Array) -> jax.Array:
    """Whether x is as near 0 as the rounding of an exact 0."""
    return abs(x) < 32 * jnp.finfo(x.dtype).eps
