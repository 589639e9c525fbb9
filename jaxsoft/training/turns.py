"""A turn of the loop, one for each kind of experience: rollouts, a replay, fixed data.

Each takes the next random numbers from the state's key, gathers its experience, updates the agent on it, and adds to
the totals. A turn of fixed data does nothing in the environment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.nn.distributions import pre_tanh
from jaxsoft.training import replay, successors
from jaxsoft.training.packing import scan_packed
from jaxsoft.training.report import add_episodes, add_updates
from jaxsoft.training.state import Loop, TrainState
from jaxsoft.types import (
    ActionSpace,
    Box,
    Choice,
    Discrete,
    FixedData,
    Metrics,
    ReplayBatches,
    Rollouts,
    TimeStep,
    Transition,
)


def take_turn(state: TrainState, loop: Loop, *, few_kernels: bool = False) -> TrainState:
    """One turn, by the loop's kind of experience.

    With `few_kernels` fewer kernels gather a rollout, see `scan_packed`; results differ in rounding.
    """
    match loop.experience:
        case Rollouts():
            return turn_with_rollout(state, loop, loop.experience, few_kernels=few_kernels)
        case ReplayBatches():
            return turn_with_replay(state, loop, loop.experience)
        case FixedData():
            return turn_with_fixed_data(state, loop, loop.experience)


def turn_with_rollout(state: TrainState, loop: Loop, experience: Rollouts, *, few_kernels: bool = False) -> TrainState:
    """Takes `length` steps of all environments, and updates the agent on them once."""
    key, rollout_key, update_key = jax.random.split(state.key, 3)

    def step(state: TrainState, keys: tuple[jax.Array, jax.Array]) -> tuple[TrainState, tuple[Transition, TimeStep]]:
        act_key, env_key = keys
        choice = Choice(*loop.agent.explore(act_key, state.agent_state, cast(jax.Array, state.obs)))
        state, (row, time_step) = interact(state, env_key, choice, loop)
        own = {"obs": None, "next_obs": None, "reward": None, "terminated": None, "truncated": None}  # the row has them
        return state, (row, replace(time_step, **own))

    act_keys, env_keys = jax.random.split(rollout_key, (2, experience.length))
    act_keys = act_keys[np.arange(experience.length) // experience.noise_repeat]
    # Scaled rewards need the state before the step and the one after it: the loop copies each array of the former, by a
    # kernel each, or by one if they are packed.
    pack_envs = few_kernels and loop.config.scale_rewards
    state, (rollout, time_steps) = scan_packed(
        step, replace(state, key=key), (act_keys, env_keys), pack_envs=pack_envs, unrolls=few_kernels
    )
    time_steps = replace(time_steps, terminated=rollout.terminated, truncated=rollout.truncated)
    agent_state, metrics = loop.agent.update(update_key, state.agent_state, rollout)
    agent_state = loop.agent.observe(agent_state, rollout.obs)  # after the update: it sees what acting saw
    totals = add_updates(add_episodes(state.totals, time_steps), metrics, 1, state.timestep)
    return replace(state, agent_state=agent_state, totals=totals)


def turn_with_replay(state: TrainState, loop: Loop, experience: ReplayBatches) -> TrainState:
    """Takes one step of all environments, stores it, and updates the agent on batches from the replay."""
    key, act_key, env_key, update_key = jax.random.split(state.key, 4)
    choice = Choice(*loop.agent.explore(act_key, state.agent_state, cast(jax.Array, state.obs)))
    state, (row, time_step) = interact(replace(state, key=key), env_key, choice, loop)
    state = store(state, row, loop)
    replay_state = cast(replay.ReplayState, state.replay_state)

    def update(agent_state: Any, keys: jax.Array) -> tuple[Any, Metrics]:
        sample_key, agent_key = keys
        return loop.agent.update(agent_key, agent_state, sample_batch(sample_key, replay_state, experience, state.obs))

    keys = jax.random.split(update_key, (experience.updates_per_step, 2))
    if len(keys) == 1:  # the usual number, and a loop of one would be traced and compiled as any other
        agent_state, metrics = update(state.agent_state, keys[0])
    else:
        agent_state, metrics = jax.lax.scan(update, state.agent_state, keys)
    totals = add_updates(add_episodes(state.totals, time_step), metrics, len(keys), state.timestep)
    return replace(state, agent_state=agent_state, totals=totals)


def turn_with_fixed_data(state: TrainState, loop: Loop, experience: FixedData) -> TrainState:
    """Updates the agent on one batch of the data."""
    key, sample_key, update_key = jax.random.split(state.key, 3)
    batch = sample_batch(sample_key, cast(replay.ReplayState, state.replay_state), experience)
    agent_state, metrics = loop.agent.update(update_key, state.agent_state, batch)
    timestep = state.timestep + 1
    totals = add_updates(state.totals, metrics, 1, timestep)
    return replace(state, key=key, timestep=timestep, agent_state=agent_state, totals=totals)


def random_step(action_key: jax.Array, i: jax.Array, state: TrainState, loop: Loop) -> TrainState:
    """Takes the i-th of the uniformly random steps that fill a replay."""
    experience = cast(ReplayBatches, loop.experience)
    key, env_key = jax.random.split(state.key)
    held_key = jax.random.fold_in(action_key, i // experience.random_action_repeat)
    state, (row, time_step) = interact(replace(state, key=key), env_key, random_choice(held_key, loop), loop)
    return store(replace(state, totals=add_episodes(state.totals, time_step)), row, loop)


def sample_batch(
    key: jax.Array,
    replay_state: replay.ReplayState,
    experience: ReplayBatches | FixedData,
    current_obs: jax.Array | None = None,
) -> Transition:
    """Draws a batch: transitions [B, ...], or sequences [L, B, ...].

    `current_obs`, [num_envs, ...], are the observations after the replay's newest row; fixed data has none.
    """
    length, batch_size = experience.sequence_length, experience.batch_size
    if length:
        indices = replay.draw_sequences(key, replay_state, batch_size, length)
        return successors.gather(replay_state, indices, current_obs)
    batch = successors.gather(replay_state, replay.draw(key, replay_state, batch_size), current_obs)
    return batch if replay_state.last_obs is None else replace(batch, truncated=None)


def interact(
    state: TrainState, key: jax.Array, choice: Choice, loop: Loop
) -> tuple[TrainState, tuple[Transition, TimeStep]]:
    """Takes the chosen actions in all environments; returns the new state, the transitions and the time steps."""
    env_state, time_step = loop.envs.step(key, state.env_state, choice.action)
    row = make_row(cast(jax.Array, state.obs), choice, time_step, loop)
    timestep = state.timestep + loop.config.num_envs
    return replace(state, timestep=timestep, env_state=env_state, obs=time_step.obs), (row, time_step)


def make_row(obs: jax.Array, choice: Choice, time_step: TimeStep, loop: Loop) -> Transition:
    """The transitions of one step, [num_envs, ...]; what neither the updates nor the replay need is None."""
    row = Transition(obs, choice.action, time_step.reward, time_step.next_obs, time_step.terminated)
    experience, spec = loop.experience, loop.envs.spec
    if isinstance(experience, ReplayBatches) and not experience.sequence_length:
        needs_flag = successors.stores_once(experience, spec, loop.config.num_envs)
        return replace(row, truncated=time_step.truncated) if needs_flag else row
    is_continuous, drawn = isinstance(loop.envs.spec.action_space, Box), choice.pre_tanh
    before_tanh = pre_tanh(choice.action) if is_continuous and drawn is None else drawn
    return replace(row, truncated=time_step.truncated, log_prob=choice.log_prob, pre_tanh=before_tanh)


def store(state: TrainState, row: Transition, loop: Loop) -> TrainState:
    """Puts one step of all environments into the replay."""
    return replace(
        state,
        replay_state=successors.add(cast(replay.ReplayState, state.replay_state), row),
        agent_state=loop.agent.observe(state.agent_state, row.obs),
    )


def random_choice(key: jax.Array, loop: Loop) -> Choice:
    """Uniformly random actions of all environments."""
    space, num_envs = loop.envs.spec.action_space, loop.config.num_envs
    return Choice(random_action(key, space, num_envs), random_log_prob(space, num_envs))


def random_action(key: jax.Array, space: ActionSpace, num_envs: int) -> jax.Array:
    """Uniformly random actions [num_envs, *action_shape]."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (num_envs,), 0, space.num_actions, jnp.int32)
    return jax.random.uniform(key, (num_envs, *space.shape), jnp.float32, minval=space.low, maxval=space.high)


def random_log_prob(space: ActionSpace, num_envs: int) -> jax.Array:
    """Log-probabilities, or log-densities, of uniformly random actions; [num_envs]."""
    volume = float(space.num_actions) if isinstance(space, Discrete) else np.prod(space.high - space.low)
    return jnp.full((num_envs,), -np.log(volume), jnp.float32)
