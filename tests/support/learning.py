"""Short trainings of the actor-critic agents in environments whose values are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsoft.agents import get_agent
from jaxsoft.training.loop import make_train
from jaxsoft.types import Env, TimeStep

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

OPTIMISED: dict[str, Any] = {"xla_backend_optimization_level": 1}
"""For programs that run longer than they compile, unlike most of the tests'."""


def solve(agent: str, env: Env, *, runs_long: bool = False, **settings: Any) -> list[Any]:
    """The states, as NumPy, of the agents that each seed has made of `LEARNING` and these settings."""
    return solve_each(agent, [env], runs_long=runs_long, **settings)[0]


def solve_each(
    agent: str,
    envs: Sequence[Env],
    numbers: Mapping[str, Sequence[float]] | None = None,
    *,
    runs_long: bool = False,
    **settings: Any,
) -> list[list[Any]]:
    """What `solve` gives in each environment, by one program for all of them; `numbers` has settings for each."""
    known = {*get_agent(agent).Config.__dataclass_fields__, "total_timesteps", "eval_every"}
    shared: dict[str, Any] = {name: value for name, value in LEARNING.items() if name in known} | settings

    def learn(which: jax.Array, numbers: Mapping[str, Any], key: jax.Array) -> Any:
        return make_train(agent, one_of(envs, which), **{**shared, **numbers})(key)[0].agent_state

    given = {name: jnp.asarray(values, jnp.float32) for name, values in (numbers or {}).items()}
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    program = jax.jit(
        jax.vmap(jax.vmap(learn, (None, None, 0)), (0, 0, None)), compiler_options=OPTIMISED if runs_long else None
    )
    states = jax.device_get(program(jnp.arange(len(envs)), given, keys))
    return [[jax.tree.map(lambda x, e=e, s=s: x[e, s], states) for s in range(NUM_SEEDS)] for e in range(len(envs))]


def one_of(envs: Sequence[Env], which: jax.Array) -> Env:
    """The environment of that number, of some with the same observations and actions: all are stepped."""
    if len(envs) == 1:
        return envs[0]

    def choose(results: Iterable[tuple[Any, TimeStep]]) -> tuple[Any, TimeStep]:
        states, time_steps = zip(*results, strict=True)
        return states, jax.tree.map(lambda *x: jax.lax.select_n(which, *x), *time_steps)

    def step(key: jax.Array, states: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return choose(env.step(key, state, action) for env, state in zip(envs, states, strict=True))

    spec = replace(envs[0].spec, max_episode_steps=max(env.spec.max_episode_steps for env in envs))
    return Env(spec, lambda key: choose(env.reset(key) for env in envs), step)
