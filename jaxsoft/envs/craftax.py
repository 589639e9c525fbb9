"""Craftax as `Env`: its time limit told from its ends. Source: Matthews et al. 2024, arXiv:2402.16801."""

from __future__ import annotations

import importlib
from typing import Any

import jax

from jaxsoft.envs.adapters import adapt
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.types import Env

NAMES = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")

NEVER = 2**31 - 1


def make(name: str, **params: Any) -> Env:
    """Builds one of Craftax's games.

    Args:
        name: Craftax's own, for example `Craftax-Symbolic-v1`.
        **params: values for the game's parameters, for example `max_timesteps=1000`, its time limit.

    Raises:
        InputError: the game has no such parameter, or one of another kind.
    """
    env = importlib.import_module("craftax.craftax_env").make_craftax_env_from_name(name, auto_reset=False)
    defaults = env.default_params
    limited = defaults.replace(**check_params(f"craftax/{name}", params, vars(defaults)))
    game = limited.replace(max_timesteps=NEVER)  # so that it ends for no other reason than its own

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        obs, state = env.reset_env(key, game)
        return state, obs

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, game)
        return state, obs, reward, terminated

    num_actions, limit = int(env.action_space(game).n), int(limited.max_timesteps)
    return adapt(f"craftax/{name}", reset, step, num_actions=num_actions, max_episode_steps=limit, costly_reset=True)


SUITE = Suite("craftax", lambda: NAMES, make, slow=True)
