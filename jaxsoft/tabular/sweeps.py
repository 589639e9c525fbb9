"""Sweeps, updates of V in every state of a finite MDP, until V is still.

Histories have a fixed length; entries that were not needed are NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP

_ROUNDING = 4
"""Units in the last place of the largest value by which two sweeps may differ for ever."""

_PATIENCE = 200
"""Sweeps without progress after which such a difference counts as rounding."""


@struct.dataclass
class SweepHistory:
    """Residuals of the sweeps.

    Attributes:
        residuals: [num_recorded], the largest change of V in each sweep; shrinks by γ or faster (Lemma 1).
        num_sweeps: [], int32.
    """

    residuals: jax.Array
    num_sweeps: jax.Array


def bellman_backup(mdp: FiniteMDP, v: jax.Array) -> jax.Array:
    """Action values one step before these state values V [S].

        Q(s,a) = Σ_k p(k|s,a) [ r(s,a,k) + γ (1 − terminated(s,a,k)) V(s_k) ]

    Q is [S, A].
    """
    discounts = jnp.where(mdp.terminated, 0, mdp.discount)
    return jnp.sum(mdp.transition_probs * (mdp.rewards + discounts * v[mdp.next_states]), axis=-1)


def discounted_probs(mdp: FiniteMDP) -> jax.Array:
    """[S, A, K], γ p(k|s,a) where the task goes on."""
    return jnp.where(mdp.terminated, 0, mdp.discount * mdp.transition_probs)


def attainable_tolerance(tolerance: float | jax.Array, values: jax.Array) -> jax.Array:
    """The tolerance, or what rounding leaves of values as large as these."""
    return jnp.maximum(tolerance, _ROUNDING * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values)))


def repeat_sweeps(
    update: Callable[[jax.Array], jax.Array],
    v: jax.Array,
    tolerance: float | jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> tuple[jax.Array, SweepHistory]:
    """Repeats V ← update(V) until V is still."""

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        v, _, num_sweeps, residual, _, num_stalled = state
        # A slow contraction moves by single units in the last place for long, and stands still only after that.
        stuck = (num_stalled >= _PATIENCE) & (residual <= attainable_tolerance(tolerance, v))
        return (residual > tolerance) & ~stuck & (num_sweeps < max_sweeps)

    def sweep(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        v, residuals, num_sweeps, _, least, num_stalled = state
        new_v = update(v)
        residual = jnp.max(jnp.abs(new_v - v))
        residuals = residuals.at[num_sweeps].set(residual, mode="drop")
        num_stalled = jnp.where(residual < least, 0, num_stalled + 1)
        return new_v, residuals, num_sweeps + 1, residual, jnp.minimum(residual, least), num_stalled

    infinity = jnp.asarray(jnp.inf, v.dtype)
    first = (v, jnp.full(num_recorded, jnp.nan, v.dtype), jnp.int32(0), infinity, infinity, jnp.int32(0))
    v, residuals, num_sweeps, *_ = jax.lax.while_loop(unfinished, sweep, first)
    return v, SweepHistory(residuals, num_sweeps)
