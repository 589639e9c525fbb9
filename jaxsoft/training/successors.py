"""A replay that stores each observation once: the next one is the next row's.

Two kinds of transitions have another successor than the observation one row further:

    the newest         what the environment shows now, which the caller has
    a truncated one    the last observation of its episode, kept beside the ring in `ReplayState.last_obs`

A terminated one has, too, and it is lost: the next episode's first observation stands in its place. So this is for
agents that do not look at it (`ReplayBatches.uses_terminal_obs`).

Truncated rows of one environment are at least as many rows apart as an episode has steps when it is truncated
(`EnvSpec.earliest_truncation`). Rows are numbered as they come and divided into windows of no more rows than that, each
with one place for a last observation of each environment. The rows of a full ring lie in at most one window more than
would hold them; so many places are used in turn. `ReplayState.position` is the number of the next row, from 0 again
after the last place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.training.replay import ReplayState, take, write_slice
from jaxsoft.training.replay import add as add_row
from jaxsoft.training.replay import gather as gather_rows
from jaxsoft.training.replay import init as init_rows
from jaxsoft.types import EnvSpec, ReplayBatches, Transition

MIN_BYTES = 33
"""Bytes of the smallest observation that is stored once: for smaller ones the memory is not worth another kernel."""

MIN_ROWS = 8
"""Fewest rows of a ring for each place of a last observation."""


def stores_once(experience: ReplayBatches, spec: EnvSpec, num_envs: int) -> bool:
    """Whether a replay of such transitions stores each observation once. Checkpoints have the form that this says."""
    num_rows = experience.capacity // num_envs
    obs_bytes = int(np.prod(spec.obs_shape)) * np.dtype(spec.obs_dtype).itemsize
    pays = obs_bytes >= MIN_BYTES and MIN_ROWS * _num_places(spec, num_rows) <= num_rows
    return pays and not experience.uses_terminal_obs


def init(row: Transition, experience: ReplayBatches, spec: EnvSpec) -> ReplayState:
    """Allocates an empty replay of transitions, which stores observations once where that is right and pays.

    Args:
        row: [num_envs, ...], arrays or their `ShapeDtypeStruct`s; with `truncated` where observations are stored once.
        experience: its capacity, and whether terminal observations are looked at.
        spec: of the environment.
    """
    num_envs = row.reward.shape[0]
    if not stores_once(experience, spec, num_envs):
        return init_rows(row, experience.capacity)
    state = init_rows(replace(row, next_obs=None), experience.capacity)
    last_obs = jnp.zeros((_num_places(spec, state.num_rows), *row.obs.shape), row.obs.dtype)
    return replace(state, last_obs=last_obs, position=jnp.zeros((), jnp.int32))


def add(state: ReplayState, row: Transition) -> ReplayState:
    """Writes one row, [num_envs, ...], over the oldest one once the ring is full."""
    if state.last_obs is None:
        return add_row(state, row)
    num_places = len(state.last_obs)
    place = place_of(-1, state.position, state.num_rows, num_places)
    held = jax.lax.dynamic_index_in_dim(state.last_obs, place, keepdims=False)
    last = jnp.where(_over(row.truncated, held), row.next_obs, held)
    position: Any = state.position
    return replace(
        add_row(state, replace(row, next_obs=None)),
        last_obs=write_slice(state.last_obs, last[None], place),
        position=(position + 1) % (num_places * _window(state.num_rows, num_places)),
    )


def gather(state: ReplayState, indices: jax.Array, current_obs: jax.Array | None) -> Transition:
    """Transitions by row · num_envs + environment; [...] -> [..., *shape].

    Args:
        state: from `init`, or any of transitions with their own `next_obs`.
        indices: [...], int32, of rows that hold data.
        current_obs: [num_envs, *obs_shape], the observations after the newest row; not used where transitions have
            their own `next_obs`.
    """
    batch = gather_rows(state, indices)
    if state.last_obs is None:
        return batch
    assert current_obs is not None
    row, env = indices // state.num_envs, indices % state.num_envs
    age = state.insert_index - 1 - row
    age = age + state.num_rows * (age < 0)  # 0: the newest
    following = jnp.where(row == state.num_rows - 1, 0, row + 1)
    next_obs = take(state.data.obs, following * state.num_envs + env)
    next_obs = jnp.where(_over(age == 0, next_obs), take(current_obs[None], env), next_obs)
    place = place_of(age, state.position, state.num_rows, len(state.last_obs))
    last = take(state.last_obs, place * state.num_envs + env)
    return replace(batch, next_obs=jnp.where(_over(batch.truncated, next_obs), last, next_obs))


def place_of(age: Any, position: Any, num_rows: int, num_places: int) -> Any:
    """Where in `last_obs` the successors of a row's truncated transitions are; [...] -> [...], int32.

    Args:
        age: [...], rows that came after it; −1 is the next row.
        position: see `ReplayState`.
        num_rows: of the ring.
        num_places: of `last_obs`.
    """
    window = _window(num_rows, num_places)
    number = position - 1 - age
    return (number + window * num_places * (number < 0)) // window


def _num_places(spec: EnvSpec, num_rows: int) -> int:
    return -(-num_rows // min(spec.earliest_truncation, spec.max_episode_steps, num_rows)) + 1


def _window(num_rows: int, num_places: int) -> int:
    return -(-num_rows // (num_places - 1))


def _over(flags: Any, x: jax.Array) -> jax.Array:
    """Flags [...] of entries x [..., *shape], to select by."""
    return flags.reshape(flags.shape + (1,) * (x.ndim - flags.ndim))
