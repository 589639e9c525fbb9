"""The training loop of one seed, for every agent: pure functions of a training state.

    init      reset the environments; fill the replay, if there is one, with uniformly random actions
    advance   take turns, any number of them: gather experience, update
    report    evaluate, and average what was measured since the last report
    train_on  the last two in turn, to the end

They can be vmapped over keys, and over numbers among the settings. What all seeds share stays unbatched
(`state.seed_axes` says which leaves). Programs of many seeds that the host drives are `jaxsoft.fleet.programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxsoft.envs.check import check_env
from jaxsoft.envs.wrappers import wrap_for_evaluation, wrap_for_training
from jaxsoft.nn.normalisation import scale_rewards
from jaxsoft.precision import in_precision
from jaxsoft.random import fused, require_threefry
from jaxsoft.training import failures, successors
from jaxsoft.training.config import TrainConfig, make_config, validate, with_settings
from jaxsoft.training.packing import MemberPacking, packs_members, take_turns, wants_few_kernels
from jaxsoft.training.report import make_report, no_totals
from jaxsoft.training.schedule import num_prefill_steps, segments, total_updates
from jaxsoft.training.state import Loop, TrainState, batch_own, seed_axes
from jaxsoft.training.turns import make_row, random_choice, random_step, take_turn
from jaxsoft.types import Agent, AgentKind, Env, Metrics, ReplayBatches


def make_train(
    agent: str | AgentKind, env: Env, *, total_timesteps: int, **settings: Any
) -> Callable[[jax.Array], tuple[TrainState, Metrics]]:
    """A whole training run as a pure function of a key: jit it, vmap it over keys and hyper-parameters.

    A loop over rollouts, and on GPUs one over turns, packs numbers by their bits: it refuses to be differentiated.

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
    loop = make_loop(env, config)
    return lambda key: train_on(init(key, loop), loop)


NO_SETTINGS: Mapping[str, Any] = {}


def make_loop(env: Env, config: TrainConfig, settings: Mapping[str, Any] = NO_SETTINGS) -> Loop:
    """Checks the settings and assembles the loop of an unwrapped environment.

    `settings`, by name, take the place of those in `config`; their values may be traced.

    Raises:
        InputError: the settings do not fit each other or the environment.
    """
    config = with_settings(config, settings)
    validate(config, env.spec)
    return assemble_loop(env, config)


def assemble_loop(env: Env, config: TrainConfig) -> Loop:
    """The loop at settings that are right."""
    envs = wrap_for_training(env, config.num_envs)
    envs = scale_rewards(envs, config.agent.discount) if config.scale_rewards else envs
    return Loop(make_agent(env, config), env, envs, config.experience, config)


def make_agent(env: Env, config: TrainConfig) -> Agent:
    """Builds the agent of a run, for an unwrapped environment."""
    agent = config.kind.make(config.agent, wrap_for_evaluation(env).spec, total_updates(config))
    functions = {name: x for name, x in agent._asdict().items() if callable(x)}
    return agent._replace(**{name: in_precision(x, config.matmul_precision) for name, x in functions.items()})


def train_on(state: TrainState, loop: Loop) -> tuple[TrainState, Metrics]:
    """Trains one seed from its state before the first turn; metrics have a leading axis [num_reports]."""

    def epoch(state: TrainState, num_turns: jax.Array) -> tuple[TrainState, Metrics]:
        return make_report(advance(state, num_turns, loop), loop)

    return jax.lax.scan(epoch, state, jnp.asarray(segments(loop.config)))


def init(key: jax.Array, loop: Loop) -> TrainState:
    """The state before the first turn: a replay is filled with `learning_starts` random steps."""
    action_key, state = begin(key, loop)
    num_steps = num_prefill_steps(loop.config)
    return jax.lax.fori_loop(0, num_steps, partial(random_step, action_key, loop=loop), state) if num_steps else state


def advance(state: TrainState, num_turns: int | jax.Array, loop: Loop, *, platform: str | None = None) -> TrainState:
    """Takes turns, any number of them; no turn changes what is known of failure.

    The loop is written for a platform, by default JAX's default backend, and right on any: see `wants_few_kernels` and
    `packs_members`.
    """
    platform = platform or jax.default_backend()
    start, axes = replace(state, failure=None), replace(seed_axes(loop.experience), failure=None)
    packing = MemberPacking(start, axes) if packs_members(loop.experience, platform) else None
    turn = partial(take_turn, loop=loop, few_kernels=wants_few_kernels(platform))
    return replace(take_turns(num_turns, turn, start, packing), failure=state.failure)


def begin(key: jax.Array, loop: Loop) -> tuple[jax.Array, TrainState]:
    """The key of the random actions, and the state without any experience.

    Raises:
        InputError: the key is not of JAX's default generator, Threefry: see `require_threefry`.
    """
    require_threefry(key)
    key, agent_key, reset_key, action_key = jax.random.split(fused(key), 4)
    env_state, time_step = loop.envs.reset(reset_key)
    agent_state = loop.agent.init(agent_key)
    row = jax.eval_shape(lambda: make_row(time_step.obs, random_choice(key, loop), time_step, loop))
    experience = loop.experience
    state = TrainState(
        key=key,
        timestep=jnp.zeros((), jnp.int32),
        env_state=env_state,
        obs=time_step.obs,
        agent_state=agent_state,
        replay_state=successors.init(row, experience, loop.envs.spec)
        if isinstance(experience, ReplayBatches)
        else None,
        totals=no_totals(loop.agent.metrics),
        failure=failures.no_failure(agent_state, loop.agent.metrics),
    )
    return action_key, batch_own(key, state, seed_axes(experience))
