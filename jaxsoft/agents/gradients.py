"""Gradient steps, which every agent but the streaming one takes with an optimiser of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxsoft.trees import join_floats

Params = TypeVar("Params")


def descend(
    optimiser: optax.GradientTransformation,
    loss: Callable[..., tuple[jax.Array, Any]],
    params: Params,
    opt_state: optax.OptState,
    *inputs: Any,
) -> tuple[Params, optax.OptState, Any]:
    """One step on `loss(params, *inputs) -> (loss, other)`; returns new parameters, new moments, and `other`."""
    grads, other = jax.grad(loss, has_aux=True)(params, *inputs)
    updates, opt_state = optimiser.update(grads, opt_state, params)  # type: ignore[arg-type]
    return optax.apply_updates(params, updates), opt_state, other  # type: ignore[type-var]


def clip_by_norm(max_norm: float | jax.Array) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, whose norm is one kernel for all parameters.

    g ← g min(1, max_norm / ‖g‖₂)
    """

    def clip(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = jnp.sqrt(jnp.sum(jnp.square(join_floats(updates))))
        factor = jnp.where(norm < max_norm, 1, max_norm / norm)
        return jax.tree.map(lambda g: (g * factor).astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), clip)
