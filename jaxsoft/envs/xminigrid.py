"""XLand-MiniGrid's ports of MiniGrid as `Env`. Source: Nikulin et al. 2024, arXiv:2312.12044.

An XLand task is a set of rules drawn from a benchmark that is downloaded: `register_env` one with its rules.
"""

from __future__ import annotations

import importlib
from typing import Any

import jax

from jaxsoft.envs.adapters import adapt
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.types import Env

_NAMES = """
BlockedUnlockPickUp DoorKey-5x5 DoorKey-6x6 DoorKey-8x8 DoorKey-16x16 Empty-5x5 Empty-6x6 Empty-8x8 Empty-16x16
EmptyRandom-5x5 EmptyRandom-6x6 EmptyRandom-8x8 EmptyRandom-16x16 FourRooms LockedRoom MemoryS8 MemoryS16 MemoryS32
MemoryS64 MemoryS128 Playground Unlock UnlockPickUp
"""
NAMES = tuple(f"MiniGrid-{name}" for name in _NAMES.split())


def make(name: str, **params: Any) -> Env:
    """Builds one task.

    Args:
        name: XLand-MiniGrid's own, for example `MiniGrid-DoorKey-5x5`.
        **params: `max_steps`, the time limit, which its rewards depend on; `view_size`, cells that the agent sees.

    Returns:
        An `Env` that observes [view_size, view_size, 2], the tile and the colour of each cell, as numbers.

    Raises:
        InputError: there is no such parameter, or it has another kind.
    """
    env, defaults = importlib.import_module("xminigrid").make(name)
    known = {"max_steps": defaults.max_steps, "view_size": defaults.view_size}
    own = defaults.replace(**check_params(f"xminigrid/{name}", params, known))

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.reset(own, key)
        return state, state.observation

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        state = env.step(own, state, action)
        return state, state.observation, state.reward, state.discount == 0

    limit = int(own.max_steps)
    return adapt(f"xminigrid/{name}", reset, step, num_actions=env.num_actions(own), max_episode_steps=limit)


SUITE = Suite("xminigrid", lambda: NAMES, make, slow=True)
