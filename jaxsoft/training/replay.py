"""Replay that lives on the device: uniform sampling of transitions, or of sequences, from a ring of past ones.

The arrays are [num_rows, num_envs, ...]: one row per step of all environments. Adding writes one row in
place with `dynamic_update_slice`; sampling is one integer draw and a gather, whatever the capacity. The two
counters do not depend on what was learned, so all seeds under a `vmap` share them: they must stay unbatched,
or the write becomes a scatter and the buffer is copied at every step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.random import random_index


@struct.dataclass
class ReplayState:
    """A ring of rows.

    Attributes:
        data: pytree of [num_rows, num_envs, ...].
        insert_index: [], int32, the row that the next `add` writes.
        num_filled: [], int32, rows that hold data.
        last_obs: [num_places, num_envs, *obs_shape], in a ring of transitions that stores observations once, without
            `next_obs`: see `jaxsoft.training.successors`, which draws from it. Else None.
        position: [], int32; likewise.
    """

    data: Any
    insert_index: jax.Array
    num_filled: jax.Array
    last_obs: jax.Array | None = None
    position: jax.Array | None = None

    @property
    def num_rows(self) -> int:
        """Rows the ring holds when full."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def num_envs(self) -> int:
        """Entries of one row."""
        return jax.tree.leaves(self.data)[0].shape[1]


def init(example: Any, capacity: int) -> ReplayState:
    """Allocates an empty replay.

    Args:
        example: one row, a pytree of [num_envs, ...] (arrays or their `ShapeDtypeStruct`s).
        capacity: transitions to hold, rounded down to whole rows; below 2³¹, since what is drawn are their numbers.

    Raises:
        ValueError: `capacity` is smaller than one row, or too large to be numbered.
    """
    num_envs = jax.tree.leaves(example)[0].shape[0]
    if capacity < num_envs:
        raise ValueError(f"capacity is {capacity}, but one row already holds {num_envs} transitions")
    if capacity >= 2**31:
        raise ValueError(f"capacity is {capacity}; it must be below 2^31")
    data = jax.tree.map(lambda x: jnp.zeros((capacity // num_envs, *x.shape), x.dtype), example)
    return ReplayState(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(state: ReplayState, row: Any) -> ReplayState:
    """Writes one row, a pytree of [num_envs, ...], over the oldest one once the ring is full."""
    data = jax.tree.map(
        lambda buffer, x: write_slice(buffer, x.astype(buffer.dtype)[None], state.insert_index), state.data, row
    )
    return replace(
        state,
        data=data,
        insert_index=(state.insert_index + 1) % state.num_rows,
        num_filled=jnp.minimum(state.num_filled + 1, state.num_rows),
    )


def write_slice(buffer: jax.Array, row: jax.Array, index: jax.Array, axis: int = 0) -> jax.Array:
    """Replaces a slice [..., 1, ...] of `buffer` at `index` of an axis.

    JAX's own batching of `dynamic_update_slice` is a scatter, also where the index is not batched, for which XLA reads
    the old row and checks the index: five kernels instead of one.
    """

    @jax.custom_batching.custom_vmap
    def write(buffer: jax.Array, row: jax.Array, index: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(buffer, row, index, axis)

    @write.def_vmap
    def write_batch(size: int, batched: list[bool], buffer: jax.Array, row: jax.Array, index: jax.Array) -> Any:
        if batched[2]:
            update = partial(jax.lax.dynamic_update_slice_in_dim, axis=axis)
            axes = [0 if is_batched else None for is_batched in batched]
            return jax.vmap(update, axes, axis_size=size)(buffer, row, index), True
        buffer, row = (
            x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
            for x, is_batched in zip((buffer, row), batched, strict=False)
        )
        return write_slice(buffer, row, index, axis + 1), True

    return write(buffer, row, index)


def sample(key: jax.Array, state: ReplayState, batch_size: int) -> Any:
    """Draws transitions uniformly, with replacement, from at least one row; a pytree of [batch_size, ...].

    Raises:
        ValueError: the ring has no `next_obs`.
    """
    _require_whole(state)
    return gather(state, draw(key, state, batch_size))


def sample_sequences(key: jax.Array, state: ReplayState, batch_size: int, length: int) -> Any:
    """Draws stretches of consecutive rows of one environment, with replacement; a pytree of [length, batch_size, ...].

    Every stretch that lies in the replay whole is as likely as any other: none crosses from the newest row to the
    oldest. Stretches do cross the ends of episodes. The replay must hold at least `length` rows.

    Raises:
        ValueError: the ring has no `next_obs`.
    """
    _require_whole(state)
    return gather(state, draw_sequences(key, state, batch_size, length))


def _require_whole(state: ReplayState) -> None:
    if state.last_obs is not None:
        raise ValueError("the ring stores observations once, without next_obs; use jaxsoft.training.successors.gather")


def draw(key: jax.Array, state: ReplayState, batch_size: int) -> jax.Array:
    """Indices of the transitions that `sample` draws, see `gather`; [batch_size], int32."""
    indices = random_index(key, (batch_size,), state.num_filled * state.num_envs)
    chex.assert_shape(indices, (batch_size,))
    return indices


def draw_sequences(key: jax.Array, state: ReplayState, batch_size: int, length: int) -> jax.Array:
    """Indices of the transitions that `sample_sequences` draws, see `gather`; [length, batch_size], int32."""
    oldest = jnp.where(state.num_filled == state.num_rows, state.insert_index, 0)
    num_starts = state.num_filled - length + 1
    start = random_index(key, (batch_size,), num_starts * state.num_envs)
    age, env = start // state.num_envs, start % state.num_envs
    row = row_of_age(age + jnp.arange(length, dtype=jnp.int32)[:, None], oldest, state.num_rows)
    indices = row * state.num_envs + env
    chex.assert_shape(indices, (length, batch_size))
    return indices


def row_of_age(age: jax.Array, oldest: jax.Array, num_rows: int) -> jax.Array:
    """Where the row is that came `age` rows after the oldest one, (oldest + age) mod num_rows; [...] -> [...], int32.

    The sum itself may be beyond int32.
    """
    row = age - (num_rows - oldest)
    return jnp.where(row < 0, row + num_rows, row)


def gather(state: ReplayState, indices: jax.Array) -> Any:
    """Entries by row · num_envs + environment; [...] -> a pytree of [..., *shape], as they are stored."""
    return jax.tree.map(lambda buffer: take(buffer, indices), state.data)


def take(buffer: jax.Array, indices: jax.Array) -> jax.Array:
    """Entries of one array, [num_rows, num_envs, *shape], as `gather` numbers them."""
    flat = buffer.reshape(-1, *buffer.shape[2:])
    return flat.at[indices].get(mode="promise_in_bounds")
