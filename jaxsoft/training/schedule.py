"""How long a run is, in turns of the loop: prefill, reports, updates.

A turn is one step of all environments with a replay, one rollout without. Counts of timesteps are rounded up to whole
turns.
"""

from __future__ import annotations

import numpy as np

from jaxsoft.training.config import TrainConfig
from jaxsoft.types import ReplayBatches, Rollouts

NUM_REPORTS_WITHOUT_EVALUATION = 20


def timesteps_per_turn(config: TrainConfig) -> int:
    """Environment steps between updates, over all environments."""
    experience = config.experience
    return config.num_envs * (experience.length if isinstance(experience, Rollouts) else 1)


def num_prefill_steps(config: TrainConfig) -> int:
    """Steps of all environments with random actions, before the first update."""
    experience = config.experience
    if isinstance(experience, Rollouts):
        return 0
    return -(-experience.learning_starts // config.num_envs)


def segments(config: TrainConfig) -> np.ndarray:
    """Turns between reports, so that reports fall on multiples of the reporting interval; [num_reports], int32.

    The last report falls on the end of training. Reports before the first update are left out.
    """
    every = config.eval_every or -(-config.total_timesteps // NUM_REPORTS_WITHOUT_EVALUATION)
    timesteps = np.append(np.arange(every, config.total_timesteps, every), config.total_timesteps)
    turns = np.unique(-(-timesteps // timesteps_per_turn(config)))
    start = num_prefill_steps(config)
    return np.diff(turns[turns > start], prepend=start).astype(np.int32)


def report_timesteps(config: TrainConfig) -> np.ndarray:
    """Environment steps that have been taken at each report; [num_reports], int64."""
    turns = num_prefill_steps(config) + np.cumsum(segments(config), dtype=np.int64)
    return turns * timesteps_per_turn(config)


def last_timestep(config: TrainConfig) -> int:
    """Environment steps that have been taken at the end of training: `total_timesteps`, rounded up to whole turns."""
    per_turn = timesteps_per_turn(config)
    return -(-config.total_timesteps // per_turn) * per_turn


def turns_at(timesteps: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Turns since the prefill after which so many timesteps have been taken, rounded up; int32, like `timesteps`."""
    turns = -(-timesteps // timesteps_per_turn(config))
    return (turns - num_prefill_steps(config)).astype(np.int32)


def total_updates(config: TrainConfig) -> int:
    """Updates of a whole run: what the agents' schedules span."""
    experience = config.experience
    updates_per_turn = experience.updates_per_step if isinstance(experience, ReplayBatches) else 1
    return int(segments(config).sum()) * updates_per_turn
