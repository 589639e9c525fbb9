"""A program of so many members, ready to be compiled and timed: a training, its evaluation, or one function alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxsoft.cpu import compiler_options
from jaxsoft.envs import make_env
from jaxsoft.fleet.devices import ALONG_SEEDS, fewest_devices, on_each, seed_mesh, specs_of
from jaxsoft.fleet.memory import Need, need_of, seeds_per_block
from jaxsoft.fleet.programs import make_program
from jaxsoft.ops.returns import soft_lambda_returns
from jaxsoft.training import replay
from jaxsoft.training.config import make_config, settings_of
from jaxsoft.training.loop import make_loop
from jaxsoft.training.schedule import timesteps_per_turn
from jaxsoft.training.state import seed_axes
from jaxsoft.trees import bytes_of
from jaxsoft.types import ReplayBatches, Transition


class Case(NamedTuple):
    """A program that is compiled and timed.

    Attributes:
        init: `(keys [num_members], settings) -> state`, jitted.
        advance: `(state, settings, num_turns) -> state`, jitted; takes the old state's memory. Where `turns_per_call`
            is not 0, `(state, settings) -> (state, metrics)`.
        shardings: of the state, a tree prefix.
        steps: of one turn, of all members.
        updates: gradient steps of one turn, of all members.
        num_members: how many.
        devices: that share the members.
        need: bytes of a member.
        settings: all that the program was made with, by name.
        turns_per_call: turns of one call of `advance`; 0: they are an argument.
    """

    init: jax.stages.Wrapped
    advance: jax.stages.Wrapped
    shardings: Any
    steps: int
    updates: int
    num_members: int
    devices: Sequence[Any]
    need: Need
    settings: Mapping[str, Any]
    turns_per_call: int = 0


def training(settings: Mapping[str, Any], num_members: int, devices: Sequence[Any], *, evaluates: bool = False) -> Case:
    """Turns of a training, as `jaxsoft train` takes them.

    Args:
        settings: `agent`, `env`, and what `make_config` takes.
        num_members: how many are trained.
        devices: those there are.
        evaluates: the reports alone, with their episodes; a turn is one step of all episodes. For environments whose
            episodes all have the greatest length.

    Raises:
        InputError: a setting is wrong, or a package is missing that the environment needs.
    """
    own = dict(settings)
    agent, env_id = own.pop("agent"), own.pop("env")
    env, config = make_env(env_id), make_config(agent, env_id, own)
    used, need = fewest_devices(num_members, devices), need_of(make_loop(env, config))._replace(checkpoint=0)
    block = None if evaluates else seeds_per_block(need, used[0])
    program, experience = make_program(env, config, used, block), config.experience
    is_replay = isinstance(experience, ReplayBatches)
    updates = experience.updates_per_step if is_replay else experience.num_epochs * experience.num_minibatches
    return Case(
        init=program.init,
        advance=program.report if evaluates else program.advance,
        shardings=program.shardings,
        steps=num_members * (config.eval_episodes if evaluates else timesteps_per_turn(config)),
        updates=0 if evaluates else num_members * updates,
        num_members=num_members,
        devices=used,
        need=need,
        settings={"agent": agent, "env": env_id} | settings_of(config),
        turns_per_call=env.spec.max_episode_steps if evaluates else 0,
    )


def replay_turns(settings: Mapping[str, Any], num_members: int, devices: Sequence[Any]) -> Case:
    """A row added to a replay and a batch drawn from it, in every turn; a step is a transition drawn.

    The settings are `capacity`, `batch_size`, `obs_size`, `action_size`.
    """
    batch_size, capacity = settings["batch_size"], settings["capacity"]
    obs, action = (jnp.zeros((1, settings[name])) for name in ("obs_size", "action_size"))
    row = Transition(obs, action, jnp.zeros(1), obs, jnp.zeros(1, bool))

    def init(key: jax.Array) -> Any:
        full = replay.add(replay.init(row, capacity), row)
        return key, full, replay.sample(key, full, batch_size)

    def turn(state: Any) -> Any:
        key, ring, batch = state
        key, sample_key = jax.random.split(key)
        newest = jax.tree.map(lambda x: x[:1], batch)  # else the row would be known to the compiler
        ring = replay.add(ring, newest)
        return key, ring, replay.sample(sample_key, ring, batch_size)

    axes = (0, cast(Any, seed_axes(ReplayBatches(capacity, batch_size, 0, 1))).replay_state, 0)
    return _function_case(init, turn, axes, batch_size, settings, num_members, devices)


def returns_turns(settings: Mapping[str, Any], num_members: int, devices: Sequence[Any]) -> Case:
    """λ-returns of rollouts, in every turn from the last turn's as values; a step is a transition.

    The settings are `rollout_length`, `num_envs`.
    """
    shape = settings["rollout_length"], settings["num_envs"]

    def init(key: jax.Array) -> Any:
        r_t, v_t, q_t, c_t = jax.random.uniform(key, (4, *shape))
        return (r_t, 0.99 * jnp.ones(shape), q_t, c_t), v_t

    def turn(state: Any) -> Any:
        (r_t, discount_t, q_t, c_t), v_t = state
        per_env = jax.vmap(lambda *x: soft_lambda_returns(*x, lambda_=0.9), 1, 1)
        return state[0], per_env(r_t, discount_t, v_t, q_t, c_t)

    return _function_case(init, turn, 0, shape[0] * shape[1], settings, num_members, devices)


def _function_case(
    init: Callable[[jax.Array], Any],
    turn: Callable[[Any], Any],
    axes: Any,
    steps: int,
    settings: Mapping[str, Any],
    num_members: int,
    devices: Sequence[Any],
) -> Case:
    """A case of functions of one member, sharded over devices; `axes` are those of the state over members."""
    used = devices[: max(n for n in range(1, len(devices) + 1) if num_members % n == 0)]
    turns, specs, shared = jax.vmap(turn, (axes,), axes), specs_of(axes), PartitionSpec()
    one = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))

    def init_all(keys: jax.Array, _: Any) -> Any:
        return jax.vmap(init, 0, axes)(keys)

    def advance(state: Any, _: Any, num_turns: jax.Array) -> Any:
        return jax.lax.fori_loop(0, num_turns, lambda _, state: turns(state), state)

    init_all = on_each(used, init_all, (ALONG_SEEDS, shared), specs)
    advance = on_each(used, advance, (specs, shared, shared), specs)
    return Case(
        init=jax.jit(init_all, compiler_options=compiler_options(used)),
        advance=jax.jit(advance, donate_argnums=0, compiler_options=compiler_options(used)),
        shardings=jax.tree.map(partial(NamedSharding, seed_mesh(used)), specs),
        steps=num_members * steps,
        updates=0,
        num_members=num_members,
        devices=used,
        need=Need(replay=bytes_of(one), agent=0, environments=0, update=0),
        settings=dict(settings),
    )
