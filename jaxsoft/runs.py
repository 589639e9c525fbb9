"""Run directories: everything about a sweep of seeds, described by itself.

    config.json         the full settings, the versions and the device
    metrics.parquet     one row per seed and report
    checkpoints/final/  what every seed's agent has learned
    reference/          the earlier run whose policy is the reference, where there is one
    learning_curve.png  the return over training

Reading one executes nothing that is in it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft import checkpoint
from jaxsoft.config import TrainConfig, check, make_config, settings_of, validate
from jaxsoft.envs import make_env
from jaxsoft.envs.gymnasium import PREFIX, make_host_envs
from jaxsoft.envs.wrappers import to_bounds
from jaxsoft.errors import InputError
from jaxsoft.evaluation import EpisodeTotals, evaluate, evaluate_on_host
from jaxsoft.references import is_built_in
from jaxsoft.sweep import seed_keys
from jaxsoft.training import make_agent
from jaxsoft.types import Agent, Box, Discrete, Env, EnvSpec, Metrics

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
"""Version of the directory's layout, in `config.json`."""

REFERENCE = "reference"
"""The copy of the run that is the reference, within a run directory."""

PACKAGES = (
    *("jaxsoft", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("gymnax", "brax", "mujoco", "mujoco-mjx"),
)


@dataclass(frozen=True)
class RunConfig:
    """What a run trains: the agent `agent_name` in `env_id`, for the seeds `seed`, …, `seed` + `num_seeds` − 1."""

    agent_name: str
    env_id: str
    train: TrainConfig
    seed: int = 0
    num_seeds: int = 1

    @property
    def seeds(self) -> np.ndarray:
        """[num_seeds], int32."""
        return np.arange(self.seed, self.seed + self.num_seeds, dtype=np.int32)


def create(path: Path, config: RunConfig) -> None:
    """Makes a new run directory with its `config.json`, and a copy of the run that is its reference.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    if callable(getattr(config.train.agent, "reference", None)):
        raise InputError("reference is a function, which a run directory cannot hold; name an earlier run's directory")
    reference = reference_run(config.train)
    create_folder(path, _describe(config))
    if reference is not None:
        _copy_run(reference, path / REFERENCE)


def create_folder(path: Path, description: dict[str, Any]) -> None:
    """Makes a new folder that describes itself in `config.json`: format, description, versions and device.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    devices = jax.devices()
    description = {
        "format": FORMAT,
        **description,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{len(devices)} x {devices[0].device_kind}",
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise InputError(f"the output folder {path} is not empty; nothing was changed in it")
        write_atomically(path / "config.json", (json.dumps(description, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"the output folder {path} cannot be written: {error.strerror or error}") from None


def reference_run(config: TrainConfig) -> Path | None:
    """The earlier run's directory that the setting `reference` names, if it names one."""
    reference = getattr(config.agent, "reference", None)
    if not isinstance(reference, str) or not reference or is_built_in(reference):
        return None
    return Path(reference)


def _copy_run(source: Path, target: Path) -> None:
    """Copies what it takes to load a run's policies."""
    shutil.copytree(source, target, ignore=lambda _, names: [n for n in names if n.startswith((".", "learning_curve"))])


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


def load_reference(path: str | Path, *, seed: int | None = None) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of discrete actions as a reference policy, for the setting `reference`.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.

    Returns:
        A function of observations [..., *obs_shape] -> log π [..., A].

    Raises:
        InputError: `path` is no run directory, has no such seed, or its actions are continuous.
    """
    config, _, agent, states = read_agents(Path(path))
    if agent.log_probs is None:
        raise InputError(f"{path} cannot be a reference: the actions of {config.agent_name} are continuous")
    log_probs, state = agent.log_probs, _of_seed(states, config, seed, Path(path))
    return lambda obs: jax.lax.stop_gradient(log_probs(state, obs))


def _of_seed(states: Any, config: RunConfig, seed: int | None, path: Path) -> Any:
    """One seed's state; None is the first."""
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"seed is {seed}; {path} has seeds {config.seeds[0]} to {config.seeds[-1]}")
    return jax.tree.map(lambda x: x[seed - config.seed], states)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new, never half of one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def metrics_rows(config: RunConfig, metrics: Metrics, steps_per_second: float) -> pa.Table:
    """One report as rows, one per seed; a return that was not evaluated is null.

    `steps_per_second` is that of the whole sweep: environment steps of all seeds per second of wall time.
    """
    import pyarrow as pa

    columns = {name: np.asarray(value) for name, value in metrics.items()}
    not_evaluated = pa.nulls(config.num_seeds, pa.float32())
    first = {
        "seed": config.seeds,
        "timestep": columns.pop("timestep"),
        "eval_return": columns.pop("eval_return", not_evaluated),
    }
    return pa.table(first | columns | {"steps_per_second": np.full(config.num_seeds, steps_per_second)})


def write_metrics(path: Path, rows: list[pa.Table]) -> None:
    """Writes `metrics.parquet` anew, with all rows so far."""
    import pyarrow as pa

    write_table(path / "metrics.parquet", pa.concat_tables(rows))


def write_table(file: Path, table: pa.Table) -> None:
    """Writes a table as Parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomically(file, buffer.getvalue().to_pybytes())


def write_columns(file: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns of equal length as a table."""
    import pyarrow as pa

    write_table(file, pa.table(dict(columns)))


def save_agents(path: Path, agent_states: Any) -> None:
    """Writes what all seeds have learned."""
    checkpoint.save(path / "checkpoints" / "final", agent_states)


def read_config(path: Path) -> RunConfig:
    """Reads a run directory's settings.

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{path} is not a run directory: it has no config.json")
    try:
        values = json.loads(file.read_text())
        if values["format"] != FORMAT:
            raise InputError(f"{file} has format {values['format']!r}; this version reads {FORMAT}")
        if "method" in values:
            raise InputError(f"{path} is a run of `jaxsoft tabular {values['method']}`, which has no agent")
        agent = dict(values["agent"])
        agent_name = agent.pop("name")
        loop = {field.name: values[field.name] for field in dataclasses.fields(TrainConfig) if field.name != "agent"}
        config = RunConfig(
            agent_name,
            values["env"],
            make_config(agent_name, values["env"], agent | loop),
            seed=int(values["seed"]),
            num_seeds=int(values["num_seeds"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is cut short or was changed by hand ({type(error).__name__}: {error})") from None
    check("seed", config.seed)
    check("num_seeds", config.num_seeds)
    return config


def read_metrics(path: Path) -> pa.Table:
    """Reads a run directory's `metrics.parquet`.

    Raises:
        InputError: it is missing or cut short.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_config(path)
    file = path / "metrics.parquet"
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is missing or cut short ({str(error).splitlines()[0][:120]})") from None


def read_agents(path: Path) -> tuple[RunConfig, Env, Agent, Any]:
    """Reads what a run has learned: its settings, environment, agent, and the states [num_seeds, ...].

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    config = read_config(path)
    env = make_env(config.env_id)
    validate(config.train, config.agent_name, env.spec)
    agent = make_agent(config.agent_name, env, with_reference(config.train, env.spec, path / REFERENCE))
    example = jax.eval_shape(lambda: jax.vmap(agent.init)(seed_keys(config.seeds)))
    return config, env, agent, checkpoint.restore(path / "checkpoints" / "final", example)


def evaluate_run(
    path: Path, *, num_episodes: int, deterministic: bool, seed: int = 0, env_id: str | None = None
) -> tuple[RunConfig, np.ndarray, np.ndarray]:
    """Plays `num_episodes` episodes with each seed's final policy.

    Every policy meets the same starts, which come from `seed`.

    Args:
        path: a run directory.
        num_episodes: episodes of each policy.
        deterministic: the policies' modes, or samples from them.
        seed: of the episodes.
        env_id: another environment than the run's, one of gymnasium's own (`gymnasium/Hopper-v5`) included; its
            observations and actions must have the same shapes.

    Returns:
        The run's settings, and the episodes' returns and lengths, each [num_seeds, num_episodes].
    """
    check("num_episodes", num_episodes)
    config, env, agent, states = read_agents(path)
    if env_id is not None and env_id.startswith(PREFIX):
        totals = _play_on_host(agent, states, env.spec, env_id, num_episodes, deterministic, seed)
        return config, np.asarray(totals.returns), np.asarray(totals.lengths)
    if env_id is not None:
        trained_in, env = env.spec, make_env(env_id)
        _check_fit(trained_in, env.spec)

    def play(state: Any) -> EpisodeTotals:
        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            return agent.act(key, state, obs, deterministic=deterministic)[0]

        return evaluate(jax.random.key(seed), act, env, num_episodes)

    totals = jax.jit(jax.vmap(play))(states)
    return config, np.asarray(totals.returns), np.asarray(totals.lengths)


def _play_on_host(
    agent: Agent, states: Any, trained_in: EnvSpec, env_id: str, num_episodes: int, deterministic: bool, seed: int
) -> EpisodeTotals:
    """Episodes of every seed's policy in gymnasium's own environments: leaves [num_seeds, num_episodes]."""
    spec, envs = make_host_envs(env_id, num_episodes)
    _check_fit(trained_in, spec)

    @jax.jit
    def act(state: Any, key: jax.Array, obs: jax.Array) -> jax.Array:
        action, _ = agent.act(key, state, obs, deterministic=deterministic)
        return to_bounds(action, spec.action_space) if isinstance(spec.action_space, Box) else action

    def play(state: Any) -> EpisodeTotals:
        return evaluate_on_host(jax.random.key(seed), partial(act, state), envs, seed=seed)

    num_seeds = jax.tree.leaves(states)[0].shape[0]
    totals = [play(jax.tree.map(lambda x, i=i: x[i], states)) for i in range(num_seeds)]
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


def load_policy(path: str | Path, *, seed: int | None = None, deterministic: bool = True) -> Policy:
    """A trained policy as a plain function: NumPy observation in, NumPy action out.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.
        deterministic: the policy's mode, or a sample from it.

    Returns:
        A `Policy` that takes one observation [*obs_shape] or a batch of them [n, *obs_shape], and gives
        actions in the environment's own units.

    Raises:
        InputError: `path` is no run directory, is cut short, or has no such seed.
    """
    config, env, agent, states = read_agents(Path(path))
    return Policy(agent, _of_seed(states, config, seed, Path(path)), env, deterministic)


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


def _describe(config: RunConfig) -> dict[str, Any]:
    settings = settings_of(config.train)
    agent = {name: settings.pop(name) for name in vars(config.train.agent)}
    return {
        "agent": {"name": config.agent_name} | agent,
        "env": config.env_id,
        "seed": config.seed,
        "num_seeds": config.num_seeds,
        **settings,
    }
