"""Trained policies, read from run directories: all of a run's, one as a function, one as a reference."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import env_of_run
from jaxsoft.envs.wrappers import scale_to_bounds
from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import Chunk, find_cell
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.runs import checkpoint, tables
from jaxsoft.runs.config import CONFIG, RunConfig, read_config, reference_run, require_within_end, same_training
from jaxsoft.runs.directory import REFERENCE, checkpoint_folder
from jaxsoft.runs.files import within
from jaxsoft.runs.tables import FailedSeed
from jaxsoft.training.config import TrainConfig, coerce_all, validate, with_settings
from jaxsoft.training.evaluation import convert_obs, evaluation_key
from jaxsoft.training.failures import PARAMETERS, all_finite
from jaxsoft.training.loop import make_agent
from jaxsoft.types import Agent, Box, Env, EnvSpec

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
    if not (path / CONFIG).is_file():
        raise InputError(
            f"reference is {str(path)!r}; it must be uniform, average, comma-separated logits, or an earlier run's "
            "directory"
        )
    env = env_of_run(read_config(path).env_id)
    theirs, ours = ((s.obs_shape, s.action_space) for s in (env.spec, spec))
    if theirs != ours or not np.can_cast(spec.obs_dtype, env.spec.obs_dtype, "same_kind"):
        raise InputError(
            f"reference {path} is a policy of {env.spec.id}, whose observations and actions are not those of {spec.id}"
        )
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, reference=load_reference(path)))


def load_reference(
    path: str | Path, *, seed: int | None = None, allow_failed: bool = False, **settings: Any
) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of discrete actions as a reference policy, for the setting `reference`.

    Args:
        path: a run directory; of one that is not trained to its end, the newest checkpoint is read, with a warning.
        seed: which of the run's seeds; by default the first that has not failed, with a warning if others had.
        allow_failed: of a seed that failed, take the policy that it had before; by default its first seed's.
        **settings: which cell of the run's sweep, by the settings that it has.

    Returns:
        A function of observations [..., *obs_shape] -> log π [..., A].

    Raises:
        InputError: `path` is no run directory, has no such seed or cell, the seed or all of them failed, or actions are
            continuous.
    """
    pass_over = seed is None and not allow_failed
    config, _, agent, state = _read_one(Path(path), seed, settings, allow_failed=allow_failed, pass_over=pass_over)
    if agent.log_probs is None:
        raise InputError(f"{path} cannot be a reference: the actions of {config.train.kind.name} are continuous")
    log_probs = agent.log_probs
    return lambda obs: jax.lax.stop_gradient(log_probs(state, obs))


class Learned(NamedTuple):
    """What the members of one of a run's programs have learned.

    Attributes:
        train: their settings, but for the arguments.
        arguments: of the program, by name, each [num_members], float32.
        states: of the agent, leaves [num_members, ...].
        cells: [num_members], int32, the number of each one's cell.
        seeds: [num_members], int32.
        timesteps: [num_members], int32, environment steps that each has learned from.
        failed: those that failed.
    """

    train: TrainConfig
    arguments: dict[str, np.ndarray]
    states: Any
    cells: np.ndarray
    seeds: np.ndarray
    timesteps: np.ndarray
    failed: list[FailedSeed]

    @property
    def has_failed(self) -> np.ndarray:
        """[num_members], bool."""
        failed = {(cell, seed) for cell, seed, *_ in self.failed}
        return np.array([member in failed for member in zip(self.cells, self.seeds, strict=True)])


def read_agents(path: Path) -> tuple[RunConfig, Env, list[Learned]]:
    """Reads what a run has learned by its newest checkpoints: its settings, environment, and each program's agents.

    Members that have no checkpoint are left out.

    Raises:
        InputError: `path` is no run directory, or there is no checkpoint at all.
    """
    config, env, train = _read_settings(path)
    programs: dict[int, list[Chunk]] = {}
    saved = [chunk for chunk in config.chunks if checkpoint.timesteps(checkpoint_folder(path, chunk))]
    for chunk in saved or config.chunks:  # without any, the first one's is missed
        programs.setdefault(chunk.program, []).append(chunk)
    learned = []
    for chunks in programs.values():
        of_program = with_settings(train, config.cells[chunks[0].cells[0]])
        agent = make_agent(env, of_program)
        states, timesteps, failed = zip(*(_read_chunk(path, config, agent, chunk) for chunk in chunks), strict=True)
        cells, seeds = (np.concatenate(x) for x in zip(*((chunk.cells, chunk.seeds) for chunk in chunks), strict=True))
        learned.append(
            Learned(
                of_program,
                config.arguments(cells),
                jax.tree.map(lambda *x: jnp.concatenate(x), *states),
                cells,
                seeds,
                np.repeat(timesteps, [len(chunk.seeds) for chunk in chunks]).astype(np.int32),
                [seed for seeds in failed for seed in seeds],
            )
        )
    return config, env, learned


def _read_settings(path: Path) -> tuple[RunConfig, Env, TrainConfig]:
    """A run's settings, its environment, and the settings of its training with the reference policy loaded."""
    config = read_config(path)
    env = env_of_run(config.env_id)
    for cell in config.cells:
        validate(with_settings(config.train, cell), env.spec)
    return config, env, with_reference(config.train, env.spec, path / REFERENCE)


def _read_one(
    path: Path, seed: int | None, settings: dict[str, Any], *, allow_failed: bool, pass_over: bool = False
) -> tuple[RunConfig, Env, Agent, Any]:
    """A run's settings and environment, the agent of one of its cells, and what one seed of that has learned.

    With `pass_over` that is the first seed that has not failed. Of chunks with none of these seeds nothing is read.
    """
    config, env, train = _read_settings(path)
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"seed is {seed}; {path} has seeds {config.seeds[0]} to {config.seeds[-1]}")
    number = find_cell(config.cells, coerce_all(config.train.kind, settings))
    agent = make_agent(env, with_settings(train, config.cells[number]))
    first = None  # of those that failed
    for chunk in config.chunks:
        members = np.flatnonzero((chunk.cells == number) & (pass_over | (chunk.seeds == seed)))
        if not len(members):
            continue
        states, timestep, failed = _read_chunk(path, config, agent, chunk)
        found = {one.seed: one for one in failed if one.cell == number}
        first = first or next((found[x] for x in chunk.seeds[members] if x in found), None)
        taken = next((i for i in members if allow_failed or chunk.seeds[i] not in found), None)
        if taken is None:
            continue
        if pass_over and first and chunk.seeds[taken] > first.seed:
            told = f"{path}: {first.in_words(config.cells)}; the reference is the policy of seed {chunk.seeds[taken]}"
            warnings.warn(printable(told), stacklevel=3)
        if timestep < config.train.total_timesteps:
            told = f"{printable(path)} is not trained to its end: {progress_in_words(config, timestep)}"
            warnings.warn(told, stacklevel=3)
        return config, env, agent, jax.tree.map(lambda x, i=taken: jnp.asarray(x[i]), states)
    assert first is not None
    if pass_over:
        raise InputError(f"{path} cannot be a reference: all its seeds failed; {first.in_words(config.cells)}")
    raise InputError(f"{path}: {first.in_words(config.cells)}; allow_failed=True loads its policy from before")


def progress_in_words(config: RunConfig, timestep: int) -> str:
    """Where a policy stands that was not trained to its end."""
    return f"this policy is that of timestep {timestep:,} of {config.train.total_timesteps:,}"


def _read_chunk(path: Path, config: RunConfig, agent: Agent, chunk: Chunk) -> tuple[Any, int, list[FailedSeed]]:
    """One chunk's newest checkpoint: leaves [num_members, ...], NumPy, its timestep, and who failed.

    Where it was made between two reports, bad parameters have not been put back yet: those have failed, too.
    """
    folder = checkpoint_folder(path, chunk)
    found = checkpoint.newest(folder, same_training(config))
    if found is None:
        raise InputError(f"{folder} is missing: the run was cut short before it was saved")
    require_within_end(config, found.path, found.timestep)
    example = jax.eval_shape(lambda: jax.vmap(agent.init)(seed_keys(jnp.asarray(chunk.seeds))))
    states = checkpoint.read_agents(found, example)
    failed = tables.failed_seeds(tables.read(found.path / checkpoint.TABLE, config, chunk).to_pydict())
    known = {(one.cell, one.seed) for one in failed}
    members = zip(chunk.cells.tolist(), chunk.seeds.tolist(), np.asarray(jax.vmap(all_finite)(states)), strict=True)
    news = [(cell, seed) for cell, seed, is_well in members if not is_well and (cell, seed) not in known]
    return states, found.timestep, failed + [FailedSeed(*member, found.timestep, PARAMETERS) for member in news]


def load_policy(
    path: str | Path,
    *,
    seed: int | None = None,
    deterministic: bool = True,
    allow_failed: bool = False,
    **settings: Any,
) -> Policy:
    """A trained policy as a plain function: NumPy observation in, NumPy action out.

    Args:
        path: a run directory; of one that is not trained to its end, the newest checkpoint is read, with a warning.
        seed: which of the run's seeds; by default its first.
        deterministic: the policy's mode, or a sample from it.
        allow_failed: of a seed that failed, take the policy that it had before.
        **settings: which cell of the run's sweep, by the settings that it has: `learning_rate=1e-3`.

    Returns:
        A `Policy` that takes one observation [*obs_shape] or a batch of them [n, *obs_shape], and gives
        actions in the environment's own units.

    Raises:
        InputError: `path` is no run directory, has no checkpoint, has no such seed or cell, or the seed failed.
    """
    _, env, agent, state = _read_one(Path(path), seed, settings, allow_failed=allow_failed)
    return Policy(agent, state, env, deterministic)


class Policy:
    """A trained policy; call it with observations. It draws from its own key, so a new one repeats itself."""

    def __init__(self, agent: Agent, state: Any, env: Env, deterministic: bool) -> None:
        self.env_spec = env.spec
        self.deterministic = deterministic
        self._key = evaluation_key(0)
        self._state = state
        space = env.spec.action_space

        def act(key: jax.Array, state: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, act_key = jax.random.split(key)
            action, _ = agent.act(act_key, state, obs, deterministic=deterministic)
            return key, scale_to_bounds(action, space) if isinstance(space, Box) else action

        self._act = jax.jit(act)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Chooses an action for each observation.

        Raises:
            InputError: they have another shape, or do not convert to the environment's dtype: see `convert_obs`.
        """
        obs = convert_obs(obs, self.env_spec.obs_dtype)
        shape = self.env_spec.obs_shape
        if obs.shape[obs.ndim - len(shape) :] != shape or obs.ndim < len(shape):
            raise InputError(f"the observation has shape {obs.shape}; {self.env_spec.id} has {shape}")
        self._key, action = self._act(self._key, self._state, obs)
        return np.asarray(action)
