"""Tiny environments whose values are known in closed form.

Each asks one question of a learner, so that a wrong answer names the mistake. Actions are a single number in
[−1, 1], or of any other `action_space`, and do not matter but for `action_reward`, `bang_bang`, `choice_ahead` and
`peak_ahead`: the values below are those of every policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.wrappers import time_limit
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step

UNIT_BOX = Box(np.full((1,), -1, np.float32), np.full((1,), 1, np.float32))
NO_LIMIT = 1_000_000


def _probe(
    name: str,
    reset: Callable[[jax.Array], tuple[Any, TimeStep]],
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, TimeStep]],
    *,
    max_episode_steps: int,
    action_space: Box | Discrete = UNIT_BOX,
) -> Env:
    spec = EnvSpec(f"probe/{name}", (1,), np.dtype(np.float32), action_space, max_episode_steps)
    return Env(spec, reset, step)


def _obs(value: Any) -> jax.Array:
    return jnp.asarray(value, jnp.float32).reshape(1)


def constant_reward(action_space: Box | Discrete = UNIT_BOX) -> Env:
    """Reward 1 and the end. Value 1: is the reward learned at all?"""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), 1.0, terminated=True)

    return _probe("constant_reward", reset, step, max_episode_steps=1, action_space=action_space)


def obs_reward() -> Env:
    """One step; the reward is the observation, ±1 at random. Value ±1: are observations told apart?"""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        sign = jax.random.rademacher(key, (), jnp.float32)
        return sign, make_time_step(_obs(sign))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), state, terminated=True)

    return _probe("obs_reward", reset, step, max_episode_steps=1)


def two_steps(action_space: Box | Discrete = UNIT_BOX) -> Env:
    """Observation 0, then 1; reward 0, then 1, then the end. Values γ and 1: is the future discounted?"""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state + 1, make_time_step(_obs(state + 1), state, terminated=state == 1)

    return _probe("two_steps", reset, step, max_episode_steps=2, action_space=action_space)


def action_reward(best: float = 0.5) -> Env:
    """One step of reward −(action − best)². Q is that reward: does the policy climb its Q-function?"""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), -((action[0] - best) ** 2), terminated=True)

    return _probe("action_reward", reset, step, max_episode_steps=1)


def bang_bang() -> Env:
    """One step; the observation is ±1, and the reward is its product with the action. The bounds are the best."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        sign = jax.random.rademacher(key, (), jnp.float32)
        return sign, make_time_step(_obs(sign))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), state * action[0], terminated=True)

    return _probe("bang_bang", reset, step, max_episode_steps=1)


def choice_ahead(rewards: Sequence[float]) -> Env:
    """At observation 0 nothing matters; at observation 1 action a gives rewards[a] and the end.

    Relative to the uniform policy at temperature τ the values are γ V and V = τ log mean exp(rewards/τ), and the policy
    at observation 1 is exp(rewards/τ) over its sum: is the future soft, and is it acted on?
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        reward = state * jnp.asarray(rewards, jnp.float32)[action]
        return state + 1, make_time_step(_obs(state + 1), reward, terminated=state == 1)

    return _probe("choice_ahead", reset, step, max_episode_steps=2, action_space=Discrete(len(rewards)))


def peak_ahead(best: float = 0.2, steepness: float = 20.0) -> Env:
    """At observation 0 nothing matters; at observation 1 action a gives −steepness (a − best)² and the end.

    With the entropy at price τ the values are γ V(1) + τ log 2, where every action is as good, and
    V(1) = τ log ∫ exp(−steepness (a − best)²/τ) da: is the future of continuous actions soft?
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        reward = -state * steepness * (action[0] - best) ** 2
        return state + 1, make_time_step(_obs(state + 1), reward, terminated=state == 1)

    return _probe("peak_ahead", reset, step, max_episode_steps=2)


def steady_reward(num_steps: int, action_space: Box | Discrete = UNIT_BOX) -> Env:
    """Reward 1 per step until a time limit, which the observation does not tell. Value 1/(1 − γ).

    A learner that takes the time limit for an end of the task finds 1/(1 − γ (1 − 1/num_steps)).
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), 1.0)

    env = _probe("steady_reward", reset, step, max_episode_steps=NO_LIMIT, action_space=action_space)
    return time_limit(env, num_steps)


def countdown(num_steps: int, action_space: Box | Discrete = UNIT_BOX) -> Env:
    """Reward 1 per step until the task ends after `num_steps`; the observation is the time passed, in [0, 1].

    Value after t steps: Σ_{k < num_steps − t} γ^k. It ends where `steady_reward` does, but by a terminal step.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        time = state + 1
        return time, make_time_step(_obs(time / num_steps), 1.0, terminated=time == num_steps)

    return _probe("countdown", reset, step, max_episode_steps=num_steps, action_space=action_space)


def ends_both_ways(end_probability: float, num_steps: int, action_space: Box | Discrete = UNIT_BOX) -> Env:
    """Reward 1 per step; the task ends at random, and a time limit stops it after `num_steps`.

    Value 1/(1 − γ (1 − end_probability)): terminal steps cut it, time limits do not.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(_obs(0), 1.0, terminated=jax.random.bernoulli(key, end_probability))

    env = _probe("ends_both_ways", reset, step, max_episode_steps=NO_LIMIT, action_space=action_space)
    return time_limit(env, num_steps)


def stopped_on_reward(action_space: Box | Discrete = UNIT_BOX) -> Env:
    """From observation 0 (reward 0) to observation 1, where every step gives reward 1; stopped after 2 steps.

    Values γ/(1 − γ) and 1/(1 − γ). The only step seen at observation 1 is a time limit's: one who bootstraps
    there from the observation after the reset, and not from the true successor, finds 1/(1 − γ²) instead.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(_obs(0))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(1), make_time_step(_obs(1), state)

    env = _probe("stopped_on_reward", reset, step, max_episode_steps=NO_LIMIT, action_space=action_space)
    return time_limit(env, 2)


def counting(episode_length: int, *, terminates: bool = False, action_space: Box | Discrete = UNIT_BOX) -> Env:
    """The observation starts at a random number in [0, 1) and grows by 1 per step; so does the reward, from 1.

    Not for learning: every transition's true successor is known (obs + 1), every episode's start is told by its
    fractional part, and the return is 1 + 2 + … + episode_length. Ends by the task or by the time limit.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        # a multiple of 2⁻¹², so that adding whole numbers in float32 is exact
        start = jax.random.randint(key, (), 0, 4096) / 4096
        return (start, jnp.int32(0)), make_time_step(_obs(start))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        obs, time = state[0] + 1, state[1] + 1
        return (obs, time), make_time_step(_obs(obs), time, terminated=terminates & (time == episode_length))

    env = _probe("counting", reset, step, max_episode_steps=episode_length if terminates else NO_LIMIT)
    env = env._replace(spec=EnvSpec("probe/counting", (1,), np.dtype(np.float32), action_space, episode_length))
    return env if terminates else time_limit(env, episode_length)


def noise(limit: int) -> Env:
    """No two observations, [12], are alike; an episode ends by chance, in one step of 30, or at the time limit."""

    def draw(key: jax.Array, *shape: int) -> jax.Array:
        return jax.random.randint(key, shape, 1, 2**24).astype(jnp.float32)  # exact, however it is compiled

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jnp.int32(0), make_time_step(draw(key, 12))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        obs_key, reward_key, end_key = jax.random.split(key, 3)
        ended = jax.random.uniform(end_key) < 1 / 30
        return state, make_time_step(draw(obs_key, 12), draw(reward_key), ended)

    spec = EnvSpec("probe/noise", (12,), np.dtype(np.float32), Discrete(2), limit, earliest_truncation=limit)
    return time_limit(Env(spec, reset, step), limit)
