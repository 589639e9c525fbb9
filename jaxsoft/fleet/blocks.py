"""Seeds in blocks that fit a core's cache: a block takes all its turns before the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxsoft.training.state import TrainState, map_leaves

Advance = Callable[[TrainState, Any, jax.Array], TrainState]


def in_blocks(advance: Advance, axes: Any, block: int) -> Advance:
    """Trains many members a block at a time: what a block works with stays in the cache while it takes its turns.

    Thousands of small agents are several times faster so. It is for agents without a replay: a block's states are
    copied out and back.

    Args:
        advance: `(state, settings, num_turns) -> state`, of any number of members.
        axes: of the state's leaves, see `training.state.seed_axes`.
        block: how many members fit the cache; see `memory.seeds_per_block`.
    """

    def over_blocks(state: TrainState, settings: Any, num_turns: jax.Array) -> TrainState:
        num_members = state.key.shape[0]
        if num_members <= block:
            return advance(state, settings, num_turns)
        size = equal_blocks(num_members, block)

        def turn_block(first: jax.Array | int, states: TrainState, size: int) -> TrainState:
            def rows(axis: int | None, now: jax.Array, before: jax.Array) -> jax.Array:
                return before if axis is None else lax.dynamic_slice_in_dim(now, first, size)

            def with_rows(axis: int | None, now: jax.Array, rows: jax.Array) -> jax.Array:
                return rows if axis is None else lax.dynamic_update_slice_in_dim(now, rows, first, axis=0)

            own_settings = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, size), settings)
            moved = advance(map_leaves(rows, axes, states, state), own_settings, num_turns)
            return map_leaves(with_rows, axes, states, moved)

        states = lax.fori_loop(0, num_members // size, lambda i, states: turn_block(i * size, states, size), state)
        rest = num_members % size
        return turn_block(num_members - rest, states, rest) if rest else states

    return over_blocks


def equal_blocks(num_seeds: int, block: int) -> int:
    """How many seeds a block has: at most `block`, and down to half as many if then all are equal.

    A rest is a program of its own, which takes as long to compile again.

    >>> [equal_blocks(num_seeds, 100) for num_seeds in (128, 251, 4096)]
    [64, 100, 64]
    """
    return next((size for size in range(block, block // 2, -1) if num_seeds % size == 0), block)
