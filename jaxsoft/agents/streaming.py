"""Code shared by the streaming agents: one environment, and a trace that episodes restart.

After every step, for each function that is learned, from its gradient g:

    e ← γ λ c e + g                                           c = 0 where the step begins an episode

How far the parameters then move along e: see `jaxsoft.agents.step_sizes`.
"""

from __future__ import annotations

from typing import Any

import jax

from jaxsoft.agents.step_sizes import Move
from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, decay_trace
from jaxsoft.types import Rollouts


def experience(config: Any) -> Rollouts:
    """Rollouts of one step: `AgentKind.experience` of the streaming agents."""
    return Rollouts(1)


def extend(trace: Any, gradient: Any, *decay: float | jax.Array) -> Any:
    """The trace e of the next step; `decay` is γ, λ and c, each []."""
    return accumulate_trace(decay_trace(trace, *decay), gradient)


def follow(params: Any, move: Move) -> Any:
    """The parameters after a move."""
    return jax.tree.map(lambda w, d: w + move.step_size * move.td_error * d, params, move.direction)


def check(agent: str, config: Any, num_envs: int) -> None:
    """Raises an `InputError` unless there is one environment."""
    if num_envs != 1:
        raise InputError(f"num_envs is {num_envs}; it must be 1: {agent} learns from every step as it comes")
