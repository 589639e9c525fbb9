"""NAVIX, MiniGrid in JAX, as `Env`. Source: Pignatelli et al. 2024, arXiv:2407.19396."""

from __future__ import annotations

import importlib
from typing import Any

import jax

from jaxsoft.envs.adapters import adapt
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.errors import InputError, printable
from jaxsoft.types import Env

_NAMES = """
Empty-5x5 Empty-6x6 Empty-8x8 Empty-16x16 Empty-Random-5x5 Empty-Random-6x6 Empty-Random-8x8 Empty-Random-16x16
DoorKey-5x5 DoorKey-6x6 DoorKey-8x8 DoorKey-16x16 DoorKey-Random-5x5 DoorKey-Random-6x6 DoorKey-Random-8x8
DoorKey-Random-16x16 FourRooms KeyCorridorS3R1 KeyCorridorS3R2 KeyCorridorS3R3 KeyCorridorS4R3 KeyCorridorS5R3
KeyCorridorS6R3 LavaGapS5 LavaGapS6 LavaGapS7 SimpleCrossingS9N1 SimpleCrossingS9N2 SimpleCrossingS9N3
SimpleCrossingS11N5 Dynamic-Obstacles-5x5 Dynamic-Obstacles-6x6 Dynamic-Obstacles-8x8 Dynamic-Obstacles-16x16
DistShift1 DistShift2 GoToDoor-5x5 GoToDoor-6x6 GoToDoor-8x8
"""
NAMES = tuple(f"Navix-{name}-v0" for name in _NAMES.split())

MAX_STEPS = 100
"""NAVIX's own default, for all of its environments."""


def make(name: str, **params: Any) -> Env:
    """Builds one environment.

    Args:
        name: NAVIX's own, for example `Navix-Empty-8x8-v0`.
        **params: `max_steps`, the time limit.

    Returns:
        An `Env` that observes [height, width, 3], kind, colour and state of each cell of the whole grid, as numbers.

    Raises:
        InputError: there is no such parameter, it is no number of steps, or NAVIX cannot be imported.
    """
    limit = {"max_steps": MAX_STEPS} | check_params(f"navix/{name}", params, {"max_steps": MAX_STEPS})
    try:
        navix: Any = importlib.import_module("navix")
    except (ImportError, AttributeError) as error:  # it imports TensorFlow Probability, which trails behind JAX
        message = (
            f"navix/{name} cannot be imported here ({error}); it may need: pip install --force-reinstall tfp-nightly"
        )
        raise InputError(printable(message)) from None
    env = navix.make(name, **limit)

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.reset(key)
        return state, state.observation

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        state = env._step(state, action)  # its `step` resets where the last one ended, at the price of both
        return state, state.observation, state.reward, state.step_type == navix.StepType.TERMINATION

    num_actions, steps = len(env.action_set), limit["max_steps"]
    return adapt(f"navix/{name}", reset, step, num_actions=num_actions, max_episode_steps=steps)


SUITE = Suite("navix", lambda: NAMES, make, slow=True)
