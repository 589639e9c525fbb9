"""How far a stream's step goes: rules for its size and direction, from the trace e of a step's gradients and its error.

Every rule takes the step's gradient g, its trace e and its TD error δ; α is `learning_rate`, t counts steps from 1:

    obgd            w ← w + α' δ e,       α' = α / max(1, α κ max(|δ|, 1) ‖e‖₁)

    intentional     v ← 0.999 v + 0.001 g²,                  s = √(v / (1 − 0.999^t)) + 1e-8
                    n ← (1 − β) n + β Σ g²/s,                β = (1 − γλ) / (1 − (γλ)^t), or 1/t if γλ = 1
                    m ← 0.9998 m + 0.0002 δ² from m = 1,     δ' = δ within ±20 √(m / (1 − 0.9998^t))
                    w ← w + α' δ' e/s,    α' = α / max(√(n Σ e²/s), 1e-8)

The bound of `obgd` keeps an update from overshooting its own target; κ = 0 switches it off. A step of `intentional` is
meant to correct the share α of the TD error: without a trace (λ = 0) it moves the value by α δ', to first order. Its
authors' code has 0.25 for MinAtar.

Source: Elsayed et al. 2024, "Streaming deep reinforcement learning finally works", arXiv:2410.14606, algorithm 3;
Sharifnassab et al. 2026, "Intentional updates for streaming reinforcement learning", arXiv:2604.19033, as in its
authors' code, sharifnassab/Intentional_RL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxsoft.trees import join_floats

StepSizeRule = Literal["obgd", "intentional"]


class StepSize(NamedTuple):
    """The largest step size, α, and its bound, κ; 0: no bound."""

    learning_rate: float | jax.Array
    overshoot_bound: float | jax.Array


class Step(NamedTuple):
    """The input of a rule.

    Attributes:
        gradient: g, like the parameters.
        trace: e, with g in it.
        td_error: [], δ.
        fading: γλ, between 0 and 1.
        number: [], t as a float.
    """

    gradient: Any
    trace: Any
    td_error: jax.Array
    fading: float | jax.Array
    number: jax.Array


class Move(NamedTuple):
    """Where the parameters go: w ← w + step_size · td_error · direction.

    Attributes:
        direction: like the parameters.
        td_error: [], δ or what is left of it.
        step_size: [], α'.
    """

    direction: Any
    td_error: jax.Array
    step_size: jax.Array


class Rule(NamedTuple):
    """A step-size rule.

    Attributes:
        init: `(params) -> memory`, its moving averages before the first step; none: an empty tuple.
        move: `(size, memory, step) -> (memory, move)`.
    """

    init: Callable[[Any], Any]
    move: Callable[[StepSize, Any, Step], tuple[Any, Move]]


def bounded_step_size(size: StepSize, td_error: jax.Array, trace: Any) -> jax.Array:
    """α' = α / max(1, α κ max(|δ|, 1) ‖e‖₁); []."""
    length = jnp.sum(jnp.abs(join_floats(trace)))
    overshoot = size.learning_rate * size.overshoot_bound * jnp.maximum(jnp.abs(td_error), 1) * length
    return size.learning_rate / jnp.maximum(1, overshoot)


def moving_average(decay: float | jax.Array, average: Any, x: Any) -> Any:
    """Decay · average + (1 − decay) · x, leaf by leaf."""
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, x)


def bounded_move(size: StepSize, td_error: jax.Array, trace: Any) -> Move:
    """The move of `obgd`: along the trace."""
    return Move(trace, td_error, bounded_step_size(size, td_error, trace))


class Moments(NamedTuple):
    """Moving averages of `intentional`.

    Attributes:
        gradients: v, like the parameters.
        energy: [], n: the average of Σ g²/s that fades as the trace does, without bias.
        errors: [], m.
    """

    gradients: Any
    energy: jax.Array
    errors: jax.Array


def _no_moments(params: Any) -> Moments:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return Moments(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), dtype), jnp.ones((), dtype))


def _intentional(size: StepSize, memory: Moments, step: Step) -> tuple[Moments, Move]:
    gradients = moving_average(0.999, memory.gradients, jax.tree.map(jnp.square, step.gradient))
    correction = 1 - 0.999**step.number
    scale = jax.tree.map(lambda v: jnp.sqrt(v / correction) + 1e-8, gradients)

    def length(tree: Any) -> jax.Array:
        return jnp.sum(join_floats(jax.tree.map(lambda x, s: jnp.square(x) / s, tree, scale)))

    fading = jnp.asarray(step.fading, memory.energy.dtype)
    share = jnp.where(fading < 1, (1 - fading) / (1 - jnp.where(fading < 1, fading, 0) ** step.number), 1 / step.number)
    energy = moving_average(1 - share, memory.energy, length(step.gradient))  # exact where share is 1
    errors = moving_average(0.9998, memory.errors, jnp.square(step.td_error))
    most = 20 * jnp.sqrt(errors / (1 - 0.9998**step.number))
    td_error = jnp.clip(step.td_error, -most, most)
    step_size = size.learning_rate / jnp.maximum(jnp.sqrt(energy * length(step.trace)), 1e-8)
    direction = jax.tree.map(jnp.divide, step.trace, scale)
    return Moments(gradients, energy, errors), Move(direction, td_error, step_size)


RULES: dict[str, Rule] = {
    "obgd": Rule(lambda params: (), lambda size, _, step: ((), bounded_move(size, step.td_error, step.trace))),
    "intentional": Rule(_no_moments, _intentional),
}
"""By the names of the setting `step_size_rule`."""
