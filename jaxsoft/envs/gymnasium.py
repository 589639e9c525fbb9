"""Gymnasium's own environments, which run on the host: for judging policies, not for training them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from typing import Any

import numpy as np

from jaxsoft.envs.mujoco import mute_warnings
from jaxsoft.errors import InputError
from jaxsoft.types import Box, Discrete, EnvSpec, check_bounds

PREFIX = "gymnasium/"
"""The part before the name in an id like `gymnasium/Hopper-v5`."""


def make_host_envs(env_id: str, num_envs: int) -> tuple[EnvSpec, list[Any]]:
    """Builds copies of one of gymnasium's environments.

    Args:
        env_id: `gymnasium/` and gymnasium's own id.
        num_envs: how many.

    Returns:
        What they look like, and gymnasium's environments.

    Raises:
        InputError: gymnasium is not installed, has no such environment or lacks what it needs, or its spaces are
            not arrays of numbers and bounded or discrete actions.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise InputError(f"{env_id} needs gymnasium: pip install 'jaxsoft[mujoco]'")
    gymnasium: Any = importlib.import_module("gymnasium")
    muted = mute_warnings() if importlib.util.find_spec("mujoco") else contextlib.nullcontext()
    try:
        with muted:
            envs = [gymnasium.make(env_id.removeprefix(PREFIX)) for _ in range(num_envs)]
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(f"{env_id} cannot be built: {' '.join(str(error).split())}") from None
    return _spec(env_id, envs[0]), envs


def _spec(env_id: str, env: Any) -> EnvSpec:
    actions, observations = env.action_space, env.observation_space
    if hasattr(actions, "n"):
        action_space = Discrete(int(actions.n))
    elif hasattr(actions, "low"):
        action_space = Box(np.asarray(actions.low, np.float32), np.asarray(actions.high, np.float32))
        check_bounds(env_id, action_space)
    else:
        raise InputError(f"{env_id} has {type(actions).__name__} actions; only Box and Discrete are supported")
    if not hasattr(observations, "low"):
        raise InputError(f"{env_id} observes a {type(observations).__name__}; only arrays are supported")
    limit = env.spec.max_episode_steps
    if limit is None:
        raise InputError(f"{env_id} has no time limit: an episode might never end")
    return EnvSpec(env_id, observations.shape, np.dtype(observations.dtype), action_space, limit)
