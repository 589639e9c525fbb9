"""Reference policies π0 of agents with discrete actions.

    uniform     π0(a|s) = 1/|A|
    logits      π0(a|s) ∝ exp(logits_a), the same in every state
    function    any function of the observation, for example an earlier run's policy (`jaxsoft.load_reference`)
    average     the Boltzmann policy of an exponential average of the agent's own parameters

The first three are fixed; the last is learned with the agent. Observations are the environment's, not normalised.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxsoft.errors import InputError

Reference = str | Callable[[jax.Array], jax.Array]
"""The setting: `uniform`, `average`, logits as in `0,0,1`, or a function [..., *obs_shape] -> [..., A], or [A]."""

AVERAGE = "average"


def is_built_in(reference: str) -> bool:
    """Whether a reference is a word or logits, and not the directory of a run."""
    if reference in ("uniform", AVERAGE):
        return True
    try:
        return bool([float(logit) for logit in reference.split(",")])
    except ValueError:
        return False


def make_reference(reference: Reference, num_actions: int) -> Callable[[jax.Array], jax.Array]:
    """A fixed reference as a function of observations: [..., *obs_shape] -> log π0, [..., A] or [A].

    For `average` it is the uniform policy, which is the reference of the average itself.

    Raises:
        InputError: there is no such reference, or the logits do not fit the actions.
    """
    if callable(reference):
        return reference
    logits = _logits(reference, num_actions)
    if not np.isfinite(logits).any() or np.isnan(logits).any() or (logits == np.inf).any():
        raise InputError(f"reference is {reference!r}; logits must be numbers, at least one of them finite")
    log_probs = (logits - np.logaddexp.reduce(logits)).astype(np.float32)  # no array of JAX: a constant of the program
    return lambda obs: log_probs


def _logits(reference: str, num_actions: int) -> np.ndarray:
    if reference in ("uniform", AVERAGE):
        return np.zeros(num_actions)
    if not is_built_in(reference):
        raise InputError(
            f"reference is {reference!r}; it must be uniform, average, {num_actions} comma-separated logits, or in "
            "Python a function (of an earlier run: `jaxsoft.load_reference`)"
        )
    logits = np.array([float(logit) for logit in reference.split(",")])
    if len(logits) != num_actions:
        raise InputError(f"reference has {len(logits)} logits, {reference!r}; there are {num_actions} actions")
    return logits
