"""Pgx's games of one player as `Env`: 2048 and MinAtar. Source: Koyamada et al. 2023, arXiv:2303.17503.

Its other games have two players or more, whose turns and illegal actions no agent here knows of.
"""

from __future__ import annotations

import importlib
from typing import Any

import jax

from jaxsoft.envs.adapters import adapt
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.types import Env

NAMES = ("2048", *(f"minatar-{name}" for name in ("asterix", "breakout", "freeway", "seaquest", "space_invaders")))

MAX_EPISODE_STEPS = 10_000
"""Pgx has no time limit, and some of these games may go on for ever."""


def make(name: str, **params: Any) -> Env:
    """Builds one game.

    Args:
        name: Pgx's own, for example `2048`, where a move that changes nothing is illegal: it costs 1 and ends the game.
        **params: `max_episode_steps`, the time limit.

    Raises:
        InputError: there is no such parameter, or it is no number of steps.
    """
    env = importlib.import_module("pgx").make(name)
    limit = {"max_episode_steps": MAX_EPISODE_STEPS}
    limit |= check_params(f"pgx/{name}", params, limit)
    num_steps = limit["max_episode_steps"]

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.init(key)
        return state, state.observation

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        state = env.step(state, action, key)
        return state, state.observation, state.rewards[0], state.terminated

    return adapt(f"pgx/{name}", reset, step, num_actions=env.num_actions, max_episode_steps=num_steps)


SUITE = Suite("pgx", lambda: NAMES, make, slow=True)
