"""Loops of fewer kernels: many small arrays as one, and steps unrolled.

A loop writes each array by a kernel, on a GPU a microsecond however small: a row that is written has a dozen fields, a
training state that is carried dozens of arrays.

A field's numbers become words of 32 bits, bit by bit, so that unpacking gives back the same numbers. Fields that are
narrower than 32 bits, as images of bytes, stay as they are, unless a row has no more than a few of their entries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import subjaxprs

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
    """Some arrays of a list as one array of words [num_rows, width], uint32, and back.

    Args:
        arrays: or their `ShapeDtypeStruct`s.
        num_rows: divides the size of every chosen array; a row of it is a stretch of its entries.
        is_chosen: for each array, whether it is packed.
    """

    def __init__(self, arrays: Sequence[Any], num_rows: int, is_chosen: Sequence[bool]) -> None:
        self._is_chosen = is_chosen
        chosen = self._chosen(arrays)
        self._shapes = [x.shape for x in chosen]
        self._rows = [jax.ShapeDtypeStruct((num_rows, math.prod(x.shape) // num_rows), x.dtype) for x in chosen]
        self.width = sum(row.shape[1] for row in self._rows)

    def _chosen(self, arrays: Sequence[Any]) -> list[Any]:
        return [x for x, this in zip(arrays, self._is_chosen, strict=True) if this]

    def join(self, arrays: Sequence[Any]) -> tuple[jax.Array | None, list[Any]]:
        """The words of the chosen arrays, None where there are none, and the others."""
        rows = [jnp.asarray(x).reshape(row.shape) for x, row in zip(self._chosen(arrays), self._rows, strict=True)]
        others = [x for x, this in zip(arrays, self._is_chosen, strict=True) if not this]
        return pack(rows)[0] if rows else None, others

    def split(self, words: jax.Array | None, others: Sequence[Any]) -> list[Any]:
        """The arrays that were joined."""
        rows = [] if words is None else unpack(words, [], self._rows)
        chosen = iter([row.reshape(shape) for row, shape in zip(rows, self._shapes, strict=True)])
        remaining = iter(others)
        return [next(chosen if this else remaining) for this in self._is_chosen]


class EnvPacking:
    """A training state's small arrays of environments, [num_envs, ...], as one array, and back.

    Args:
        state: a `TrainState`, or its `ShapeDtypeStruct`s.
    """

    def __init__(self, state: Any) -> None:
        leaves, self._structure = jax.tree.flatten((state.env_state, state.obs))
        num_envs = len(state.obs)
        is_row = [x.shape[:1] == (num_envs,) and is_packed(x.shape[1:], x.dtype) for x in leaves]
        self._packing = WordPacking(leaves, num_envs, is_row)
        self.fits = 0 < self._packing.width <= MAX_CARRIED

    def join(self, state: Any) -> Any:
        """The state with the words in place of the environments' arrays, where they are few enough."""
        if not self.fits:
            return state
        return replace(state, env_state=self._packing.join(jax.tree.leaves((state.env_state, state.obs))), obs=None)

    def split(self, state: Any) -> Any:
        """The state that was joined."""
        if not self.fits:
            return state
        env_state, obs = jax.tree.unflatten(self._structure, self._packing.split(*state.env_state))
        return replace(state, env_state=env_state, obs=obs)


class MemberPacking:
    """The smallest arrays of a training state as two, the members' own and those that all share, and back.

    They are counters, temperatures, sums, environments and their observations: half of a small agent's arrays. A loop
    also copies an array whose old value is read after the new one was written, and these are then two copies at most.

    Args:
        state: a `TrainState`.
        axes: of its leaves over members, a tree prefix: 0, or None for what they share. See `state.seed_axes`.
        num_members: of leaves [num_members, ...]; None: the state is of one member, whatever is mapped over it.
    """

    def __init__(self, state: Any, axes: Any, num_members: int | None = None) -> None:
        self._structure, self._kinds = jax.tree.structure(state), _kinds(state)
        flags = lambda axis, part: [axis is not None] * len(jax.tree.leaves(part))  # noqa: E731
        is_own = jax.tree.leaves(jax.tree.map(flags, axes, state, is_leaf=lambda x: x is None))
        num_rows = [(num_members or 1) if own else 1 for own in is_own]
        kinds = [kind for _, kind in self._kinds]
        self._is_small = [_is_small(kind, rows) for kind, rows in zip(kinds, num_rows, strict=True)]
        is_small_own = [small and own for small, own in zip(self._is_small, is_own, strict=True)]
        self._own = WordPacking(kinds, num_members or 1, is_small_own)
        rest = [i for i, this in enumerate(is_small_own) if not this]
        self._shared = WordPacking([kinds[i] for i in rest], 1, [self._is_small[i] for i in rest])

    def join(self, state: Any) -> Any:
        """The packed state.

        Raises:
            TypeError: the state has other leaves than at first, or a packed one has another shape or dtype.
        """
        if jax.tree.structure(state) != self._structure:
            raise TypeError(f"a turn makes {jax.tree.structure(state)} of {self._structure}")
        for (name, before), (_, now), small in zip(self._kinds, _kinds(state), self._is_small, strict=True):
            if small and (now.shape, now.dtype) != (before.shape, before.dtype):
                raise TypeError(f"{name} is {before.str_short()} before a turn and {now.str_short()} after it")
        own, rest = self._own.join(jax.tree.leaves(state))
        return own, *self._shared.join(rest)

    def split(self, packed: Any) -> Any:
        """The state that was joined."""
        own, *rest = packed
        return jax.tree.unflatten(self._structure, self._own.split(own, self._shared.split(*rest)))


def _kinds(state: Any) -> list[tuple[str, Any]]:
    """Paths of leaves, with their shapes and dtypes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), jax.typeof(x)) for path, x in leaves]


def _is_small(kind: Any, num_rows: int) -> bool:
    """Of a leaf whose dtype stays: that of a weakly typed one JAX may still change."""
    size = math.prod(kind.shape) // num_rows
    return not kind.weak_type and size <= MAX_SMALL and is_packed((size,), kind.dtype)


def wants_few_kernels(platform: str) -> bool:
    """Whether a loop is written for few kernels: on accelerators, where each costs a microsecond, however small."""
    return platform != "cpu"


def packs_members(experience: Experience, platform: str) -> bool:
    """Whether a `MemberPacking` saves kernels: on GPUs, but for turns with rollouts, whose kernels are in inner loops.

    A TPU would move numbers from lane to lane, by more kernels than it saves.
    """
    return platform == "gpu" and not (isinstance(experience, Rollouts) and experience.length > 1)


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
    is_short = num_equations(traced.jaxpr) <= MAX_EQUATIONS
    is_stable = jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), carry)
    packing = EnvPacking(carry) if pack_envs and is_stable else None  # if it is not, the scan says what has changed

    def packed_step(carry: Any, x: Any) -> tuple[Any, Any]:
        carry, row = step(packing.split(carry) if packing else carry, x)
        return packing.join(carry) if packing else carry, pack(row)

    start = packing.join(carry) if packing else carry
    packed, (words, others) = jax.lax.scan(
        packed_step, start, xs, unroll=UNROLLED if unrolls and is_short and length % UNROLLED == 0 else 1
    )
    return packing.split(packed) if packing else packed, unpack(words, others, row)


def num_equations(jaxpr: Any) -> int:
    """Equations of a traced function, those of functions in it included."""
    return len(jaxpr.eqns) + sum(map(num_equations, subjaxprs(jaxpr)))


def _to_words(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    return _bitcast(x).astype(jnp.uint32)


@jax.custom_jvp
def _bitcast(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, _bits_of(x.dtype))


@_bitcast.defjvp
def _bitcast_jvp(primals: Any, tangents: Any) -> Any:
    """Bits have no derivative: it would be 0 without a word."""
    raise TypeError("a training's loop cannot be differentiated: it packs numbers by their bits")


def _from_words(words: jax.Array, dtype: Any) -> jax.Array:
    if dtype == jnp.bool_:
        return words.astype(jnp.bool_)
    return lax.bitcast_convert_type(words.astype(_bits_of(dtype)), dtype)


def _bits_of(dtype: Any) -> str:
    """The unsigned integer as wide as a dtype."""
    return f"uint{8 * jnp.dtype(dtype).itemsize}"
