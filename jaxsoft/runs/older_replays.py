"""Replays of earlier versions, which stored each observation twice: a training goes on from their checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.training.replay import ReplayState
from jaxsoft.training.state import TrainState
from jaxsoft.training.successors import place_of


def with_pairs(example: TrainState, *, has_flag: bool) -> TrainState:
    """The shapes of a training state whose replay stores `obs` and `next_obs`; `has_flag`: and `truncated`."""
    new: Any = example.replay_state
    data = replace(new.data, next_obs=new.data.obs, truncated=new.data.truncated if has_flag else None)
    return replace(example, replay_state=ReplayState(data, new.insert_index, new.num_filled))


def without_pairs(state: TrainState, example: TrainState) -> TrainState:
    """Converts a state as `with_pairs` describes it to one like `example`; NumPy, leaves [num_seeds, ...].

    Raises:
        InputError: episodes were truncated earlier than the environment says that they can be.
    """
    old: Any = state.replay_state
    new: Any = example.replay_state
    data, num_rows = old.data, old.data.obs.shape[1]
    truncated = np.zeros(data.terminated.shape, bool) if data.truncated is None else data.truncated
    last_obs = np.zeros(new.last_obs.shape, new.last_obs.dtype)
    newest = int(old.insert_index) - 1
    places = place_of((newest - np.arange(num_rows)) % num_rows, 0, num_rows, new.last_obs.shape[1])
    is_filled = np.arange(num_rows) < old.num_filled
    for seed in range(len(truncated)):
        if data.truncated is None:
            obs, current_obs = data.obs[seed], np.asarray(state.obs)[seed]
            truncated[seed] = _ends(obs, data.next_obs[seed], current_obs, newest) & ~data.terminated[seed]
        row, env = np.nonzero(truncated[seed] & is_filled[:, None])
        if len(set(zip(places[row], env, strict=True))) < len(row):
            raise InputError(
                "the replay of an earlier version has episodes that were truncated before the step "
                "earliest_truncation of the environment's spec; it cannot be gone on from"
            )
        last_obs[seed, places[row], env] = data.next_obs[seed, row, env]
    data = replace(data, next_obs=None, truncated=truncated)
    replay_state = replace(old, data=data, last_obs=last_obs, position=np.zeros((), np.int32))
    return replace(state, replay_state=replay_state)


def _ends(obs: np.ndarray, next_obs: np.ndarray, current_obs: np.ndarray, newest: int) -> np.ndarray:
    """Where one row's successor is not the next row's observation; [num_rows, num_envs]."""
    following = np.roll(obs, -1, axis=0)
    following[newest] = current_obs
    differs = (next_obs != following) & ~((next_obs != next_obs) & (following != following))  # NaN is like NaN
    return differs.any(tuple(range(2, obs.ndim)))
