"""Policies that act while another is learned: pytrees whose leaves may be traced, so that a `vmap` can map over them.

Each has `log_probs(q, reference_log_probs, temperature, state) -> [A]`: the log-probabilities of the actions in a state
with these present values [A] and this log π0 [A], while the target policy is learned at this temperature.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError, require
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.tabular.checks import check_policy


class Behaviour(Protocol):
    """A behaviour policy, see the module."""

    def log_probs(
        self, q: jax.Array, reference_log_probs: jax.Array, temperature: jax.Array, state: jax.Array, /
    ) -> jax.Array:
        """[A], [A], [], [] -> [A]."""
        ...


@struct.dataclass
class Uniform:
    """Every action alike."""

    def log_probs(self, q: jax.Array, *_: jax.Array) -> jax.Array:
        return jnp.full_like(q, -np.log(q.shape[-1]))


@struct.dataclass
class OnPolicy:
    """The target policy itself: Boltzmann at the learner's own temperature."""

    def log_probs(
        self, q: jax.Array, reference_log_probs: jax.Array, temperature: jax.Array, *_: jax.Array
    ) -> jax.Array:
        return boltzmann_log_probs(q, reference_log_probs, temperature)


@struct.dataclass
class BoltzmannBehaviour:
    """The Boltzmann policy of the present Q at another temperature; a high one is nearly the reference.

    Attributes:
        temperature: [], > 0.
    """

    temperature: float | jax.Array

    def log_probs(self, q: jax.Array, reference_log_probs: jax.Array, *_: jax.Array) -> jax.Array:
        return boltzmann_log_probs(q, reference_log_probs, self.temperature)


@struct.dataclass
class EpsilonGreedy:
    """The best action, or any with probability ε; equally good ones share.

    Attributes:
        epsilon: [], between 0 and 1.
    """

    epsilon: float | jax.Array

    def log_probs(self, q: jax.Array, *_: jax.Array) -> jax.Array:
        best = q == jnp.max(q)
        return jnp.log((1 - self.epsilon) * best / jnp.sum(best) + self.epsilon / q.shape[-1])


@struct.dataclass
class Fixed:
    """A given policy.

    Attributes:
        probs: [S, A], probabilities.
    """

    probs: jax.Array

    def log_probs(
        self, q: jax.Array, reference_log_probs: jax.Array, temperature: jax.Array, state: jax.Array
    ) -> jax.Array:
        return jnp.log(jnp.asarray(self.probs, q.dtype)[state])


def check_behaviour(mdp: FiniteMDP, behaviour: Any) -> None:
    """Checks a behaviour's numbers.

    Raises:
        InputError: ε outside [0, 1], a temperature that is not positive, or probabilities that are none.
    """
    if not hasattr(behaviour, "log_probs"):
        known = "Uniform(), OnPolicy(), BoltzmannBehaviour(temperature), EpsilonGreedy(epsilon) or Fixed(probs)"
        raise InputError(f"behaviour is {behaviour!r}; it must be {known}")
    if isinstance(behaviour, BoltzmannBehaviour):
        require("behaviour.temperature", behaviour.temperature, lambda x: (x > 0) & np.isfinite(x), "a positive number")
    if isinstance(behaviour, EpsilonGreedy):
        require("behaviour.epsilon", behaviour.epsilon, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    if isinstance(behaviour, Fixed):
        check_policy(mdp, behaviour.probs)
