"""Trains and judges an entry; what came out is rows of results.parquet, one per seed and evaluation."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_type_hints

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.go_on import train_on
from experiments.reference import others
from experiments.reference.tasks import Entry
from jaxsoft import runs
from jaxsoft.bench.results import describe_machine
from jaxsoft.runs.evaluation import evaluate_run
from jaxsoft.runs.files import write_atomically
from jaxsoft.runs.tables import read_returns

FILE = Path(__file__).with_name("results.parquet")
NUM_EPISODES = 100
ON_HOST = 20
"""Episodes in gymnasium's own environments, which a processor plays one step at a time."""


class Row(NamedTuple):
    """One seed's mean return over some episodes.

    Attributes:
        group: of the entry, and so on to its `variant`.
        seed: of the training.
        timestep: environment steps that the policy has learned from.
        moment: `training`, or `final` for the policies at its end.
        played_in: id of the environment.
        policy: `deterministic` (modes) or `stochastic` (samples).
        num_episodes: of the mean.
        mean_return: −∞ of a seed that failed.
        settings: of the run, as its `config.json` holds them.
        device: that trained it, and the versions of jaxsoft and JAX.
    """

    group: str
    agent: str
    env: str
    variant: str
    seed: int
    timestep: int
    moment: str
    played_in: str
    policy: str
    num_episodes: int
    mean_return: float
    settings: str
    device: str
    version: str
    jax: str


TYPES = {str: pa.dictionary(pa.int32(), pa.string()), int: pa.int32(), float: pa.float64()}
SCHEMA = pa.schema({name: TYPES[kind] for name, kind in get_type_hints(Row).items()})


def read() -> list[Row]:
    """All that has been measured."""
    return [Row(**row) for row in pq.read_table(FILE, schema=SCHEMA).to_pylist()] if FILE.exists() else []


def add(rows: Sequence[Row]) -> None:
    """Writes rows in place of those of the same entries."""
    new = {(row.agent, row.env, row.variant) for row in rows}
    kept = [row for row in read() if (row.agent, row.env, row.variant) not in new]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row._asdict() for row in (*kept, *rows)], SCHEMA), content, compression="zstd")
    write_atomically(FILE, content.getvalue())


def train(entry: Entry, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Trains an entry on from where it stands; whether it came to its end before `should_stop` was true.

    Raises:
        SystemExit: the folder has another run in its place.
    """
    if entry.library:
        return others.train(entry, folder, should_stop, ON_HOST)
    try:
        train_on(folder / entry.name, entry.config, should_stop)
    except runs.Interrupted as interrupted:
        print(f"  stopped at timestep {interrupted.timestep:,}, saved", flush=True)
        return False
    return True


def judge(entry: Entry, folder: Path) -> Iterator[Row]:
    """The rows of a finished entry: evaluations during its training, and episodes of its final policies."""
    machine = describe_machine(jax.local_devices())
    versions = {name: machine["versions"][package] for name, package in (("version", "jaxsoft"), ("jax", "jax"))}
    row = partial(
        Row,
        entry.group,
        entry.agent,
        entry.env_id,
        entry.variant,
        settings=entry.written_settings,
        device=machine["device"]["name"],
        **versions,
    )
    yield from _of_library(entry, folder, row) if entry.library else _of_run(entry, folder / entry.name, row)


def _of_run(entry: Entry, path: Path, row: Callable[..., Row]) -> Iterator[Row]:
    (curve,) = read_returns(path)
    num_episodes = entry.config.train.eval_episodes
    for timestep, returns in zip(curve.timesteps.tolist(), curve.returns.tolist(), strict=True):
        for seed, value in enumerate(returns):
            yield row(seed, timestep, "training", entry.env_id, "deterministic", num_episodes, value)
    for policy, env_id in entry.ways:
        num_episodes = ON_HOST if env_id.startswith("gymnasium/") else NUM_EPISODES
        found = evaluate_run(path, num_episodes=num_episodes, deterministic=policy == "deterministic", env_id=env_id)
        means = found.returns.mean(axis=1, dtype=np.float64).tolist()
        for seed, (timestep, value) in enumerate(zip(found.timesteps.tolist(), means, strict=True)):
            yield row(seed, timestep, "final", env_id, policy, num_episodes, value)


def _of_library(entry: Entry, folder: Path, row: Callable[..., Row]) -> Iterator[Row]:
    config = entry.config.train
    for seed, found in others.read(entry, folder):
        for timestep, value in found["training"]:
            yield row(seed, timestep, "training", entry.env_id, "deterministic", config.eval_episodes, value)
        for policy, value in found["final"].items():
            yield row(seed, config.total_timesteps, "final", entry.env_id, policy, ON_HOST, value)
