"""Rows of many fields as one array: a loop that writes a row writes one array in place of a dozen.

A field's numbers become words of 32 bits, bit by bit, so that unpacking gives back the same numbers. Fields that are
narrower than 32 bits, as images of bytes, stay as they are, unless a row has no more than a few of their entries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Carry = TypeVar("Carry")

MAX_WIDENED = 4
"""Most entries that a field of narrower numbers may have in a row to be packed with the others."""

MAX_CARRIED = 64
"""Most words of an environment that a loop carries as one array: packing writes all of them once more."""


SUB_BYTE = re.compile(r"u?int[124]$|float4")
"""Names of dtypes with less than a byte, though JAX says that it is one."""


def is_packed(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether a field of this shape in a row goes into the words."""
    if jnp.issubdtype(dtype, jax.dtypes.extended) or SUB_BYTE.match(jnp.dtype(dtype).name):
        return False
    return jnp.dtype(dtype).itemsize == 4 or (jnp.dtype(dtype).itemsize < 4 and math.prod(shape) <= MAX_WIDENED)


def pack(row: Any) -> tuple[jax.Array, list[jax.Array]]:
    """Packs the fields of a row, [num_envs, *shape] each: words [num_envs, width], uint32, and those not among them."""
    fields = jax.tree.leaves(row)
    packed = [x for x in fields if is_packed(x.shape[1:], x.dtype)]
    words = [_to_words(x).reshape(len(x), -1) for x in packed]
    others = [x for x in fields if not is_packed(x.shape[1:], x.dtype)]
    return jnp.concatenate(words, axis=1), others


def unpack(words: jax.Array, others: list[jax.Array], row: Any) -> Any:
    """The fields of packed rows.

    Args:
        words: [..., num_envs, width], uint32.
        others: fields that are not among the words, [..., num_envs, *shape].
        row: one row, of arrays [num_envs, *shape] or their `ShapeDtypeStruct`s.

    Returns:
        As `row`, with the leading axes of `words`.
    """
    fields, structure = jax.tree.flatten(row)
    remaining, start, unpacked = iter(others), 0, []
    for x in fields:
        shape = x.shape[1:]
        if not is_packed(shape, x.dtype):
            unpacked.append(next(remaining))
            continue
        size = math.prod(shape)
        entries = lax.slice_in_dim(words, start, start + size, axis=-1)
        unpacked.append(_from_words(entries, x.dtype).reshape(*words.shape[:-1], *shape))
        start += size
    return jax.tree.unflatten(structure, unpacked)


class EnvPacking:
    """A training state's small arrays of environments, [num_envs, ...], as one array, and back.

    A loop that writes many arrays of its state, and reads their old values in a later kernel, copies each before.

    Args:
        state: a `TrainState`, or its `ShapeDtypeStruct`s.
    """

    def __init__(self, state: Any) -> None:
        leaves, self.structure = jax.tree.flatten((state.env_state, state.obs))
        self.is_row = [x.shape[:1] == state.obs.shape[:1] and is_packed(x.shape[1:], x.dtype) for x in leaves]
        self.row = [
            jax.ShapeDtypeStruct(x.shape, x.dtype) for x, is_row in zip(leaves, self.is_row, strict=True) if is_row
        ]
        self.fits = 0 < sum(math.prod(x.shape[1:]) for x in self.row) <= MAX_CARRIED

    def join(self, state: Any) -> Any:
        """The state with the words in place of the environments' arrays, where they are few enough."""
        if not self.fits:
            return state
        leaves = list(zip(jax.tree.leaves((state.env_state, state.obs)), self.is_row, strict=True))
        words, _ = pack([x for x, is_row in leaves if is_row])
        return replace(state, env_state=(words, [x for x, is_row in leaves if not is_row]), obs=None)

    def split(self, state: Any) -> Any:
        """The state that was joined."""
        if not self.fits:
            return state
        words, others = state.env_state
        rows, others = iter(unpack(words, [], self.row)), iter(others)
        leaves = [next(rows if is_row else others) for is_row in self.is_row]
        env_state, obs = jax.tree.unflatten(self.structure, leaves)
        return replace(state, env_state=env_state, obs=obs)


def scan_packed(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, xs: Any, *, pack_envs: bool = False
) -> tuple[Carry, Any]:
    """`jax.lax.scan` of a step that puts out a row, [num_envs, *shape] of each field; rows [T, num_envs, *shape].

    The loop writes each row as one array. A loop of one step is none.

    Args:
        step: `(carry, x) -> (carry, row)`.
        carry: the first.
        xs: [T, ...].
        pack_envs: the carry is a `TrainState`, whose environments the loop carries as one array, too.
    """
    first = jax.tree.map(lambda x: x[0], xs)
    if len(jax.tree.leaves(xs)[0]) == 1:
        carry, row = step(carry, first)
        return carry, jax.tree.map(lambda x: x[None], row)
    after, row = jax.eval_shape(step, carry, first)
    is_stable = jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    packing = EnvPacking(carry) if pack_envs and is_stable else None  # if it is not, the scan says what has changed

    def packed_step(carry: Any, x: Any) -> tuple[Any, Any]:
        carry, row = step(packing.split(carry) if packing else carry, x)
        return packing.join(carry) if packing else carry, pack(row)

    packed, (words, others) = jax.lax.scan(packed_step, packing.join(carry) if packing else carry, xs)
    return packing.split(packed) if packing else packed, unpack(words, others, row)


def _to_words(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    return lax.bitcast_convert_type(x, _bits_of(x.dtype)).astype(jnp.uint32)


def _from_words(words: jax.Array, dtype: Any) -> jax.Array:
    if dtype == jnp.bool_:
        return words.astype(jnp.bool_)
    return lax.bitcast_convert_type(words.astype(_bits_of(dtype)), dtype)


def _bits_of(dtype: Any) -> str:
    """The unsigned integer as wide as a dtype."""
    return f"uint{8 * jnp.dtype(dtype).itemsize}"
