"""How long a run is, in turns of the loop: prefill, reports, updates.

A turn is one step of all environments with a replay, one rollout without. Counts of timesteps are rounded up to whole
turns.
"""

from __future__ import annotations

import numpy as np

from jaxsoft.training.config import TrainConfig
from jaxsoft.types import Experience, ReplayBatches, Rollouts

NUM_REPORTS_WITHOUT_EVALUATION = 20


def steps_per_turn(experience: Experience) -> int:
    """Steps of every environment between updates."""
    return experience.length if isinstance(experience, Rollouts) else 1


def num_prefill_steps(config: TrainConfig, experience: Experience) -> int:
    """Steps of all environments with random actions, before the first update."""
    if isinstance(experience, Rollouts):
        return 0
    return -(-experience.learning_starts // config.num_envs)


def segments(config: TrainConfig, experience: Experience) -> np.ndarray:
    """Turns between reports, so that reports fall on multiples of the reporting interval; [num_reports], int32.

    The last report falls on the end of training. Reports before the first update are left out.
    """
    every = config.eval_every or -(-config.total_timesteps // NUM_REPORTS_WITHOUT_EVALUATION)
    timesteps = np.append(np.arange(every, config.total_timesteps, every), config.total_timesteps)
    turns = np.unique(-(-timesteps // (config.num_envs * steps_per_turn(experience))))
    start = num_prefill_steps(config, experience)
    return np.diff(turns[turns > start], prepend=start).astype(np.int32)


def report_timesteps(config: TrainConfig, experience: Experience) -> np.ndarray:
    """Environment steps that have been taken at each report; [num_reports], int64."""
    turns = num_prefill_steps(config, experience) + np.cumsum(segments(config, experience), dtype=np.int64)
    return turns * config.num_envs * steps_per_turn(experience)


def last_timestep(config: TrainConfig, experience: Experience) -> int:
    """Environment steps that have been taken at the end of training: `total_timesteps`, rounded up to whole turns."""
    per_turn = config.num_envs * steps_per_turn(experience)
    return -(-config.total_timesteps // per_turn) * per_turn


def turns_at(timesteps: np.ndarray, config: TrainConfig, experience: Experience) -> np.ndarray:
    """Turns since the prefill after which so many timesteps have been taken, rounded up; int32, like `timesteps`."""
    turns = -(-timesteps // (config.num_envs * steps_per_turn(experience)))
    return (turns - num_prefill_steps(config, experience)).astype(np.int32)


def total_updates(config: TrainConfig, experience: Experience) -> int:
    """Updates of a whole run: what the agents' schedules span."""
    updates_per_turn = experience.updates_per_step if isinstance(experience, ReplayBatches) else 1
    return int(segments(config, experience).sum()) * updates_per_turn
