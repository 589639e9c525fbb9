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
    return jnp.concatenate([x.ravel() for x in leaves])


def bytes_of(tree: Any) -> int:
    """Size of a tree of arrays, or of what describes them."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
