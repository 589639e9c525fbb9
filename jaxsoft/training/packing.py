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
from jax.extend.core import jaxprs_in_params

from jaxsoft.trees import map_leaves
from jaxsoft.types import Experience, Rollouts

Carry = TypeVar("Carry")

MAX_WIDENED = 4
"""Most entries that a field of narrower numbers may have in a row to be packed with the others."""

MAX_CARRIED = 64
"""Most words of an environment that a loop carries as one array: packing writes all of them once more."""

MAX_SMALL = 16
"""Most words of a member's array that the loop over turns carries with others as one. Larger ones, as biases, XLA reads
in the product that they are added to: as a part of the words they would be a kernel of their own."""

UNROLLED, MAX_EQUATIONS = 4, 1_000
"""Steps of a rollout that are unrolled, and most equations of such a step: the time to compile grows with them."""

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


class WordPacking:
    """Some leaves of a tree as one array of words, [num_rows, width], and back; each has so many rows.

    A loop writes each array of its carry by a kernel, and copies one whose old value is read later in a round.

    Args:
        tree: of arrays.
        num_rows: each of the chosen leaves has [num_rows, ...] entries, however they are arranged.
        is_chosen: of a leaf.
    """

    def __init__(self, tree: Any, num_rows: int, is_chosen: Callable[[Any], bool]) -> None:
        leaves, self._structure = jax.tree.flatten(tree)
        self._is_chosen = [is_chosen(x) for x in leaves]
        self._kinds = [(x.shape, x.dtype) for x in self._chosen(leaves)]
        self._rows = [jax.ShapeDtypeStruct((num_rows, math.prod(shape) // num_rows), d) for shape, d in self._kinds]
        self.width = sum(row.shape[1] for row in self._rows)

    def _chosen(self, leaves: list[Any]) -> list[Any]:
        return [x for x, this in zip(leaves, self._is_chosen, strict=True) if this]

    def join(self, tree: Any) -> tuple[jax.Array | None, list[Any]]:
        """The words of the chosen leaves, None where there are none, and the others.

        Raises:
            TypeError: a chosen leaf has another shape or dtype than at first.
        """
        leaves = jax.tree.leaves(tree)
        chosen = self._chosen(leaves)
        for x, (shape, dtype) in zip(chosen, self._kinds, strict=True):
            if (x.shape, x.dtype) != (shape, dtype):
                before = f"{dtype}{list(shape)}"
                raise TypeError(f"{before} of a loop's carry is {x.dtype}{list(x.shape)} after a round")
        rows = [x.reshape(row.shape) for x, row in zip(chosen, self._rows, strict=True)]
        return pack(rows)[0] if rows else None, [x for x, this in zip(leaves, self._is_chosen, strict=True) if not this]

    def split(self, packed: tuple[jax.Array | None, list[Any]]) -> Any:
        """The tree that was joined."""
        words, others = packed
        rows = [] if words is None else unpack(words, [], self._rows)
        chosen = iter([row.reshape(shape) for row, (shape, _) in zip(rows, self._kinds, strict=True)])
        remaining = iter(others)
        leaves = [next(chosen if this else remaining) for this in self._is_chosen]
        return jax.tree.unflatten(self._structure, leaves)


class EnvPacking:
    """A training state's small arrays of environments, [num_envs, ...], as one array, and back.

    Args:
        state: a `TrainState`, or its `ShapeDtypeStruct`s.
    """

    def __init__(self, state: Any) -> None:
        num_envs = len(state.obs)
        self._packing = WordPacking(
            (state.env_state, state.obs),
            num_envs,
            lambda x: x.shape[:1] == (num_envs,) and is_packed(x.shape[1:], x.dtype),
        )
        self.fits = 0 < self._packing.width <= MAX_CARRIED

    def join(self, state: Any) -> Any:
        """The state with the words in place of the environments' arrays, where they are few enough."""
        if not self.fits:
            return state
        return replace(state, env_state=self._packing.join((state.env_state, state.obs)), obs=None)

    def split(self, state: Any) -> Any:
        """The state that was joined."""
        if not self.fits:
            return state
        env_state, obs = self._packing.split(state.env_state)
        return replace(state, env_state=env_state, obs=obs)


class MemberPacking:
    """The smallest arrays of a training state as two, the members' own and those that all share, and back.

    They are counters, temperatures, sums, environments and their observations: half of a small agent's arrays.

    Args:
        state: a `TrainState`.
        axes: of its leaves over members, a tree prefix: 0, or None for what they share. See `state.seed_axes`.
        num_members: of leaves [num_members, ...]; None: the state is of one member, whatever is mapped over it.
    """

    def __init__(self, state: Any, axes: Any, num_members: int | None = None) -> None:
        self._axes = axes

        def packing(part: Any, num_rows: int) -> WordPacking:
            def is_small(x: Any) -> bool:
                size = x.size // num_rows
                return size <= MAX_SMALL and is_packed((size,), x.dtype)

            return WordPacking(part, num_rows, is_small)

        own, shared = self._parts(state)
        self._own, self._shared = packing(own, num_members or 1), packing(shared, 1)

    def _parts(self, state: Any) -> tuple[Any, Any]:
        own = map_leaves(lambda axis, x: None if axis is None else x, self._axes, state)
        return own, map_leaves(lambda axis, x: x if axis is None else None, self._axes, state)

    def join(self, state: Any) -> Any:
        """The packed state.

        Raises:
            TypeError: a small array has another shape or dtype than at first.
        """
        own, shared = self._parts(state)
        return self._own.join(own), self._shared.join(shared)

    def split(self, packed: Any) -> Any:
        """The state that was joined."""
        own, shared = self._own.split(packed[0]), self._shared.split(packed[1])
        return jax.tree.map(lambda x, y: y if x is None else x, own, shared, is_leaf=lambda x: x is None)


def wants_few_kernels(platform: str) -> bool:
    """Whether a loop is written for few kernels: on accelerators, where each costs a microsecond, however small."""
    return platform != "cpu"


def packs_members(experience: Experience, platform: str) -> bool:
    """Whether a `MemberPacking` saves kernels: on GPUs, but for turns with rollouts, whose kernels are in inner loops.

    A TPU would move words from lane to lane, by more kernels than it saves.
    """
    return platform not in ("cpu", "tpu") and not (isinstance(experience, Rollouts) and experience.length > 1)


def take_turns(num_turns: Any, turn: Callable[[Carry], Carry], state: Carry, packing: MemberPacking | None) -> Carry:
    """`turn` so many times; in between the state is packed, if there is a packing."""
    if packing is None:
        return jax.lax.fori_loop(0, num_turns, lambda _, state: turn(state), state)
    packed_turn = lambda _, packed: packing.join(turn(packing.split(packed)))  # noqa: E731
    return packing.split(jax.lax.fori_loop(0, num_turns, packed_turn, packing.join(state)))


def scan_packed(
    step: Callable[[Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    xs: Any,
    *,
    pack_envs: bool = False,
    unrolls: bool = False,
) -> tuple[Carry, Any]:
    """`jax.lax.scan` of a step that puts out a row, [num_envs, *shape] of each field; rows [T, num_envs, *shape].

    The loop writes each row as one array. A loop of one step is none.

    Args:
        step: `(carry, x) -> (carry, row)`.
        carry: the first.
        xs: [T, ...].
        pack_envs: the carry is a `TrainState`, whose environments the loop carries as one array, too.
        unrolls: some steps are unrolled if they are not large, so that their counters and copies are shared.
    """
    first, length = jax.tree.map(lambda x: x[0], xs), len(jax.tree.leaves(xs)[0])
    if length == 1:
        carry, row = step(carry, first)
        return carry, jax.tree.map(lambda x: x[None], row)
    traced, (after, row) = jax.make_jaxpr(step, return_shape=True)(carry, first)
    unrolls = unrolls and length % UNROLLED == 0 and num_equations(traced.jaxpr) <= MAX_EQUATIONS
    is_stable = jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    packing = EnvPacking(carry) if pack_envs and is_stable else None  # if it is not, the scan says what has changed

    def packed_step(carry: Any, x: Any) -> tuple[Any, Any]:
        carry, row = step(packing.split(carry) if packing else carry, x)
        return packing.join(carry) if packing else carry, pack(row)

    start = packing.join(carry) if packing else carry
    packed, (words, others) = jax.lax.scan(packed_step, start, xs, unroll=UNROLLED if unrolls else 1)
    return packing.split(packed) if packing else packed, unpack(words, others, row)


def num_equations(jaxpr: Any) -> int:
    """Equations of a traced function, those of functions in it included."""
    inner = (function for equation in jaxpr.eqns for function in jaxprs_in_params(equation.params))
    return len(jaxpr.eqns) + sum(num_equations(getattr(function, "jaxpr", function)) for function in inner)


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
