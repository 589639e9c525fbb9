"""Fixed data: recording a data set, and learning from one.

    data = record(key, act, env, num_steps=50_000)
    train = make_offline_train("soft_q_replay", env, num_updates=20_000, lambda_=0.9)
    states, metrics = jax.jit(jax.vmap(train, (0, None)))(keys, data)      # one copy of the data for all seeds

A data set is a `Transition` of arrays [num_steps, num_envs, ...], time first: the steps of one environment follow each
other, and where an episode ended the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsoft.agents import get_agent
from jaxsoft.envs.check import check_env
from jaxsoft.envs.wrappers import narrow, scale_space, wrap_for_training
from jaxsoft.errors import InputError, require
from jaxsoft.nn.normalisation import scale_recorded_rewards
from jaxsoft.random import fused, require_threefry, unfused
from jaxsoft.training import failures, replay
from jaxsoft.training.config import make_config, validate_settings
from jaxsoft.training.loop import assemble_loop, train_on
from jaxsoft.training.report import no_totals
from jaxsoft.training.state import Loop, TrainState, batch_own, seed_axes
from jaxsoft.training.turns import random_action, random_log_prob
from jaxsoft.types import ActionSpace, AgentKind, Choice, Env, FixedData, Metrics, ReplayBatches, Transition

INTERACTION_SETTINGS = {
    "total_timesteps",
    "num_envs",
    "updates_per_step",
    "learning_starts",
    "replay_capacity",
    "random_action_repeat",
}
"""Settings that learning from a fixed data set has no use for."""


def record(
    key: jax.Array,
    act: Callable[[jax.Array, jax.Array], tuple[Any, ...]],
    env: Env,
    *,
    num_steps: int,
    num_envs: int = 1,
) -> Transition:
    """Records `num_steps` steps of a policy in each of `num_envs` environments.

    Args:
        key: for starts, the environment's noise and the policy's.
        act: `(key, obs [num_envs, *obs_shape]) -> (action, log_prob)`, or a `Choice`, as an agent's `explore` gives;
            continuous actions in [−1, 1]. See `uniform_policy`.
        env: from `make_env`.
        num_steps: of every environment.
        num_envs: side by side.

    Returns:
        [num_steps, num_envs, ...].

    Raises:
        InputError: the environment is not what it must be, see `check_env`, or the key is not of Threefry.
    """
    check_env(env)
    require_threefry(key)
    envs = wrap_for_training(env, num_envs)
    key, reset_key = jax.random.split(fused(key))
    env_state, first = envs.reset(reset_key)

    def step(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[tuple[Any, jax.Array], Transition]:
        (env_state, obs), (act_key, env_key) = carry, jax.random.split(key)
        choice = Choice(*act(unfused(act_key), obs))
        env_state, new = envs.step(env_key, env_state, choice.action)
        row = Transition(obs, choice.action, new.reward, new.next_obs, new.terminated, new.truncated, *choice[1:])
        return (env_state, new.obs), in_32_bits(row)

    return jax.lax.scan(step, (env_state, first.obs), jax.random.split(key, num_steps))[1]


def in_32_bits(data: Transition) -> Transition:
    """Converts 64-bit arrays to 32 bits."""
    return jax.tree.map(lambda x: narrow(jnp.asarray(x)), data)


def uniform_policy(space: ActionSpace, num_envs: int = 1) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The uniformly random policy, for `record`.

    Args:
        space: the environment's actions, `env.spec.action_space`; those of a `Box` are drawn in [−1, 1], which stands
            for its bounds.
        num_envs: how many actions at once.
    """
    chosen = scale_space(space)
    return lambda key, obs: (random_action(key, chosen, num_envs), random_log_prob(chosen, num_envs))


def make_offline_train(
    agent: str | AgentKind, env: Env, *, num_updates: int, **settings: Any
) -> Callable[[jax.Array, Transition], tuple[TrainState, Metrics]]:
    """A whole training on a fixed data set, as a pure function of a key and the data.

    The environment says what observations and actions are like, and judges the policies; it is never learned from.
    Settings are those of `make_train`; where those speak of timesteps (`eval_every`), updates are meant. Observations
    are normalised and rewards scaled, where that is asked for, by what all of the data says.

    Args:
        agent: one that learns from a replay, for example `soft_q_replay`.
        env: from `make_env`.
        num_updates: gradient steps.
        **settings: as in `make_train`.

    Returns:
        `train(key, data) -> (TrainState, Metrics)`; each metric has a leading axis [num_reports].

    Raises:
        InputError: names the setting, or the part of the environment, its value and what is allowed.
    """
    check_env(env)
    kind = get_agent(agent)
    if not isinstance(kind.experience(kind.Config()), ReplayBatches):
        raise InputError(f"{kind.name} learns from fresh experience only; it cannot learn from a fixed data set")
    require("num_updates", num_updates, lambda n: n >= 1, "a positive integer")
    for name in INTERACTION_SETTINGS & settings.keys():
        raise InputError(f"{name} is {settings[name]}; nothing is done in the environment here, so leave it out")
    forced = {"total_timesteps": num_updates, "num_envs": 1, "updates_per_step": 1, "learning_starts": 0}
    config = make_config(kind, env.spec.id, settings | forced)
    validate_settings(config, env.spec)
    batches = config.experience
    assert isinstance(batches, ReplayBatches)
    experience = FixedData(batches.batch_size, batches.sequence_length)
    loop = assemble_loop(env, config)._replace(experience=experience)

    def train(key: jax.Array, data: Transition) -> tuple[TrainState, Metrics]:
        state, metrics = train_on(begin_with_data(key, check_data(data, experience), loop), loop)
        return replace(state, replay_state=None), metrics  # of one data set, many seeds would each return a copy

    return train


def check_data(data: Transition, experience: FixedData) -> Transition:
    """Checks a data set and converts it to 32 bits, [num_steps, num_envs, ...].

    Raises:
        InputError: it has another shape, is too long or too short, or lacks what sequences need.
    """
    rows = in_32_bits(data)
    needed = max(experience.sequence_length, 1)
    if rows.reward.ndim != 2 or len(rows.reward) < needed:
        raise InputError(
            f"the data's rewards have shape {list(rows.reward.shape)}; they must be [num_steps, num_envs], with at "
            f"least {needed} steps"
        )
    if rows.reward.size >= 2**31:
        raise InputError(f"the data has {rows.reward.size} steps; they must be below 2^31")
    if experience.sequence_length and rows.truncated is None:
        raise InputError("the data has no `truncated`; sequences need to know where time limits stopped episodes")
    return rows


def begin_with_data(key: jax.Array, rows: Transition, loop: Loop) -> TrainState:
    """The state before the first update; its replay holds the data."""
    require_threefry(key)
    if loop.config.scale_rewards:
        done = rows.terminated if rows.truncated is None else rows.terminated | rows.truncated
        reward = scale_recorded_rewards(rows.reward, done, loop.config.agent.discount)
        rows = replace(rows, reward=reward)
    key, agent_key = jax.random.split(fused(key))
    agent_state, zero = loop.agent.init(agent_key), jnp.zeros((), jnp.int32)
    state = TrainState(
        key=key,
        timestep=zero,
        env_state=None,
        obs=None,
        agent_state=loop.agent.observe(agent_state, rows.obs),
        replay_state=None,
        totals=no_totals(loop.agent.metrics),
        failure=failures.no_failure(agent_state, loop.agent.metrics),
    )
    state = batch_own(key, state, replace(seed_axes(loop.experience), replay_state=None))
    # the data stays as it is: seeds may share it
    return replace(state, replay_state=replay.ReplayState(rows, zero, jnp.full((), len(rows.reward), jnp.int32)))
