"""Run directories: everything about a training of many seeds, perhaps of a grid of settings, described by itself.

    config.json         the full settings, the versions and the device
    metrics.parquet     one row per seed and report, of every cell of the grid
    checkpoints/0-7/    of the seeds 0 to 7: all that it takes to go on, and what their agents have learned;
                        2.0-5.7 are those of a grid from cell 2, seed 0, to cell 5, seed 7
    reference/          the earlier run whose policy is the reference, where there is one
    learning_curve.png  the return over training

Seeds, of all cells, are trained in chunks, all of a chunk in one program. Reading a run directory executes nothing that
is in it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsoft.agents.references import is_built_in
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Cell, Chunk, Grid, argument_names, cells_of, check_grid, check_size, chunks_of
from jaxsoft.runs.checkpoint import TABLE, timesteps
from jaxsoft.runs.files import (
    LOCK,
    PARTIAL,
    copy,
    locked,
    new_folder,
    read_regular,
    remove,
    remove_partial,
    tell_errors,
    within,
    write_atomically,
)
from jaxsoft.training.config import TrainConfig, check, experience_of, make_config, settings_of, with_settings
from jaxsoft.training.schedule import last_timestep

FORMAT = 3
"""Version of the directory's layout, in `config.json`."""

CONFIG, CHECKPOINTS = "config.json", "checkpoints"

RUN_SETTINGS = ("seed", "num_seeds", "seeds_per_chunk", "checkpoint_every", "keep_checkpoints")
"""Those settings of a run that are not those of one seed's training."""

LONGEST = 100_000
"""Bytes of the longest `config.json` that is read."""

REFERENCE = "reference"
"""The copy of the run that is the reference, within a run directory."""

PACKAGES = (
    *("jaxsoft", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("gymnax", "brax", "mujoco", "mujoco-mjx"),
)


@dataclass(frozen=True)
class RunConfig:
    """What a run trains: the agent `agent_name` in `env_id`, for the seeds `seed`, …, `seed` + `num_seeds` − 1.

    Attributes:
        agent_name: for example `sac`.
        env_id: for example `gymnax/Pendulum-v1`.
        train: the settings of one seed's training, but for those that `sweep` gives.
        seed: the first seed.
        num_seeds: how many there are, of every cell.
        seeds_per_chunk: how many, of all cells together, are trained at once in one program; 0: all that can be.
        checkpoint_every: timesteps between checkpoints; 0: none is kept from which a training could go on.
        keep_checkpoints: how many are kept of each chunk, the newest.
        sweep: a grid of settings; each of its cells is trained with all seeds.
    """

    agent_name: str
    env_id: str
    train: TrainConfig
    seed: int = 0
    num_seeds: int = 1
    seeds_per_chunk: int = 0
    checkpoint_every: int = 50_000
    keep_checkpoints: int = 2
    sweep: Grid = field(default_factory=dict)

    @property
    def seeds(self) -> np.ndarray:
        """[num_seeds], int32."""
        return np.arange(self.seed, self.seed + self.num_seeds, dtype=np.int32)

    @property
    def cells(self) -> list[Cell]:
        """The settings of each cell that the cells do not share; without a sweep one cell, with none."""
        return cells_of(self.sweep)

    @property
    def chunks(self) -> list[Chunk]:
        """All seeds of all cells as they are trained, in order."""
        return chunks_of(self.agent_name, self.sweep, self.seeds, self.seeds_per_chunk)

    def arguments(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """What programs are given for cells [n] of these numbers: settings by name, each [n], float32."""
        all_cells, names = self.cells, argument_names(self.agent_name, self.sweep)
        return {name: np.array([all_cells[i][name] for i in cells], np.float32) for name in names}


@contextmanager
def new_run(path: Path, config: RunConfig) -> Iterator[None]:
    """A new run directory, locked while it is trained. Where that fails before its first checkpoint, nothing is left.

    Where only standard output fails, or the process is asked to end, it stays: the training can go on.

    Raises:
        InputError: there is something in `path` already, it cannot be written, or another process has it.
    """
    was_there = path.exists()
    check_empty(path)
    with locked(path, CHECKPOINTS) as require_place:
        create(path, config)
        try:
            yield
        except Exception as error:
            is_output = isinstance(error, OSError) and error.filename is None
            with suppress(InputError):
                require_place()  # what is there now may be another's
                if not is_output and not any(timesteps(path / CHECKPOINTS / chunk.name) for chunk in config.chunks):
                    for name in (CONFIG, TABLE, REFERENCE, CHECKPOINTS):
                        remove(path / name)
                    remove_partial(path)
                    if not was_there:
                        with suppress(OSError):  # something else was put there meanwhile
                            path.rmdir()
            raise


def create(path: Path, config: RunConfig) -> None:
    """Makes a new run directory with its `config.json`, and a copy of the run that is its reference.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    if callable(getattr(config.train.agent, "reference", None)):
        raise InputError("reference is a function, which a run directory cannot hold; name an earlier run's directory")
    reference = reference_run(config.train)
    check_empty(path)
    remove_partial(path)
    try:
        if reference is not None:
            _copy_run(reference, path / REFERENCE)
        _write_config(path, describe(config))
    except BaseException:
        remove(path / REFERENCE)
        raise


@contextmanager
def new_results(path: Path, description: dict[str, Any]) -> Iterator[None]:
    """A new folder of results that describes itself in `config.json`. Where writing fails, nothing is left in it.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    check_empty(path)
    remove_partial(path)
    try:
        yield
        _write_config(path, description)
    except BaseException:
        for entry in path.glob("*"):
            remove(entry)
        raise


def check_empty(path: Path) -> None:
    """Makes sure that a folder for a new run is there, with nothing in it but what a killed process may have left.

    That is the lock, and files that were not finished. Nothing is removed: another process may be about to write here.

    Raises:
        InputError: there is something else in it, it cannot be written, or its name is not UTF-8, as Orbax wants it.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"the output folder is {str(path)!r}; its name must be UTF-8") from None
    try:
        path.mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(PARTIAL)]
        held = [entry for folder in entries if folder.name == CHECKPOINTS for entry in folder.iterdir()]
        if any(entry.name != CHECKPOINTS for entry in entries) or any(entry.name != LOCK for entry in held):
            raise InputError(f"the output folder {path} is not empty; nothing was changed in it")
    except OSError as error:
        raise InputError(f"the output folder {path} cannot be written: {error.strerror or error}") from None


def _write_config(path: Path, description: dict[str, Any]) -> None:
    """Writes `config.json`, last of all: what has one is a run directory; format, description, versions and device."""
    devices = jax.devices()
    description = {
        "format": FORMAT,
        **description,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{len(devices)} x {devices[0].device_kind}",
    }
    write_atomically(path / CONFIG, (json.dumps(description, indent=2) + "\n").encode())


def reference_run(config: TrainConfig) -> Path | None:
    """The earlier run's directory that the setting `reference` names, if it names one."""
    reference = getattr(config.agent, "reference", None)
    if not isinstance(reference, str) or not reference or is_built_in(reference):
        return None
    return Path(reference)


def _copy_run(source: Path, target: Path) -> None:
    """Copies what it takes to load a run's policies, and nothing that a link leads to."""
    if not (source / CONFIG).is_file():
        raise InputError(f"the reference {source} is not a run directory: it has no {CONFIG}")
    with tell_errors(target, "written"), new_folder(target) as partial:
        copy(source / CONFIG, partial / CONFIG)
        for name in (CHECKPOINTS, REFERENCE):
            if os.path.lexists(source / name):
                copy(source / name, partial / name)


def read_config(path: Path) -> RunConfig:
    """Reads a run directory's settings.

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    file = within(path, CONFIG)
    if not file.is_file():
        raise InputError(f"{path} is not a run directory: it has no {CONFIG}")
    text = read_regular(file, LONGEST)
    try:
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise InputError(f"{file} has format {values['format']!r}; this version reads {FORMAT}")
        if "method" in values:
            raise InputError(f"{path} is a run of `jaxsoft tabular {values['method']}`, which has no agent")
        agent = dict(values["agent"])
        agent_name = agent.pop("name")
        loop = {f.name: values[f.name] for f in dataclasses.fields(TrainConfig) if f.name != "agent"}
        config = RunConfig(
            agent_name,
            values["env"],
            make_config(agent_name, values["env"], agent | loop),
            **{name: _integer(name, values[name]) for name in RUN_SETTINGS},
            sweep=_read_grid(agent_name, values.get("sweep", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is cut short or was changed by hand ({type(error).__name__}: {str(error)[:100]})"
        ) from None
    check_run(config)
    return config


def check_run(config: RunConfig) -> None:
    """Checks the settings that are not those of one seed's training.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    for name in RUN_SETTINGS:
        check(name, getattr(config, name))
    check_size(check_grid(config.agent_name, config.sweep), config.num_seeds)


def _read_grid(agent_name: str, values: Any) -> Grid:
    if not isinstance(values, dict) or not all(isinstance(x, list) for x in values.values()):
        raise TypeError("sweep must name settings, each with its values")
    return check_grid(agent_name, values)


def _integer(name: str, value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    return value


def extended(path: Path, total_timesteps: int) -> RunConfig:
    """The settings of a run that is to train for more timesteps than it was to; see `change`.

    Raises:
        InputError: they are no more, or the run keeps no checkpoints to go on from.
    """
    config = read_config(path)
    if total_timesteps <= config.train.total_timesteps:
        raise InputError(
            f"total_timesteps is {total_timesteps}; it must be more than the run's {config.train.total_timesteps} "
            f"(what was cut short goes on with: jaxsoft train --resume {path})"
        )
    if not config.checkpoint_every:
        raise InputError(f"{path} cannot go on: it was trained with --checkpoint-every 0")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, total_timesteps=total_timesteps))


def change(path: Path, config: RunConfig) -> None:
    """Writes other settings to a run's `config.json`, once all is found to fit them.

    Raises:
        InputError: it cannot be written.
    """
    _write_config(path, describe(config))


def require_within_end(config: RunConfig, found: Path, timestep: int) -> None:
    """Refuses what was made beyond a run's end: `total_timesteps` was lowered by hand.

    Raises:
        InputError: `found` is of a `timestep` after the last.
    """
    train = with_settings(config.train, config.cells[0])
    end = last_timestep(train, experience_of(config.agent_name, train))
    if timestep > end:
        raise InputError(
            f"{found} is of timestep {timestep:,}, after the end: total_timesteps is {config.train.total_timesteps} in "
            f"{CONFIG}, which was changed by hand"
        )


def checkpoint_folder(path: Path, chunk: Chunk) -> Path:
    """Where the checkpoints of a chunk are.

    Raises:
        InputError: a link there leads outside of the run directory.
    """
    return within(path, CHECKPOINTS, chunk.name)


def same_training(config: RunConfig) -> dict[str, Any]:
    """The settings that a checkpoint and the run that goes on from it must have in common."""
    differing = ("total_timesteps", "checkpoint_every", "keep_checkpoints")
    return json.loads(json.dumps({name: x for name, x in describe(config).items() if name not in differing}))


def describe(config: RunConfig) -> dict[str, Any]:
    """The settings as `config.json` holds them."""
    settings = settings_of(config.train)
    of_run = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)[3:]}
    if not config.sweep:
        of_run.pop("sweep")
    agent = {name: settings.pop(name) for name in vars(config.train.agent)}
    return {
        "agent": {"name": config.agent_name} | agent,
        "env": config.env_id,
        **of_run,
        **settings,
    }
