"""What the streaming agents share: one environment, a trace that episodes restart, and a bounded step size.

After every step, for each function that is learned, from its gradient g and the step's TD error δ:

    e ← γ λ c e + g                                           c = 0 where the step begins an episode
    w ← w + α' δ e,    α' = α / max(1, α κ max(|δ|, 1) ‖e‖₁)

The bound on α' keeps an update from overshooting its own target; κ = 0 switches it off.

Source: Elsayed et al. 2024, "Streaming deep reinforcement learning finally works", arXiv:2410.14606, algorithm 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, decay_trace
from jaxsoft.trees import join_floats
from jaxsoft.types import Rollouts


class Decay(NamedTuple):
    """What fades a trace by one step.

    Attributes:
        discount: γ.
        lambda_: λ, between 0 and 1.
        coefficient: [], c; 0 starts a new trace.
    """

    discount: float | jax.Array
    lambda_: float | jax.Array
    coefficient: float | jax.Array


class StepSize(NamedTuple):
    """The largest step size and its bound.

    Attributes:
        learning_rate: α.
        overshoot_bound: κ; 0: no bound.
    """

    learning_rate: float | jax.Array
    overshoot_bound: float | jax.Array


def experience(config: Any) -> Rollouts:
    """Rollouts of one step: `AgentKind.experience` of the streaming agents."""
    return Rollouts(1)


def bounded_step_size(size: StepSize, td_error: jax.Array, trace: Any) -> jax.Array:
    """α' = α / max(1, α κ max(|δ|, 1) ‖e‖₁); []."""
    length = jnp.sum(jnp.abs(join_floats(trace)))
    overshoot = size.learning_rate * size.overshoot_bound * jnp.maximum(jnp.abs(td_error), 1) * length
    return size.learning_rate / jnp.maximum(1, overshoot)


def step(
    params: Any, trace: Any, gradient: Any, td_error: jax.Array, decay: Decay, size: StepSize
) -> tuple[Any, Any, jax.Array]:
    """One update; returns the new parameters, the new trace and α'; see the module's equations."""
    trace = accumulate_trace(decay_trace(trace, *decay), gradient)
    step_size = bounded_step_size(size, td_error, trace)
    return jax.tree.map(lambda w, e: w + step_size * td_error * e, params, trace), trace, step_size


def check(agent: str, config: Any, num_envs: int) -> None:
    """Refuses several environments.

    Raises:
        InputError: there are more than one.
    """
    if num_envs != 1:
        raise InputError(f"num_envs is {num_envs}; it must be 1: {agent} learns from every step as it comes")
