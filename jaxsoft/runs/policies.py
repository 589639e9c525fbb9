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
from jaxsoft.runs.config import CONFIG, RunConfig, read_config, reference_run
from jaxsoft.runs.directory import REFERENCE, checkpoint_folder, open_chunk
from jaxsoft.runs.files import path_inside
from jaxsoft.runs.tables import FailedSeed
from jaxsoft.training.config import TrainConfig, coerce_all, validate
from jaxsoft.training.evaluation import convert_obs, evaluation_key
from jaxsoft.training.failures import PARAMETERS, all_finite
from jaxsoft.training.loop import make_agent
from jaxsoft.types import Agent, Env

DEEPEST = 8
"""How many references of references a run may have, nested."""


def resolve_reference(config: TrainConfig, env: Env, path: Path | None = None) -> TrainConfig:
    """Loads the reference policy of settings as a function, for use in `env`, where it is an earlier run's.

    It is read from `path`, where a run keeps its own copy; by default from the directory that `reference` names.

    Raises:
        InputError: no such run, or its policy acts on other observations or with other actions.
    """
    named = reference_run(config)
    if named is None:
        return config
    path = path or named
    if path.name == REFERENCE:
        path_inside(path.parent, REFERENCE)  # refuses a link
    if path.parts[-DEEPEST:] == DEEPEST * (REFERENCE,):
        raise InputError(f"{path} is a reference of references, {DEEPEST} deep")
    if not (path / CONFIG).is_file():
        raise InputError(
            f"reference is {str(path)!r}; it must be uniform, average, comma-separated logits, or an earlier run's "
            "directory; a function of your own is given in Python: jaxsoft.make_train(…, reference=…)"
        )
    env_id, spec = read_config(path).env_id, env.spec
    trained_in = env if env_id == spec.id else env_of_run(env_id)
    theirs, ours = ((s.obs_shape, s.action_space) for s in (trained_in.spec, spec))
    if theirs != ours or not np.can_cast(spec.obs_dtype, trained_in.spec.obs_dtype, "same_kind"):
        raise InputError(
            f"reference {path} is a policy of {env_id}, whose observations and actions are not those of {spec.id}"
        )
    reference = load_reference(path, env=trained_in)
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, reference=reference))


def load_reference(
    path: str | Path, *, seed: int | None = None, allow_failed: bool = False, env: Env | None = None, **settings: Any
) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of discrete actions as a reference policy, for the setting `reference`.

    Args:
        path: a run directory. If it is not trained to its end, the newest checkpoint is read, with a warning.
        seed: one of the run's; by default the first that has not failed, with a warning if any failed before it.
        allow_failed: take a failed seed's policy from before it failed; `seed` is then the run's first by default.
        env: see `load_policy`.
        **settings: settings that name one cell of the run's sweep.

    Returns:
        A function of observations [..., *obs_shape] -> log π [..., A].

    Raises:
        InputError: `path` is no run directory, has no such seed or cell, the seed or all of them failed, or actions are
            continuous.
    """
    pass_over = seed is None and not allow_failed
    run = _open_run(Path(path), env)
    agent, state = _read_member(run, seed, settings, allow_failed=allow_failed, pass_over=pass_over)
    if agent.log_probs is None:
        raise InputError(f"{path} cannot be a reference: the actions of {run.config.train.kind.name} are continuous")
    log_probs = agent.log_probs
    return lambda obs: jax.lax.stop_gradient(log_probs(state, obs))


class Learned(NamedTuple):
    """Learned agents of some members of one of a run's programs.

    Attributes:
        train: their settings, but for the program's arguments.
        arguments: of the program, by name, each [num_members], float32.
        states: of the agent, leaves [num_members, ...], NumPy.
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


class _Run(NamedTuple):
    """An opened run directory; `loaded` is its `config` with the reference policy as a function."""

    path: Path
    config: RunConfig
    loaded: RunConfig
    env: Env


def _open_run(path: Path, env: Env | None = None) -> _Run:
    config = read_config(path)
    env = env_of_run(config.env_id) if env is None else env
    if env.spec.id.partition("?")[0] != config.env_id.partition("?")[0]:  # a parameter may be written in other ways
        raise InputError(f"env is {env.spec.id}; {path} was trained in {config.env_id}")
    for cell in range(len(config.cells)):
        validate(config.train_of(cell), env.spec)
    train = resolve_reference(config.train, env, path / REFERENCE)
    return _Run(path, config, dataclasses.replace(config, train=train), env)


def read_agents(path: Path, env: Env | None = None) -> tuple[RunConfig, Env, list[Learned]]:
    """Reads a run's settings, its environment, and what the members of each program have learned.

    Each chunk is read from its newest checkpoint; members that have none are left out. For `env` see `load_policy`.

    Raises:
        InputError: `path` is no run directory, or there is no checkpoint at all.
    """
    run = _open_run(path, env)
    chunks = run.config.chunks
    saved = [chunk for chunk in chunks if checkpoint.timesteps(checkpoint_folder(path, chunk))]
    programs: dict[int, list[Learned]] = {}
    for chunk in saved or chunks[:1]:  # which tells that it is missing
        programs.setdefault(chunk.program, []).append(_read_chunk(run, chunk))
    return run.config, run.env, [_concat(parts) for parts in programs.values()]


def _read_chunk(run: _Run, chunk: Chunk) -> Learned:
    """Learned agents of a chunk's members at its newest checkpoint.

    A checkpoint between two reports may hold bad parameters that no report has marked yet: those members failed, too.
    """
    saved = open_chunk(run.path, run.config, chunk)
    if saved is None:
        folder = checkpoint_folder(run.path, chunk)
        raise InputError(f"{folder} is missing: the run was cut short before it was saved")
    train, timestep = run.loaded.train_of(chunk.cells[0]), saved.checkpoint.timestep
    agent = make_agent(run.env, train)
    example = jax.eval_shape(lambda: jax.vmap(agent.init)(seed_keys(jnp.asarray(chunk.seeds))))
    states = checkpoint.read_agents(saved.checkpoint, example)
    failed = tables.failed_seeds(saved.reports.to_pydict())
    known = {(one.cell, one.seed) for one in failed}
    is_good = jax.vmap(all_finite, axis_size=len(chunk.seeds))(states)  # also of states without arrays
    members = zip(chunk.cells.tolist(), chunk.seeds.tolist(), np.asarray(is_good), strict=True)
    news = [(cell, seed) for cell, seed, is_well in members if not is_well and (cell, seed) not in known]
    failed += [FailedSeed(*member, timestep, PARAMETERS) for member in news]
    timesteps = np.full(len(chunk.seeds), timestep, np.int32)
    return Learned(train, run.config.arguments(chunk.cells), states, chunk.cells, chunk.seeds, timesteps, failed)


def _concat(parts: list[Learned]) -> Learned:
    """Joins the members of several chunks of one program."""
    arguments, *rest = jax.tree.map(lambda *x: np.concatenate(x), *(part[1:-1] for part in parts))
    return Learned(parts[0].train, arguments, *rest, failed=[seed for part in parts for seed in part.failed])


def _read_member(
    run: _Run, seed: int | None, settings: dict[str, Any], *, allow_failed: bool, pass_over: bool = False
) -> tuple[Agent, Any]:
    """The agent of the cell with these settings, and the agent's state of one seed.

    With `pass_over` it is the first seed that has not failed. Only chunks that hold such members are read.
    """
    path, config = run.path, run.config
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"seed is {seed}; {path} has seeds {config.seeds[0]} to {config.seeds[-1]}")
    number = find_cell(config.cells, coerce_all(config.train.kind, settings))
    first = None  # of those that failed
    for chunk in config.chunks:
        members = np.flatnonzero((chunk.cells == number) & (pass_over | (chunk.seeds == seed)))
        if not len(members):
            continue
        learned = _read_chunk(run, chunk)
        found = {one.seed: one for one in learned.failed if one.cell == number}
        first = first or next((found[x] for x in chunk.seeds[members] if x in found), None)
        taken = next((i for i in members if allow_failed or chunk.seeds[i] not in found), None)
        if taken is None:
            continue
        if pass_over and first and chunk.seeds[taken] > first.seed:
            message = (
                f"{path}: {first.in_words(config.cells)}; the reference is the policy of seed {chunk.seeds[taken]}"
            )
            warnings.warn(printable(message), stacklevel=3)
        timestep, total = learned.timesteps[taken], config.train.total_timesteps
        if timestep < total:
            message = f"this policy is that of timestep {timestep:,} of {total:,}"
            warnings.warn(f"{printable(path)} is not trained to its end: {message}", stacklevel=3)
        agent = make_agent(run.env, run.loaded.train_of(number))
        return agent, jax.tree.map(lambda x, i=taken: jnp.asarray(x[i]), learned.states)
    assert first is not None
    if pass_over:
        raise InputError(f"{path} cannot be a reference: all its seeds failed; {first.in_words(config.cells)}")
    raise InputError(f"{path}: {first.in_words(config.cells)}; allow_failed=True loads its policy from before")


def load_policy(
    path: str | Path,
    *,
    seed: int | None = None,
    deterministic: bool = True,
    allow_failed: bool = False,
    env: Env | None = None,
    **settings: Any,
) -> Policy:
    """A trained policy as a plain function: NumPy observation in, NumPy action out.

    Args:
        path: a run directory. If it is not trained to its end, the newest checkpoint is read, with a warning.
        seed: one of the run's; by default its first.
        deterministic: act by the policy's mode instead of a sample.
        allow_failed: take a failed seed's policy from before it failed.
        env: the environment that the run was trained in; by default it is made from its id.
        **settings: settings that name one cell of the run's sweep: `learning_rate=1e-3`.

    Returns:
        A `Policy` from one observation [*obs_shape], or a batch [n, *obs_shape], to actions in the environment's units.

    Raises:
        InputError: `path` is no run directory, has no checkpoint, has no such seed or cell, or the seed failed.
    """
    run = _open_run(Path(path), env)
    agent, state = _read_member(run, seed, settings, allow_failed=allow_failed)
    return Policy(agent, state, run.env, deterministic)


class Policy:
    """A trained policy; call it with observations. It draws from its own key, so a new one repeats itself."""

    def __init__(self, agent: Agent, state: Any, env: Env, deterministic: bool) -> None:
        self.env_spec = env.spec
        self.deterministic = deterministic
        self._key = evaluation_key(0)
        self._state = state

        def choose(key: jax.Array, state: Any, obs: jax.Array) -> jax.Array:
            return scale_to_bounds(agent.act(key, state, obs, deterministic=deterministic)[0], env.spec.action_space)

        def act(key: jax.Array, state: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, act_key = jax.random.split(key)
            return key, choose(act_key, state, obs)

        self._choose, self._act = choose, jax.jit(act)

    def choose(self, key: jax.Array, obs: jax.Array) -> jax.Array:
        """The policy as a pure function of a key, [..., *obs_shape] -> [..., *action_shape] in the environment's units.

        A deterministic one takes no notice of the key.
        """
        return self._choose(key, self._state, obs)

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
