"""Gradient steps, which every agent but the streaming one takes with an optimiser of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import optax

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
