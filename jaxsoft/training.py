"""The one training loop, for every agent: pure functions of a training state.

    init    reset the environments, fill the replay with uniformly random actions
    advance step the environments, store, sample, update; any number of times
    report  evaluate, and average what was measured since the last report
    train   the three in one program: a pure function of a key

The command line calls `advance` and `report` from the host, and gets what `train` gets. All of them are for
one seed: `vmap` them over keys. What all seeds share stays unbatched (`seed_axes` says which leaves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft import replay
from jaxsoft.agents import get_agent
from jaxsoft.config import TrainConfig, make_config, validate
from jaxsoft.envs.wrappers import wrap_for_training
from jaxsoft.evaluation import evaluate
from jaxsoft.random import fused
from jaxsoft.types import ActionSpace, Agent, Discrete, Env, Metrics, TimeStep, Transition


@struct.dataclass
class Totals:
    """What has been measured since the last report, summed.

    Attributes:
        updates: the agent's metrics, each a [] sum over updates.
        episode_return: [], over the episodes that ended in training.
        episode_length: [], likewise.
        num_episodes: [], int32, such episodes.
        num_updates: [], int32, shared by all seeds.
    """

    updates: Metrics
    episode_return: jax.Array
    episode_length: jax.Array
    num_episodes: jax.Array
    num_updates: jax.Array


@struct.dataclass
class TrainState:
    """Everything needed to go on.

    Attributes:
        key: the seed's random key.
        timestep: [], int32, environment steps taken, over all environments; shared by all seeds.
        env_state: of the wrapped environments, leaves [num_envs, ...].
        obs: [num_envs, *obs_shape], what the agent acts on next.
        agent_state: parameters and optimisers.
        replay_state: past transitions.
        totals: since the last report.
    """

    key: jax.Array
    timestep: jax.Array
    env_state: Any
    obs: jax.Array
    agent_state: Any
    replay_state: replay.ReplayState
    totals: Totals


class Trainer(NamedTuple):
    """The training loop of one agent in one environment.

    Attributes:
        init: `(key) -> TrainState`, its replay filled with `learning_starts` random steps.
        advance: `(state, num_steps) -> TrainState`; steps of all environments, with their updates.
        report: `(state) -> (TrainState, Metrics)`; evaluation and means, the sums begun anew.
        segments: numbers of steps between reports, [num_reports], NumPy.
    """

    init: Callable[[jax.Array], TrainState]
    advance: Callable[[TrainState, int | jax.Array], TrainState]
    report: Callable[[TrainState], tuple[TrainState, Metrics]]
    segments: np.ndarray


def make_train(
    agent: str, env: Env, *, total_timesteps: int, **settings: Any
) -> Callable[[jax.Array], tuple[TrainState, Metrics]]:
    """A whole training run as a pure function of a key: jit it, vmap it over keys and hyper-parameters.

    Args:
        agent: the agent's name, for example `sac`.
        env: from `make_env`.
        total_timesteps: environment steps to take, over all environments.
        **settings: the loop's and the agent's settings by name, over the preset for this environment if
            there is one. Floating-point settings may be traced values.

    Returns:
        `train(key) -> (TrainState, Metrics)`; each metric has a leading axis [num_reports].

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    config = make_config(agent, env.spec.id, {"total_timesteps": total_timesteps, **settings})
    trainer = make_trainer(agent, env, config)
    return lambda key: train(key, trainer)


def seed_axes() -> Any:
    """The axes of a `TrainState` under a vmap over seeds, as a tree prefix: 0, or None for what is shared."""
    state, replay_state, totals = cast(Any, (TrainState, replay.ReplayState, Totals))
    return state(
        key=0,
        timestep=None,
        env_state=0,
        obs=0,
        agent_state=0,
        replay_state=replay_state(data=0, insert_index=None, num_filled=None),
        totals=totals(updates=0, episode_return=0, episode_length=0, num_episodes=0, num_updates=None),
    )


def make_trainer(agent_name: str, env: Env, config: TrainConfig) -> Trainer:
    """Assembles the loop from an agent's name, an unwrapped environment and settings.

    Raises:
        InputError: the settings do not fit each other or the environment.
    """
    validate(config, agent_name, env.spec)
    envs = wrap_for_training(env, config.num_envs)
    agent = get_agent(agent_name).make(config.agent, envs.spec)
    agent = agent._replace(update=jax.jit(agent.update))  # traced once, though its metrics' names are asked for first

    def init(key: jax.Array) -> TrainState:
        return _init(key, agent, envs, config)

    def advance(state: TrainState, num_steps: int | jax.Array) -> TrainState:
        return jax.lax.fori_loop(0, num_steps, lambda _, s: _step(s, agent, envs, config), state)

    def report(state: TrainState) -> tuple[TrainState, Metrics]:
        return _report(state, agent, env, config)

    return Trainer(init, advance, report, segments(config))


def train(key: jax.Array, trainer: Trainer) -> tuple[TrainState, Metrics]:
    """Trains one seed from start to end; metrics have a leading axis [num_reports]."""

    def epoch(state: TrainState, num_steps: jax.Array) -> tuple[TrainState, Metrics]:
        return trainer.report(trainer.advance(state, num_steps))

    return jax.lax.scan(epoch, trainer.init(key), jnp.asarray(trainer.segments))


def segments(config: TrainConfig) -> np.ndarray:
    """Steps of all environments between reports, so that reports fall on multiples of the reporting interval.

    Counts of timesteps are rounded up to whole steps of `num_envs` environments; the last report falls on the
    end of training. Reports before the first update are left out.
    """
    every = config.eval_every or -(-config.total_timesteps // NUM_REPORTS_WITHOUT_EVALUATION)
    timesteps = np.append(np.arange(every, config.total_timesteps, every), config.total_timesteps)
    steps = np.unique(-(-timesteps // config.num_envs))
    start = num_prefill_steps(config)
    return np.diff(steps[steps > start], prepend=start).astype(np.int32)


NUM_REPORTS_WITHOUT_EVALUATION = 20


def num_prefill_steps(config: TrainConfig) -> int:
    """Steps of all environments with random actions, before the first update."""
    return -(-config.agent.learning_starts // config.num_envs)


def random_action(key: jax.Array, space: ActionSpace, num_envs: int) -> jax.Array:
    """Uniformly random actions [num_envs, *action_shape]."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (num_envs,), 0, space.num_actions)
    return jax.random.uniform(key, (num_envs, *space.shape), minval=space.low, maxval=space.high)


def _init(key: jax.Array, agent: Agent, envs: Env, config: TrainConfig) -> TrainState:
    key, agent_key, reset_key, action_key = jax.random.split(fused(key), 4)
    env_state, time_step = envs.reset(reset_key)
    agent_state = agent.init(agent_key)
    first_action = jax.eval_shape(lambda: random_action(key, envs.spec.action_space, config.num_envs))
    row = _transition(time_step.obs, first_action, time_step)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.agent.batch_size, *x.shape[1:]), x.dtype), row)
    metrics = jax.eval_shape(agent.update, key, agent_state, batch)[1]
    state = TrainState(
        key=key,
        timestep=jnp.zeros((), jnp.int32),
        env_state=env_state,
        obs=time_step.obs,
        agent_state=agent_state,
        replay_state=replay.init(row, config.agent.replay_capacity),
        totals=_no_totals(metrics),
    )

    def random_step(i: jax.Array, state: TrainState) -> TrainState:
        key, env_key = jax.random.split(state.key)
        held_key = jax.random.fold_in(action_key, i // config.agent.random_action_repeat)
        action = random_action(held_key, envs.spec.action_space, config.num_envs)
        return _interact(replace(state, key=key), env_key, action, envs, config)

    return jax.lax.fori_loop(0, num_prefill_steps(config), random_step, state)


def _step(state: TrainState, agent: Agent, envs: Env, config: TrainConfig) -> TrainState:
    """One step of all environments, and the updates that follow it."""
    key, act_key, env_key, update_key = jax.random.split(state.key, 4)
    action, _ = agent.act(act_key, state.agent_state, state.obs)
    state = _interact(replace(state, key=key), env_key, action, envs, config)

    def update(agent_state: Any, key: jax.Array) -> tuple[Any, Metrics]:
        sample_key, agent_key = jax.random.split(key)
        batch = replay.sample(sample_key, state.replay_state, config.agent.batch_size)
        return agent.update(agent_key, agent_state, batch)

    num_updates = config.agent.updates_per_step
    agent_state, metrics = jax.lax.scan(update, state.agent_state, jax.random.split(update_key, num_updates))
    totals = replace(
        state.totals,
        updates=jax.tree.map(lambda total, x: total + jnp.sum(x), state.totals.updates, metrics),
        num_updates=state.totals.num_updates + num_updates,
    )
    return replace(state, agent_state=agent_state, totals=totals)


def _interact(state: TrainState, key: jax.Array, action: jax.Array, envs: Env, config: TrainConfig) -> TrainState:
    """Takes `action` in all environments, stores what came of it, and counts the episodes that ended."""
    env_state, time_step = envs.step(key, state.env_state, action)
    done, totals = time_step.done, state.totals
    return replace(
        state,
        timestep=state.timestep + config.num_envs,
        env_state=env_state,
        obs=time_step.obs,
        replay_state=replay.add(state.replay_state, _transition(state.obs, action, time_step)),
        totals=replace(
            totals,
            episode_return=totals.episode_return + jnp.sum(jnp.where(done, time_step.episode_return, 0)),
            episode_length=totals.episode_length + jnp.sum(jnp.where(done, time_step.episode_length, 0)),
            num_episodes=totals.num_episodes + jnp.sum(done),
        ),
    )


def _transition(obs: jax.Array, action: jax.Array, time_step: TimeStep) -> Transition:
    return Transition(obs, action, time_step.reward, time_step.next_obs, time_step.terminated)


def _report(state: TrainState, agent: Agent, env: Env, config: TrainConfig) -> tuple[TrainState, Metrics]:
    totals = state.totals
    metrics = {"timestep": state.timestep}
    if config.eval_every:
        key, eval_key = jax.random.split(state.key)
        state = replace(state, key=key)
        episodes = evaluate(
            eval_key,
            lambda key, obs: agent.act(key, state.agent_state, obs, deterministic=True)[0],
            env,
            config.eval_episodes,
        )
        metrics |= {"eval_return": jnp.mean(episodes.returns), "eval_length": jnp.mean(episodes.lengths)}
    metrics |= {  # without an ended episode the means are 0/0: NaN says "none"
        "episode_return": totals.episode_return / totals.num_episodes,
        "episode_length": totals.episode_length / totals.num_episodes,
        "num_episodes": totals.num_episodes,
    }
    metrics |= jax.tree.map(lambda total: total / totals.num_updates, totals.updates)
    return replace(state, totals=_no_totals(totals.updates)), metrics


def _no_totals(metrics: Metrics) -> Totals:
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return Totals(jax.tree.map(lambda x: jnp.zeros(x.shape), metrics), zero, zero, none, none)
