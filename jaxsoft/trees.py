"""Trees of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax


def map_leaves(function: Callable[..., Any], prefix: Any, *trees: Any) -> Any:
    """`function(x, *leaves)` of each leaf of one or more trees; `x` is what a tree prefix has for it, perhaps None."""

    def over_part(x: Any, *parts: Any) -> Any:
        return jax.tree.map(lambda *leaves: function(x, *leaves), *parts)

    return jax.tree.map(over_part, prefix, *trees, is_leaf=lambda x: x is None)


def bytes_of(tree: Any) -> int:
    """Size of a tree of arrays, or of what describes them."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
