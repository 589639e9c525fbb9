"""The one training loop, for every agent: pure functions of a training state.

    init    reset the environments; fill the replay, if there is one, with uniformly random actions
    advance take turns, any number of them: step the environments, update
    report  evaluate, and average what was measured since the last report
    train   the three in one program: a pure function of a key

The command line calls `advance` and `report` from the host, and gets what `train` gets. All of them are for
one seed: `vmap` them over keys, and over numbers among the settings, or take the trainer of many seeds, `over_seeds`.
What all seeds share stays unbatched (`seed_axes` says which leaves).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.check import check_env
from jaxsoft.envs.wrappers import wrap_for_evaluation, wrap_for_training
from jaxsoft.nn.distributions import pre_tanh
from jaxsoft.nn.normalisation import scale_rewards
from jaxsoft.ops.averages import Sum, add, no_sum
from jaxsoft.random import fused, require_threefry
from jaxsoft.training import failures, replay
from jaxsoft.training.config import TrainConfig, make_config, validate, with_settings
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.schedule import num_prefill_steps, segments, total_updates
from jaxsoft.types import (
    ActionSpace,
    Agent,
    AgentKind,
    Box,
    Choice,
    Discrete,
    Env,
    Experience,
    Metrics,
    ReplayBatches,
    Rollouts,
    TimeStep,
    Transition,
)


@struct.dataclass
class Totals:
    """What has been measured since the last report, summed.

    Attributes:
        updates: [num_metrics], the agent's metrics, summed over updates, in the order of their names.
        episodes: [2], returns and lengths of the episodes that ended in training, summed.
        num_episodes: [], int32, such episodes.
        num_updates: [], int32, shared by all seeds.
        bad_since: [num_metrics], int32, the timestep of the first that was not finite, or 0.
    """

    updates: Sum
    episodes: Sum
    num_episodes: jax.Array
    num_updates: jax.Array
    bad_since: jax.Array


@struct.dataclass
class TrainState:
    """Everything needed to go on.

    Attributes:
        key: the seed's random key.
        timestep: [], int32, environment steps taken, over all environments; shared by all seeds.
        env_state: of the wrapped environments, leaves [num_envs, ...].
        obs: [num_envs, *obs_shape], what the agent acts on next.
        agent_state: parameters and optimisers.
        replay_state: past transitions; None for an agent that learns from rollouts.
        totals: since the last report.
        failure: whether the seed's numbers went bad, and where.
        settings: those of the agent's numbers that are not the program's constants, each [], by name.
    """

    key: jax.Array
    timestep: jax.Array
    env_state: Any
    obs: jax.Array
    agent_state: Any
    replay_state: replay.ReplayState | None
    totals: Totals
    failure: failures.Failure
    settings: dict[str, jax.Array] = struct.field(default_factory=dict)


NO_SETTINGS: Mapping[str, Any] = {}


class Trainer(NamedTuple):
    """The training loop of one agent in one environment, of one seed or, from `over_seeds`, of many.

    Attributes:
        begin: `(key, settings) -> (action_key, TrainState)`; environments and agent, without experience. Keys must be
            of JAX's default generator, Threefry: see `require_threefry`.
        random_step: `(action_key, i, state) -> state`; the i-th of the random steps.
        turn: `(state) -> state`; a step of all environments or several, with the updates on them. The state is without
            `failure`, which no turn changes.
        report: `(state) -> (TrainState, Metrics)`; evaluation and means, the sums begun anew.
        num_random_steps: that fill a replay before the first turn.
        segments: numbers of turns between reports, [num_reports], NumPy.
        seed_axes: the axes of its states under a vmap over seeds, see `seed_axes`.
    """

    begin: Callable[[jax.Array, Mapping[str, Any]], tuple[jax.Array, TrainState]]
    random_step: Callable[[jax.Array, jax.Array, TrainState], TrainState]
    turn: Callable[[TrainState], TrainState]
    report: Callable[[TrainState], tuple[TrainState, Metrics]]
    num_random_steps: int
    segments: np.ndarray
    seed_axes: Any

    def init(self, key: jax.Array, settings: Mapping[str, Any] = NO_SETTINGS) -> TrainState:
        """The state before the first turn: a replay is filled with `learning_starts` random steps.

        Args:
            key: of the seed.
            settings: floating-point ones of the agent by name, instead of its own, in all that is done with the state.
        """
        action_key, state = self.begin(key, settings)
        if self.num_random_steps:
            state = jax.lax.fori_loop(0, self.num_random_steps, partial(self.random_step, action_key), state)
        return state

    def advance(self, state: TrainState, num_turns: int | jax.Array) -> TrainState:
        """Takes turns, any number of them."""
        moved = jax.lax.fori_loop(0, num_turns, lambda _, state: self.turn(state), replace(state, failure=None))
        return replace(moved, failure=state.failure)


def over_seeds(trainer: Trainer) -> Trainer:
    """The trainer of many seeds: what a vmap of its functions gives, of keys and settings [num_seeds].

    The loops are around what is mapped. JAX traces the body of a loop that is itself mapped three times.
    """
    axes = trainer.seed_axes
    moving = replace(axes, failure=None)
    return trainer._replace(
        begin=jax.vmap(trainer.begin, out_axes=(0, axes)),
        random_step=jax.vmap(trainer.random_step, (0, None, axes), axes),
        turn=jax.vmap(trainer.turn, (moving,), moving),
        report=jax.vmap(trainer.report, (axes,), (axes, 0)),
    )


def make_train(
    agent: str | AgentKind, env: Env, *, total_timesteps: int, **settings: Any
) -> Callable[[jax.Array], tuple[TrainState, Metrics]]:
    """A whole training run as a pure function of a key: jit it, vmap it over keys and hyper-parameters.

    Args:
        agent: its name, for example `sac`, or its kind.
        env: from `make_env`.
        total_timesteps: environment steps to take, over all environments.
        **settings: the loop's and the agent's settings by name, over the preset for this environment if
            there is one. Floating-point settings may be traced values.

    Returns:
        `train(key) -> (TrainState, Metrics)`; each metric has a leading axis [num_reports]. `failed_at` is the
        timestep at which a seed's numbers first were not finite, or 0, and `failed/<quantity>` tells of each of them
        whether it was not, then: see `failures.failure_names`. The key must be of JAX's default generator, Threefry:
        with `rbg` a seed's numbers would depend on its neighbours under a vmap.

    Raises:
        InputError: names the setting, or the part of the environment, its value and what is allowed.
    """
    check_env(env)
    config = make_config(agent, env.spec.id, {"total_timesteps": total_timesteps, **settings})
    trainer = make_trainer(env, config)
    return lambda key: train(key, trainer)


def seed_axes(experience: Experience) -> Any:
    """The axes of a `TrainState` under a vmap over seeds, as a tree prefix: 0, or None for what is shared."""
    state, replay_state, totals = cast(Any, (TrainState, replay.ReplayState, Totals))
    has_replay = isinstance(experience, ReplayBatches)
    return state(
        key=0,
        timestep=None,
        env_state=0,
        obs=0,
        agent_state=0,
        replay_state=replay_state(data=0, insert_index=None, num_filled=None) if has_replay else None,
        totals=totals(updates=0, episodes=0, num_episodes=0, num_updates=None, bad_since=0),
        failure=0,
        settings=0,
    )


def make_trainer(env: Env, config: TrainConfig) -> Trainer:
    """Assembles the loop from an unwrapped environment and settings.

    Raises:
        InputError: the settings do not fit each other or the environment.
    """
    validate(config, env.spec)
    own = _make_loop(env, config)
    turn = _turn_with_replay if isinstance(own.experience, ReplayBatches) else _turn_with_rollout

    def loop_at(settings: Mapping[str, Any]) -> Loop:
        return _make_loop(env, with_settings(config, settings)) if settings else own

    return Trainer(
        begin=lambda key, settings: _begin(key, settings, loop_at(settings)),
        random_step=lambda key, i, state: _random_step(key, i, state, loop_at(state.settings)),
        turn=lambda state: turn(state, loop_at(state.settings)),
        report=lambda state: report(state, loop_at(state.settings)),
        num_random_steps=num_prefill_steps(config),
        segments=segments(config),
        seed_axes=seed_axes(own.experience),
    )


def _make_loop(env: Env, config: TrainConfig) -> Loop:
    return Loop(
        agent=make_agent(env, config),
        env=env,
        envs=_training_envs(env, config),
        experience=config.experience,
        config=config,
    )


def _training_envs(env: Env, config: TrainConfig) -> Env:
    envs = wrap_for_training(env, config.num_envs)
    return scale_rewards(envs, config.agent.discount) if config.scale_rewards else envs


def make_agent(env: Env, config: TrainConfig) -> Agent:
    """Builds the agent of a run, for an unwrapped environment."""
    return config.kind.make(config.agent, wrap_for_evaluation(env).spec, total_updates(config))


def train(key: jax.Array, trainer: Trainer) -> tuple[TrainState, Metrics]:
    """Trains one seed from start to end; metrics have a leading axis [num_reports]."""

    def epoch(state: TrainState, num_turns: jax.Array) -> tuple[TrainState, Metrics]:
        return trainer.report(trainer.advance(state, num_turns))

    return jax.lax.scan(epoch, trainer.init(key), jnp.asarray(trainer.segments))


class Loop(NamedTuple):
    """What the loop's functions need beside their state.

    Attributes:
        agent: the learner.
        env: the unwrapped environment, for evaluation.
        envs: `num_envs` of them, wrapped for training.
        experience: what the agent's updates are fed with.
        config: all settings.
    """

    agent: Agent
    env: Env
    envs: Env
    experience: Experience
    config: TrainConfig


def _begin(key: jax.Array, settings: Mapping[str, Any], loop: Loop) -> tuple[jax.Array, TrainState]:
    """The key of the random actions, and the state without any experience."""
    require_threefry(key)
    key, agent_key, reset_key, action_key = jax.random.split(fused(key), 4)
    env_state, time_step = loop.envs.reset(reset_key)
    agent_state = loop.agent.init(agent_key)
    row = jax.eval_shape(lambda: _first_row(key, time_step, loop))
    experience = loop.experience
    return action_key, TrainState(
        key=key,
        timestep=jnp.zeros((), jnp.int32),
        env_state=env_state,
        obs=time_step.obs,
        agent_state=agent_state,
        replay_state=replay.init(row, experience.capacity) if isinstance(experience, ReplayBatches) else None,
        totals=no_totals(loop.agent.metrics),
        failure=failures.no_failure(agent_state, loop.agent.metrics),
        settings={name: jnp.asarray(value, jnp.float32) for name, value in settings.items()},
    )


def _first_row(key: jax.Array, time_step: TimeStep, loop: Loop) -> Transition:
    return _row(time_step.obs, _random_choice(key, loop), time_step, loop)


def _random_choice(key: jax.Array, loop: Loop) -> Choice:
    space, num_envs = loop.envs.spec.action_space, loop.config.num_envs
    return Choice(random_action(key, space, num_envs), random_log_prob(space, num_envs))


def _random_step(action_key: jax.Array, i: jax.Array, state: TrainState, loop: Loop) -> TrainState:
    """A uniformly random step of all environments, the i-th."""
    experience = cast(ReplayBatches, loop.experience)
    key, env_key = jax.random.split(state.key)
    held_key = jax.random.fold_in(action_key, i // experience.random_action_repeat)
    state, row, ended = _interact(replace(state, key=key), env_key, _random_choice(held_key, loop), loop)
    return _remember(replace(state, totals=add_episodes(state.totals, ended)), row, loop)


def _turn_with_replay(state: TrainState, loop: Loop) -> TrainState:
    """One step of all environments, and the updates that follow it."""
    experience = cast(ReplayBatches, loop.experience)
    key, act_key, env_key, update_key = jax.random.split(state.key, 4)
    choice = Choice(*loop.agent.explore(act_key, state.agent_state, state.obs))
    state, row, ended = _interact(replace(state, key=key), env_key, choice, loop)
    state = _remember(state, row, loop)
    replay_state = cast(replay.ReplayState, state.replay_state)

    def update(agent_state: Any, key: jax.Array) -> tuple[Any, Metrics]:
        sample_key, agent_key = jax.random.split(key)
        batch = sample_batch(sample_key, replay_state, experience)
        return loop.agent.update(agent_key, agent_state, batch)

    keys = jax.random.split(update_key, experience.updates_per_step)
    if len(keys) == 1:  # the usual number, and a loop of one would be traced and compiled as any other
        agent_state, metrics = update(state.agent_state, keys[0])
    else:
        agent_state, metrics = jax.lax.scan(update, state.agent_state, keys)
    totals = add_updates(add_episodes(state.totals, ended), metrics, len(keys), state.timestep)
    return replace(state, agent_state=agent_state, totals=totals)


def sample_batch(key: jax.Array, replay_state: replay.ReplayState, experience: ReplayBatches) -> Transition:
    """Draws what one update takes: transitions, or sequences of them."""
    if experience.sequence_length:
        return replay.sample_sequences(key, replay_state, experience.batch_size, experience.sequence_length)
    return replay.sample(key, replay_state, experience.batch_size)


def _turn_with_rollout(state: TrainState, loop: Loop) -> TrainState:
    """`length` steps of all environments, and one update on them."""
    experience = cast(Rollouts, loop.experience)
    key, rollout_key, update_key = jax.random.split(state.key, 3)

    def step(
        state: TrainState, keys: tuple[jax.Array, jax.Array]
    ) -> tuple[TrainState, tuple[Transition, EndedEpisodes]]:
        act_key, env_key = keys
        choice = Choice(*loop.agent.explore(act_key, state.agent_state, state.obs))
        state, row, ended = _interact(state, env_key, choice, loop)
        return state, (row, ended)

    act_keys, env_keys = jax.random.split(rollout_key, (2, experience.length))
    act_keys = act_keys[np.arange(experience.length) // experience.noise_repeat]
    state, (rollout, ended) = jax.lax.scan(step, replace(state, key=key), (act_keys, env_keys))
    agent_state, metrics = loop.agent.update(update_key, state.agent_state, rollout)
    agent_state = loop.agent.observe(agent_state, rollout.obs)  # after the update: it sees what acting saw
    totals = add_updates(add_episodes(state.totals, ended), metrics, 1, state.timestep)
    return replace(state, agent_state=agent_state, totals=totals)


class EndedEpisodes(NamedTuple):
    """The episodes that ended in a step of all environments, or, with a leading axis, in several.

    Attributes:
        sums: [..., 2], of their returns and lengths.
        num: [...], int32, how many.
    """

    sums: jax.Array
    num: jax.Array


def _interact(
    state: TrainState, key: jax.Array, choice: Choice, loop: Loop
) -> tuple[TrainState, Transition, EndedEpisodes]:
    """Takes the chosen action in all environments; with the state what came of it, and which episodes ended."""
    env_state, time_step = loop.envs.step(key, state.env_state, choice.action)
    totals = jnp.stack([time_step.episode_return, time_step.episode_length.astype(jnp.float32)])
    ended = EndedEpisodes(
        jnp.sum(jnp.where(time_step.done[None], totals, 0), axis=1), jnp.sum(time_step.done, dtype=jnp.int32)
    )
    row = _row(state.obs, choice, time_step, loop)
    state = replace(
        state,
        timestep=state.timestep + loop.config.num_envs,
        env_state=env_state,
        obs=time_step.obs,
    )
    return state, row, ended


def _row(obs: jax.Array, choice: Choice, time_step: TimeStep, loop: Loop) -> Transition:
    """One step of all environments, without what batches of single transitions do not use."""
    row = Transition(obs, choice.action, time_step.reward, time_step.next_obs, time_step.terminated)
    if isinstance(loop.experience, ReplayBatches) and not loop.experience.sequence_length:
        return row
    is_continuous, drawn = isinstance(loop.envs.spec.action_space, Box), choice.pre_tanh
    before_tanh = pre_tanh(choice.action) if is_continuous and drawn is None else drawn
    return replace(row, truncated=time_step.truncated, log_prob=choice.log_prob, pre_tanh=before_tanh)


def _remember(state: TrainState, row: Transition, loop: Loop) -> TrainState:
    """Stores one step of all environments."""
    return replace(
        state,
        replay_state=replay.add(cast(replay.ReplayState, state.replay_state), row),
        agent_state=loop.agent.observe(state.agent_state, row.obs),
    )


def add_episodes(totals: Totals, ended: EndedEpisodes) -> Totals:
    """Counts the episodes that ended in a turn."""
    sums, num = jnp.sum(ended.sums.reshape(-1, 2), axis=0), jnp.sum(ended.num, dtype=jnp.int32)
    return replace(totals, episodes=add(totals.episodes, sums), num_episodes=totals.num_episodes + num)


def add_updates(totals: Totals, metrics: Metrics, num_updates: int, timestep: jax.Array) -> Totals:
    """Counts `num_updates` updates made at `timestep`, whose metrics may have a leading axis."""
    updates = add(totals.updates, jnp.stack([jnp.sum(metrics[name]) for name in sorted(metrics)]))
    return replace(
        totals,
        updates=updates,
        num_updates=totals.num_updates + num_updates,
        bad_since=failures.mark_bad_sums(totals.bad_since, updates.value, timestep),
    )


def report(state: TrainState, loop: Loop) -> tuple[TrainState, Metrics]:
    """Evaluates the policy, averages what was measured since the last report, and begins the sums anew.

    A seed that has failed is put back to where it was well, and all that was measured of it is NaN.
    """
    totals, config = state.totals, loop.config
    failure, agent_state = failures.judge(state.failure, state.agent_state, totals.bad_since, state.timestep)
    state = replace(state, failure=failure, agent_state=agent_state)
    metrics: Metrics = {}
    if config.eval_every:
        key, eval_key = jax.random.split(state.key)
        state = replace(state, key=key)
        episodes = evaluate(
            eval_key,
            lambda key, obs: loop.agent.act(key, state.agent_state, obs, deterministic=True)[0],
            loop.env,
            config.eval_episodes,
        )
        metrics |= {
            "eval_return": jnp.mean(episodes.returns),
            "eval_length": jnp.mean(episodes.lengths, dtype=jnp.float32),
        }
    episode_return, episode_length = _mean(totals.episodes, totals.num_episodes)
    metrics |= {
        "episode_return": episode_return,
        "episode_length": episode_length,
        "num_episodes": totals.num_episodes,
    }
    metrics |= dict(zip(sorted(loop.agent.metrics), _mean(totals.updates, totals.num_updates), strict=True))
    has_failed = failure.timestep > 0
    metrics = {
        name: jnp.where(has_failed, jnp.nan, x) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for name, x in metrics.items()
    }
    metrics |= {"timestep": state.timestep, "failed_at": failure.timestep}
    names = failures.quantity_names(loop.agent.metrics)
    metrics |= {f"{failures.PREFIX}{name}": x for name, x in zip(names, failure.quantities, strict=True)}
    return replace(state, totals=no_totals(loop.agent.metrics)), metrics


def _mean(total: Sum, num_terms: jax.Array) -> jax.Array:
    """A sum [...] over its terms; NaN where there are none, or 0 while JAX takes every NaN for a fault."""
    none = 0.0 if getattr(jax.config, "jax_debug_nans") else jnp.nan  # noqa: B009 (pyright does not know it)
    return jnp.where(num_terms > 0, total.value / jnp.maximum(num_terms, 1).astype(jnp.float32), none)


def no_totals(metrics: Collection[str]) -> Totals:
    """Sums of nothing, of metrics with these names."""
    none, size = jnp.zeros((), jnp.int32), len(metrics)
    return Totals(no_sum((size,)), no_sum((2,)), none, none, jnp.zeros(size, jnp.int32))


def random_action(key: jax.Array, space: ActionSpace, num_envs: int) -> jax.Array:
    """Uniformly random actions [num_envs, *action_shape]."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (num_envs,), 0, space.num_actions, jnp.int32)
    return jax.random.uniform(key, (num_envs, *space.shape), jnp.float32, minval=space.low, maxval=space.high)


def random_log_prob(space: ActionSpace, num_envs: int) -> jax.Array:
    """Log-probabilities, or log-densities, of uniformly random actions; [num_envs]."""
    volume = float(space.num_actions) if isinstance(space, Discrete) else np.prod(space.high - space.low)
    return jnp.full((num_envs,), -np.log(volume), jnp.float32)
