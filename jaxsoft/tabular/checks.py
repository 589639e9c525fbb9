"""Checks of the tabular algorithms' arguments, before anything is compiled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsoft.envs.mdp import FiniteMDP, check_rows, check_shape
from jaxsoft.errors import InputError, require

MOST_ITERATIONS = 10_000_000
"""The history of every iteration is kept."""


def check_objective(
    mdp: FiniteMDP, temperature: float | jax.Array, reference_log_probs: Any
) -> tuple[jax.Array, jax.Array]:
    """The temperature and the reference as arrays in the process's dtype; a reference of None is uniform.

    Raises:
        InputError: the temperature is not a positive number, or the reference forbids every action of a state, is
            NaN or plus infinity somewhere, or has another shape than [S, A].
    """
    dtype, shape = mdp.rewards.dtype, (mdp.num_states, mdp.num_actions)
    if reference_log_probs is None:
        reference_log_probs = jnp.full(shape, -jnp.log(mdp.num_actions), dtype)
    check_table("reference_log_probs", reference_log_probs, shape)
    return check_reference(temperature, reference_log_probs, dtype)


def check_reference(
    temperature: float | jax.Array, reference_log_probs: Any, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """The temperature and the reference [S, A] as arrays of this dtype; errors are those of `check_objective`."""
    require("temperature", temperature, lambda x: (x > 0) & np.isfinite(x), "a positive number")
    check_shape("reference_log_probs", reference_log_probs, lambda s: len(s) == 2, "[S, A], states by actions")
    require("reference_log_probs", reference_log_probs, lambda x: x < np.inf, "a finite number or minus infinity")
    if not isinstance(reference_log_probs, Tracer):
        forbidding = np.flatnonzero(np.all(np.isneginf(np.asarray(reference_log_probs)), axis=-1))
        if len(forbidding):
            at = f"reference_log_probs[{forbidding[0]}]"
            raise InputError(f"{at} is minus infinity throughout; it must allow an action in every state")
    return jnp.asarray(temperature, dtype), jnp.asarray(reference_log_probs, dtype)


def check_policy(mdp: FiniteMDP, policy: Any) -> jax.Array:
    """A policy's probabilities [S, A] as an array in the process's dtype.

    Raises:
        InputError: another shape, a negative probability or a row that does not sum to 1.
    """
    check_table("policy", policy, (mdp.num_states, mdp.num_actions))
    check_rows("policy", policy)
    return jnp.asarray(policy, mdp.rewards.dtype)


def check_table(name: str, table: Any, shape: tuple[int, ...]) -> None:
    """Raises an `InputError` unless a table [S, A] has this shape."""
    check_shape(name, table, lambda found: found == shape, f"{list(shape)}, states by actions")


def check_iteration(tolerance: float | jax.Array, **sizes: int) -> None:
    """Checks a tolerance and, by name, numbers of iterations.

    Raises:
        InputError: the tolerance is negative, or a number is less than 1 or above `MOST_ITERATIONS`.
    """
    require("tolerance", tolerance, lambda x: (x >= 0) & np.isfinite(x), "0 or a positive number")
    for name, size in sizes.items():
        allowed = f"a positive integer, {MOST_ITERATIONS:,} at most"
        require(name, size, lambda x: (x >= 1) & (x <= MOST_ITERATIONS), allowed)
