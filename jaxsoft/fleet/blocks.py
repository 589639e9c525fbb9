"""Seeds in blocks that fit a core's cache: a block takes all its turns before the next one begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from jaxsoft.training.loop import TrainState

Advance = Callable[[TrainState, jax.Array], TrainState]


def in_blocks(advance: Advance, seed_axes: Any, block: int) -> Advance:
    """Trains many seeds a block at a time: what a block works with stays in the cache while it takes its turns.

    Thousands of small agents are several times faster so. It is for agents without a replay: a block's states are
    copied out and back.

    Args:
        advance: `(state, num_turns) -> state`, of any number of seeds.
        seed_axes: of the state's leaves, see `training.seed_axes`.
        block: how many seeds fit the cache; see `memory.seeds_per_block`.
    """

    def over_blocks(state: TrainState, num_turns: jax.Array) -> TrainState:
        num_seeds = state.key.shape[0]
        if num_seeds <= block:
            return advance(state, num_turns)
        size = equal_blocks(num_seeds, block)

        def turn_block(first: jax.Array | int, states: TrainState, size: int) -> TrainState:
            rows = _map_seeds(partial(_rows, first=first, size=size), seed_axes, states, state)
            rows = advance(rows, num_turns)
            return _map_seeds(partial(_with_rows, first=first), seed_axes, states, rows)

        states = lax.fori_loop(0, num_seeds // size, lambda i, states: turn_block(i * size, states, size), state)
        rest = num_seeds % size
        return turn_block(num_seeds - rest, states, rest) if rest else states

    return over_blocks


def equal_blocks(num_seeds: int, block: int) -> int:
    """How many seeds a block has: at most `block`, and down to half as many if then all are equal.

    A rest is a program of its own, which takes as long to compile again.

    >>> [equal_blocks(num_seeds, 100) for num_seeds in (128, 251, 4096)]
    [64, 100, 64]
    """
    return next((size for size in range(block, block // 2, -1) if num_seeds % size == 0), block)


def _map_seeds(change: Callable[[Any, Any], Any], seed_axes: Any, states: TrainState, other: TrainState) -> TrainState:
    """`change(x, y)` of leaves [num_seeds, ...] of both; what seeds share is the other's."""

    def of_part(axis: int | None, part: Any, other: Any) -> Any:
        return other if axis is None else jax.tree.map(change, part, other)

    return jax.tree.map(of_part, seed_axes, states, other, is_leaf=lambda axis: axis is None)


def _rows(states: jax.Array, _: jax.Array, *, first: jax.Array | int, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(states, first, size)


def _with_rows(states: jax.Array, block: jax.Array, *, first: jax.Array | int) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(states, block, first, axis=0)
