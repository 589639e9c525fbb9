"""A small loop for the tests of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsoft.envs import make_env
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import make_loop
from jaxsoft.training.state import Loop
from jaxsoft.types import Env

TINY: dict[str, Any] = {
    "total_timesteps": 100,
    "learning_starts": 20,
    "batch_size": 8,
    "replay_capacity": 200,
    "hidden_sizes": (8, 8),
    "learning_rate": 1e-3,
    "eval_every": 40,
    "eval_episodes": 2,
}
SEEDS = np.arange(8, dtype=np.int32)


def a_loop(env: Env, **settings: Any) -> Loop:
    return make_loop(env, make_config("sac", env.spec.id, TINY | settings))


def pendulum() -> Env:
    return make_env("gymnax/Pendulum-v1", max_steps_in_episode=15)
