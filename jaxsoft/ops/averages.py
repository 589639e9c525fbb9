"""Averages that float32 can hold over a billion terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

Tree = TypeVar("Tree")


@struct.dataclass
class Sum:
    """A sum of more terms than its dtype has digits for: value + rest.

    A plain float32 sum of 10⁸ times 0.1 is off by 79 %, since every term is rounded to the digits of the sum; a running
    mean stands still once 1/n is below its last digit. Here the rounding errors are kept, and added later.

    Attributes:
        value: [...], the sum to the last digit.
        rest: [...], the rounding error of `value`.
    """

    value: jax.Array
    rest: jax.Array


def no_sum(shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Sum:
    """The sum of nothing."""
    return Sum(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def add(total: Sum, x: jax.Array) -> Sum:
    """Adds a term [...].

        s = fl(value + x),    e = value + x − s exactly, as (value − (s − (s − value))) + (x − (s − value))
        value = fl(s + (e + rest)),    rest = (s − value) + (e + rest)

    A sum that has met NaN or infinity is never finite again.

    Source: Knuth 1969, "The art of computer programming", volume 2, section 4.2.2; Dekker 1971, "A floating-point
    technique for extending the available precision".
    """
    x = x.astype(total.value.dtype)
    rounded = total.value + x
    added = rounded - total.value
    rest = (total.value - (rounded - added)) + (x - added) + total.rest
    value = rounded + rest
    return Sum(value, (rounded - value) + rest)


def polyak_average(slow: Tree, fast: Tree, polyak: float | jax.Array) -> Tree:
    """Moves a slow copy of parameters towards the fast ones.

        θ̄ ← θ̄ + (1 − polyak) (θ − θ̄)

    This is polyak θ̄ + (1 − polyak) θ, and exact where both are equal. A traced polyak near 1 is coarse: float32 cannot
    tell 0.9999999 from 0.99999988. Steps below half a unit in the last place of a parameter are lost in any case.
    """
    step = 1 - polyak

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(step == 1, new, old + step * (new - old))  # old + (new − old) may be far from new

    return jax.tree.map(move, slow, fast)


def clamp(x: jax.Array, low: float | jax.Array, high: float | jax.Array) -> jax.Array:
    """`jnp.clip` with the gradient 1 within the bounds and 0 beyond; see `least`."""
    return jax.lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


def least(q: jax.Array | Sequence[jax.Array]) -> jax.Array:
    """The minimum over the leading axis, [N, ...] -> [...], whose gradient goes to exactly one entry.

    The gradient of `jnp.min` goes to all entries that equal the minimum. In a fused program the minimum may be rounded
    differently from the entries, so that none is equal and the gradient is 0 (github.com/jax-ml/jax, issue 40564). Of
    equal entries the first counts. NaN is the least of all.
    """
    return reduce(lambda lowest, other: jnp.where((other < lowest) | jnp.isnan(other), other, lowest), q)
