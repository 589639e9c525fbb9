"""Trained policies, read from run directories: played, loaded, used as references."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft import checkpoint
from jaxsoft.config import TrainConfig, check, coerce_all, validate, with_settings
from jaxsoft.envs import make_env
from jaxsoft.envs.gymnasium import PREFIX, make_host_envs
from jaxsoft.envs.wrappers import to_bounds
from jaxsoft.errors import InputError
from jaxsoft.evaluation import EpisodeTotals, evaluate, evaluate_on_host
from jaxsoft.files import within
from jaxsoft.grid import Chunk, find_cell
from jaxsoft.runs import REFERENCE, RunConfig, checkpoint_folder, read_config, reference_run, same_training
from jaxsoft.sweep import seed_keys
from jaxsoft.training import make_agent
from jaxsoft.types import Agent, Box, Discrete, Env, EnvSpec

DEEPEST = 8
"""How many references of references a run may have."""


def with_reference(config: TrainConfig, spec: EnvSpec, path: Path | None = None) -> TrainConfig:
    """Settings whose reference policy, if it is that of an earlier run, is loaded as a function.

    Args:
        config: the settings.
        spec: of the environment in which they are to be used.
        path: the earlier run's directory, if it is no longer where `reference` says: a run keeps its own copy.

    Raises:
        InputError: no such run, or its policy acts on other observations or with other actions.
    """
    if reference_run(config) is None:
        return config
    path = path or reference_run(config)
    assert path is not None
    if path.name == REFERENCE:
        within(path.parent, REFERENCE)
    if path.parts[-DEEPEST:] == DEEPEST * (REFERENCE,):
        raise InputError(f"{path} is a reference of references, {DEEPEST} deep")
    if not (path / "config.json").is_file():
        raise InputError(
            f"reference is {str(path)!r}; it must be uniform, average, comma-separated logits, or an earlier run's "
            "directory"
        )
    env = make_env(read_config(path).env_id)
    theirs, ours = ((s.obs_shape, s.action_space) for s in (env.spec, spec))
    if theirs != ours:
        raise InputError(
            f"reference {path} is a policy of {env.spec.id}, whose observations and actions are not those of {spec.id}"
        )
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, reference=load_reference(path)))


def load_reference(path: str | Path, *, seed: int | None = None, **settings: Any) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of discrete actions as a reference policy, for the setting `reference`.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.
        **settings: which cell of the run's sweep, by the settings that it has.

    Returns:
        A function of observations [..., *obs_shape] -> log π [..., A].

    Raises:
        InputError: `path` is no run directory, has no such seed or cell, or its actions are continuous.
    """
    config, _, agent, state = _read_one(Path(path), seed, settings)
    if agent.log_probs is None:
        raise InputError(f"{path} cannot be a reference: the actions of {config.agent_name} are continuous")
    log_probs = agent.log_probs
    return lambda obs: jax.lax.stop_gradient(log_probs(state, obs))


class Learned(NamedTuple):
    """What the members of one of a run's programs have learned.

    Attributes:
        train: their settings, but for the arguments.
        arguments: of the program, by name, each [num_members], float32.
        states: of the agent, leaves [num_members, ...].
        members: [num_members], the number of each among all of the run, cell by cell.
    """

    train: TrainConfig
    arguments: dict[str, np.ndarray]
    states: Any
    members: np.ndarray


def read_agents(path: Path) -> tuple[RunConfig, Env, list[Learned]]:
    """Reads what a run has learned: its settings, environment, and the agents of each of its programs.

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    config, env, train = _read_settings(path)
    programs: dict[int, list[Chunk]] = {}
    for chunk in config.chunks:
        programs.setdefault(chunk.program, []).append(chunk)
    learned = []
    for chunks in programs.values():
        of_program = with_settings(train, config.cells[chunks[0].cells[0]])
        agent = make_agent(config.agent_name, env, of_program)
        states = [_read_chunk(path, config, agent, chunk) for chunk in chunks]
        cells, seeds = (np.concatenate(x) for x in zip(*((chunk.cells, chunk.seeds) for chunk in chunks), strict=True))
        together = jax.tree.map(lambda *x: jnp.concatenate(x), *states)
        members = cells * config.num_seeds + seeds - config.seed
        learned.append(Learned(of_program, config.arguments(cells), together, members))
    return config, env, learned


def _read_settings(path: Path) -> tuple[RunConfig, Env, TrainConfig]:
    """A run's settings, its environment, and the settings of its training with the reference policy loaded."""
    config = read_config(path)
    env = make_env(config.env_id)
    for cell in config.cells:
        validate(with_settings(config.train, cell), config.agent_name, env.spec)
    return config, env, with_reference(config.train, env.spec, path / REFERENCE)


def _read_one(path: Path, seed: int | None, settings: dict[str, Any]) -> tuple[RunConfig, Env, Agent, Any]:
    """A run's settings and environment, the agent of one of its cells, and what one seed of that has learned.

    Of the other chunks nothing is read.
    """
    config, env, train = _read_settings(path)
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"seed is {seed}; {path} has seeds {config.seeds[0]} to {config.seeds[-1]}")
    number = find_cell(config.cells, coerce_all(config.agent_name, settings))
    agent = make_agent(config.agent_name, env, with_settings(train, config.cells[number]))
    places = (np.nonzero((chunk.cells == number) & (chunk.seeds == seed))[0] for chunk in config.chunks)
    chunk, i = next((chunk, int(place[0])) for chunk, place in zip(config.chunks, places, strict=True) if len(place))
    state = jax.tree.map(lambda x: jnp.asarray(x[i]), _read_chunk(path, config, agent, chunk))
    return config, env, agent, state


def _read_chunk(path: Path, config: RunConfig, agent: Agent, chunk: Chunk) -> Any:
    """What one chunk has learned, once it is trained to the end: leaves [num_members, ...], NumPy."""
    folder = checkpoint_folder(path, chunk)
    found = checkpoint.newest(folder, same_training(config))
    if found is None:
        raise InputError(f"{folder} is missing: the run was cut short before it was saved")
    if found.timestep < config.train.total_timesteps:
        raise InputError(
            f"{path} is not trained to the end: {folder} is at timestep {found.timestep:,} of "
            f"{config.train.total_timesteps:,} (jaxsoft train --resume {path})"
        )
    example = jax.eval_shape(lambda: jax.vmap(agent.init)(seed_keys(jnp.asarray(chunk.seeds))))
    return checkpoint.read_agents(found, example)


def evaluate_run(
    path: Path, *, num_episodes: int, deterministic: bool, seed: int = 0, env_id: str | None = None
) -> tuple[RunConfig, np.ndarray, np.ndarray]:
    """Plays `num_episodes` episodes with the final policy of each seed, of every cell of a sweep.

    Every policy meets the same starts, which come from `seed`.

    Args:
        path: a run directory.
        num_episodes: episodes of each policy.
        deterministic: the policies' modes, or samples from them.
        seed: of the episodes.
        env_id: another environment than the run's, one of gymnasium's own (`gymnasium/Hopper-v5`) included; its
            observations and actions must have the same shapes.

    Returns:
        The run's settings, and the episodes' returns and lengths, each [num_cells * num_seeds, num_episodes], cell by
        cell.
    """
    check("num_episodes", num_episodes)
    config, env, programs = read_agents(path)
    if env_id is not None and env_id.startswith(PREFIX):
        envs_spec, host_envs = make_host_envs(env_id, num_episodes)
        _check_fit(env.spec, envs_spec)
        play = partial(_play_on_host, spec=envs_spec, envs=host_envs)
    else:
        played_in = env if env_id is None else make_env(env_id)
        _check_fit(env.spec, played_in.spec)
        play = partial(_play, env=played_in, num_episodes=num_episodes)
    num_members = len(config.cells) * config.num_seeds
    returns, lengths = (np.zeros((num_members, num_episodes), kind) for kind in (np.float32, np.int32))
    for learned in programs:
        act = _act_of(config.agent_name, env, learned.train, deterministic)
        totals = play(act, (learned.states, learned.arguments), seed=seed)
        returns[learned.members], lengths[learned.members] = totals.returns, totals.lengths
    return config, returns, lengths


MemberAct = Callable[[tuple[Any, Any], jax.Array, jax.Array], jax.Array]
"""`((state, arguments), key, obs [n, *obs_shape]) -> action [n, *action_shape]`, continuous ones in [−1, 1]."""


def _act_of(agent_name: str, env: Env, train: TrainConfig, deterministic: bool) -> MemberAct:
    """How the members of a program act."""

    def act(member: tuple[Any, Any], key: jax.Array, obs: jax.Array) -> jax.Array:
        state, arguments = member
        agent = make_agent(agent_name, env, with_settings(train, arguments))
        return agent.act(key, state, obs, deterministic=deterministic)[0]

    return act


def _play(act: MemberAct, members: Any, *, env: Env, num_episodes: int, seed: int) -> EpisodeTotals:
    """Episodes of every member's policy: leaves [num_members, num_episodes]."""

    def play(member: Any) -> EpisodeTotals:
        return evaluate(jax.random.key(seed), partial(act, member), env, num_episodes)

    return jax.jit(jax.vmap(play))(members)


def _play_on_host(act: MemberAct, members: Any, *, spec: EnvSpec, envs: Sequence[Any], seed: int) -> EpisodeTotals:
    """The same in gymnasium's own environments."""

    @jax.jit
    def bounded(member: Any, key: jax.Array, obs: jax.Array) -> jax.Array:
        action = act(member, key, obs)
        return to_bounds(action, spec.action_space) if isinstance(spec.action_space, Box) else action

    def play(member: Any) -> EpisodeTotals:
        return evaluate_on_host(jax.random.key(seed), partial(bounded, member), envs, seed=seed)

    num_members = jax.tree.leaves(members)[0].shape[0]
    totals = [play(jax.tree.map(lambda x, i=i: x[i], members)) for i in range(num_members)]
    return jax.tree.map(lambda *x: jnp.stack(x), *totals)


def _check_fit(trained_in: EnvSpec, spec: EnvSpec) -> None:
    """Whether policies trained in one environment can act in another.

    Raises:
        InputError: the observations or actions differ.
    """
    shapes = [
        (of.obs_shape, of.action_space if isinstance(of.action_space, Discrete) else of.action_space.shape)
        for of in (trained_in, spec)
    ]
    if shapes[0] != shapes[1]:
        told = (
            f"observations {list(of.obs_shape)} and actions {of.action_space} in {of.id}" for of in (trained_in, spec)
        )
        raise InputError(f"the policies do not fit: {', '.join(told)}")


def load_policy(path: str | Path, *, seed: int | None = None, deterministic: bool = True, **settings: Any) -> Policy:
    """A trained policy as a plain function: NumPy observation in, NumPy action out.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.
        deterministic: the policy's mode, or a sample from it.
        **settings: which cell of the run's sweep, by the settings that it has: `learning_rate=1e-3`.

    Returns:
        A `Policy` that takes one observation [*obs_shape] or a batch of them [n, *obs_shape], and gives
        actions in the environment's own units.

    Raises:
        InputError: `path` is no run directory, is cut short, or has no such seed or cell.
    """
    _, env, agent, state = _read_one(Path(path), seed, settings)
    return Policy(agent, state, env, deterministic)


class Policy:
    """A trained policy; call it with observations. It draws from its own key, so a new one repeats itself."""

    def __init__(self, agent: Agent, state: Any, env: Env, deterministic: bool) -> None:
        self.env_spec = env.spec
        self.deterministic = deterministic
        self._key = jax.random.key(0)
        self._state = state
        space = env.spec.action_space

        def act(key: jax.Array, state: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, act_key = jax.random.split(key)
            action, _ = agent.act(act_key, state, obs, deterministic=deterministic)
            return key, to_bounds(action, space) if isinstance(space, Box) else action

        self._act = jax.jit(act)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Chooses an action for each observation."""
        obs = np.asarray(obs, self.env_spec.obs_dtype)
        shape = self.env_spec.obs_shape
        if obs.shape[obs.ndim - len(shape) :] != shape or obs.ndim < len(shape):
            raise InputError(f"the observation has shape {obs.shape}; {self.env_spec.id} has {shape}")
        self._key, action = self._act(self._key, self._state, obs)
        return np.asarray(action)
