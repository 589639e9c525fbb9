"""Short trainings of the actor-critic agents in environments whose values are known."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxsoft.agents import get_agent
from jaxsoft.training import make_train
from jaxsoft.types import Env

LEARNING: dict[str, Any] = {
    "total_timesteps": 3000,
    "discount": 0.8,
    "temperature": 1e-3,  # entropy is worth less than 0.001 per step: below every tolerance
    "learn_temperature": False,
    "learning_rate": 3e-3,
    "polyak": 0.9,
    "hidden_sizes": (16, 16),
    "batch_size": 64,
    "replay_capacity": 3000,
    "learning_starts": 300,
    "eval_every": 0,
}
"""Settings that suffice for every probe; an agent takes those that it has."""

NUM_SEEDS = 2


def solve(agent: str, env: Env, **settings: Any) -> list[Any]:
    """The states, as NumPy, of the agents that each seed has made of `LEARNING` and these settings."""
    known = {*get_agent(agent).Config.__dataclass_fields__, "total_timesteps", "eval_every"}
    shared = {name: value for name, value in LEARNING.items() if name in known}
    states, _ = jax.jit(jax.vmap(make_train(agent, env, **(shared | settings))))(
        jax.random.split(jax.random.key(0), NUM_SEEDS)
    )
    return [jax.tree.map(lambda x, s=s: np.asarray(x[s]), states.agent_state) for s in range(NUM_SEEDS)]
