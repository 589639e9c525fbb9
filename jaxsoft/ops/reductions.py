"""Reductions over the last axis, of discrete actions, in one kernel with what comes before and after them.

XLA makes a kernel of its own of every reduction. Over a few entries the same arithmetic, written out, is elementwise,
and becomes part of its neighbours' kernel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

MAX_ENTRIES = 8
"""Most entries that are written out."""


def _columns(x: jax.Array) -> list[jax.Array]:
    return [lax.index_in_dim(x, i, axis=-1, keepdims=False) for i in range(x.shape[-1])]


def _reduce(
    x: jax.Array, pair: Callable[[jax.Array, jax.Array], jax.Array], whole: Callable[..., jax.Array], keepdims: bool
) -> jax.Array:
    if not 0 < x.shape[-1] <= MAX_ENTRIES:
        return whole(x, axis=-1, keepdims=keepdims)
    reduced = reduce(pair, _columns(x))
    return reduced[..., None] if keepdims else reduced


def sum_last(x: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """`jnp.sum` over the last axis; [..., A] -> [...]."""
    return _reduce(x, operator.add, jnp.sum, keepdims)


def max_last(x: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """`jnp.max` over the last axis; [..., A] -> [...]."""
    return _reduce(x, jnp.maximum, jnp.max, keepdims)


def argmax_last(x: jax.Array) -> jax.Array:
    """`jnp.argmax` over the last axis, of equals the first, NaN above all; [..., A] -> [...], int32."""
    if not 0 < x.shape[-1] <= MAX_ENTRIES:
        return jnp.argmax(x, axis=-1).astype(jnp.int32)
    best, *others = _columns(x)
    index = jnp.zeros(best.shape, jnp.int32)
    for i, other in enumerate(others, start=1):
        is_better = (other > best) | (jnp.isnan(other) & ~jnp.isnan(best))
        best, index = jnp.where(is_better, other, best), jnp.where(is_better, i, index)
    return index


def take_last(x: jax.Array, index: jax.Array) -> jax.Array:
    """The entry at `index` of the last axis, which is valid; [..., A], [...] -> [...].

    Selects and no gather: a gather's gradient is a scatter, which is slow and not fused.
    """
    if x.shape[-1] > MAX_ENTRIES:
        return jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]
    first, *others = _columns(x)
    return reduce(lambda taken, entry: jnp.where(index == entry[0], entry[1], taken), enumerate(others, 1), first)


def log_softmax_last(x: jax.Array) -> jax.Array:
    """`jax.nn.log_softmax` over the last axis; [..., A] -> [..., A]."""
    shifted = x - max_last(lax.stop_gradient(x), keepdims=True)
    return shifted - jnp.log(sum_last(jnp.exp(shifted), keepdims=True))
