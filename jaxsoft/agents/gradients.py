"""Gradient steps, which every agent but the streaming one takes with an optimiser of optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxsoft.trees import join_floats

Params = TypeVar("Params")
MAX_SMALL = 512
"""Most numbers of a small array."""


def descend(
    optimiser: optax.GradientTransformation,
    loss: Callable[..., tuple[jax.Array, Any]],
    params: Params,
    opt_state: optax.OptState,
    *inputs: Any,
    packing: Packing | None = None,
) -> tuple[Params, optax.OptState, Any]:
    """One step on `loss(params, *inputs) -> (loss, other)`; returns new parameters, new moments, and `other`.

    With `packing` the parameters and moments are packed, given and returned; the loss takes their tree.
    """
    grads, other = jax.grad(loss, has_aux=True)(packing.split(params) if packing else params, *inputs)  # type: ignore[arg-type]
    grads = packing.join(grads) if packing else grads
    updates, opt_state = optimiser.update(grads, opt_state, params)  # type: ignore[arg-type]
    return optax.apply_updates(params, updates), opt_state, other  # type: ignore[type-var]


class Packed(NamedTuple):
    """A tree like the parameters.

    Attributes:
        small: [n], the numbers of all small arrays.
        large: the others, as they are.
    """

    small: jax.Array
    large: tuple[jax.Array, ...]


class Packing:
    """Trees like the parameters, their small arrays as one: a step is then one kernel of these, not one for each shape.

    Large arrays stay: to take them apart for products of matrices costs more than that.
    """

    def __init__(self, params: Any) -> None:
        leaves, self._structure = jax.tree.flatten(params)
        self._is_small = [x.size <= MAX_SMALL for x in leaves]
        self._split_small = ravel_pytree(self._of(leaves, is_small=True))[1]

    def _of(self, leaves: list[jax.Array], *, is_small: bool) -> list[jax.Array]:
        return [x for x, this in zip(leaves, self._is_small, strict=True) if this == is_small]

    def join(self, tree: Any) -> Packed:
        """Packs a tree."""
        leaves = jax.tree.leaves(tree)
        return Packed(ravel_pytree(self._of(leaves, is_small=True))[0], tuple(self._of(leaves, is_small=False)))

    def split(self, packed: Packed) -> Any:
        """The tree again."""
        small, large = iter(self._split_small(packed.small)), iter(packed.large)
        return jax.tree.unflatten(self._structure, [next(small if this else large) for this in self._is_small])

    def join_state(self, opt_state: optax.OptState) -> optax.OptState:
        """An optimiser's state with its moments packed."""

        def is_moment(x: Any) -> bool:
            return jax.tree.structure(x) == self._structure

        return jax.tree.map(lambda x: self.join(x) if is_moment(x) else x, opt_state, is_leaf=is_moment)

    def split_state(self, opt_state: optax.OptState) -> optax.OptState:
        """The state as it was."""

        def is_packed(x: Any) -> bool:
            return isinstance(x, Packed)

        return jax.tree.map(lambda x: self.split(x) if is_packed(x) else x, opt_state, is_leaf=is_packed)


def clip_by_norm(max_norm: float | jax.Array) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, whose norm is one kernel for all parameters.

    g ← g min(1, max_norm / ‖g‖₂)
    """

    def clip(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = jnp.sqrt(jnp.sum(jnp.square(join_floats(updates))))
        factor = jnp.where(norm < max_norm, 1, max_norm / norm)
        return jax.tree.map(lambda g: (g * factor).astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), clip)
