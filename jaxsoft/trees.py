"""Trees of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_leaves(function: Callable[..., Any], prefix: Any, *trees: Any) -> Any:
    """`function(x, *leaves)` of each leaf of one or more trees; `x` is what a tree prefix has for it, perhaps None."""

    def over_part(x: Any, *parts: Any) -> Any:
        return jax.tree.map(lambda *leaves: function(x, *leaves), *parts)

    return jax.tree.map(over_part, prefix, *trees, is_leaf=lambda x: x is None)


def join_floats(tree: Any) -> jax.Array:
    """All floating-point numbers of a tree in a row, [n]: what is computed of them is one kernel, not one per leaf."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.concatenate([x.ravel() for x in leaves]) if leaves else jnp.zeros((0,))


def bytes_of(tree: Any) -> int:
    """Size of a tree of arrays, or of what describes them."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@jax.custom_jvp
def batch_like(x: jax.Array, tree: Any) -> Any:
    """The same tree, all its leaves batched under a vmap that batches x.

    Of a loop whose carry begins with constants JAX would batch the body anew for each guess of what becomes batched:
    six times, where there is a loop in a loop.
    """
    return _batch_like(x, tree)


@batch_like.defjvp
def _batch_like_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return batch_like(*primals), tangents[1]


@jax.custom_batching.custom_vmap
def _batch_like(x: jax.Array, tree: Any) -> Any:
    return tree


@_batch_like.def_vmap
def _batch_all(size: int, batched: list[Any], x: jax.Array, tree: Any) -> tuple[Any, Any]:
    def batch(is_batched: bool, x: Any) -> Any:
        return x if is_batched else jnp.broadcast_to(x, (size, *jnp.shape(x)))

    x, tree = batch(batched[0], x), jax.tree.map(batch, batched[1], tree)
    return _batch_like(x, tree), jax.tree.map(lambda _: True, batched[1])
