"""A run's settings, as data and as `config.json`. Reading them executes nothing that they hold."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxsoft.agents import agent_of_run
from jaxsoft.agents.references import is_built_in
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Cell, Chunk, Grid, Layout, check_grid, check_size, lay_out
from jaxsoft.runs.files import path_inside, read_regular
from jaxsoft.training.config import LOOP_SETTINGS, TrainConfig, check, make_config, settings_of, with_settings
from jaxsoft.training.schedule import last_timestep

FORMAT = 3
"""Version of the run directory's layout."""

CONFIG = "config.json"

RUN_SETTINGS = ("seed", "num_seeds", "seeds_per_chunk", "checkpoint_every", "keep_checkpoints")
"""The settings of a run that a single seed's training does not have."""

LATER_SETTINGS = ("activation", "network", "matmul_precision", "step_size_rule")
"""Settings that checkpoints name only where they are not the default: earlier ones of the same format lack them."""

LONGEST = 100_000
"""Bytes of the longest `config.json` that is read."""


@dataclass(frozen=True)
class RunConfig:
    """The plan of a run: an agent in `env_id`, for the seeds `seed`, …, `seed` + `num_seeds` − 1.

    Attributes:
        env_id: for example `gymnax/Pendulum-v1`.
        train: the agent, and the settings of training; `sweep` overrides them.
        seed: the first seed.
        num_seeds: seeds of every cell.
        seeds_per_chunk: seeds, of all cells together, trained at once in one program; 0: as many as fit.
        checkpoint_every: timesteps between checkpoints; 0: only what was learned is kept, at the end.
        keep_checkpoints: how many of each chunk are kept, the newest.
        sweep: a grid of settings; each of its cells is trained with all seeds.
    """

    env_id: str
    train: TrainConfig
    seed: int = 0
    num_seeds: int = 1
    seeds_per_chunk: int = 0
    checkpoint_every: int = 50_000
    keep_checkpoints: int = 2
    sweep: Grid = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the settings that are not those of one seed's training.

        Raises:
            InputError: names the setting, its value and what is allowed.
        """
        for name in RUN_SETTINGS:
            try:
                object.__setattr__(self, name, operator.index(getattr(self, name)))
            except TypeError:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be an integer") from None
            check(name, getattr(self, name))
        object.__setattr__(self, "sweep", check_grid(self.train.kind, self.sweep))
        check_size(self.sweep, self.num_seeds)

    @property
    def seeds(self) -> np.ndarray:
        """[num_seeds], int32."""
        return np.arange(self.seed, self.seed + self.num_seeds, dtype=np.int32)

    @cached_property
    def layout(self) -> Layout:
        """Cells, programs and chunks."""
        return lay_out(self.train.kind, self.sweep, self.seeds, self.seeds_per_chunk)

    @property
    def cells(self) -> list[Cell]:
        """The settings of each cell that the sweep names; without a sweep one cell, with none."""
        return self.layout.cells

    @property
    def chunks(self) -> list[Chunk]:
        """All seeds of all cells as they are trained, in order."""
        return self.layout.chunks

    def arguments(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """Arguments of the programs for cells [n] of these numbers: settings by name, each [n], float32."""
        return {name: np.array([self.cells[i][name] for i in cells], np.float32) for name in self.layout.arguments}

    def train_of(self, cell: int) -> TrainConfig:
        """The settings of training in the cell of this number."""
        return with_settings(self.train, self.cells[cell])

    @property
    def last_timestep(self) -> int:
        """Environment steps of a seed at the end: `total_timesteps`, rounded up to whole turns."""
        return last_timestep(self.train_of(0))


def reference_run(config: TrainConfig) -> Path | None:
    """The earlier run's directory that the setting `reference` names, or None."""
    reference = vars(config.agent).get("reference")
    return Path(reference) if isinstance(reference, str) and reference and not is_built_in(reference) else None


def read_config(path: Path) -> RunConfig:
    """Reads a run directory's settings.

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    file = path_inside(path, CONFIG)
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
        kind = agent_of_run(agent.pop("name"))
        loop = {name: values[name] for name in LOOP_SETTINGS}
        return RunConfig(
            values["env"],
            make_config(kind, values["env"], agent | loop),
            **{name: _integer(name, values[name]) for name in RUN_SETTINGS},
            sweep=_read_grid(values.get("sweep", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is cut short or was changed by hand ({type(error).__name__}: {str(error)[:100]})"
        ) from None


def _read_grid(values: Any) -> Grid:
    if not isinstance(values, dict) or not all(isinstance(x, list) for x in values.values()):
        raise TypeError("sweep must name settings, each with its values")
    return values


def _integer(name: str, value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    return value


def extend(path: Path, total_timesteps: int) -> RunConfig:
    """Reads a run's settings with more timesteps, for `write_config`.

    Raises:
        InputError: they are not more, or the run keeps no checkpoints to go on from.
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


def require_before_end(config: RunConfig, found: Path, timestep: int) -> None:
    """Raises an `InputError` if `found` is of a timestep after the run's end: `total_timesteps` was lowered by hand."""
    if timestep > config.last_timestep:
        raise InputError(
            f"{found} is of timestep {timestep:,}, after the end: total_timesteps is {config.train.total_timesteps} in "
            f"{CONFIG}, which was changed by hand"
        )


def same_training(config: RunConfig) -> dict[str, Any]:
    """The settings that a checkpoint and the run that goes on from it must have in common."""
    differing = ("total_timesteps", "checkpoint_every", "keep_checkpoints")
    settings = {name: x for name, x in describe(config).items() if name not in differing}
    defaults = settings_of(TrainConfig(config.train.kind, config.train.kind.Config()))

    def without_later(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in settings.items() if name not in LATER_SETTINGS or x != defaults[name]}

    return json.loads(json.dumps(without_later(settings) | {"agent": without_later(settings["agent"])}))


def describe(config: RunConfig) -> dict[str, Any]:
    """The settings as `config.json` holds them."""
    settings = settings_of(config.train)
    agent = {name: settings.pop(name) for name in vars(config.train.agent)}
    return {
        "agent": {"name": config.train.kind.name} | agent,
        "env": config.env_id,
        **{name: getattr(config, name) for name in RUN_SETTINGS},
        **({"sweep": config.sweep} if config.sweep else {}),
        **settings,
    }
