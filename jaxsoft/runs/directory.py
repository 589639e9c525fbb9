"""Run directories: everything about a training of many seeds, perhaps of a grid of settings, described by itself.

    config.json         the full settings, the versions and the device
    metrics.parquet     one row per seed and report, of every cell of the grid
    checkpoints/0-7/    of the seeds 0 to 7: all that it takes to go on, and what their agents have learned;
                        2.0-5.7 are those of a grid from cell 2, seed 0, to cell 5, seed 7
    reference/          the earlier run whose policy is the reference, where there is one
    logs/               what loggers write, where there are some
    learning_curve.png  the return over training

Seeds, of all cells, are trained in chunks, all of a chunk in one program. Reading a run directory executes nothing that
is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Chunk
from jaxsoft.runs import tables
from jaxsoft.runs.checkpoint import Checkpoint, newest, timesteps
from jaxsoft.runs.config import CONFIG, RunConfig, describe, reference_run, require_before_end, same_training
from jaxsoft.runs.files import copy, lock, new_folder, path_inside, remove, remove_partial, tell_errors
from jaxsoft.runs.results import CHECKPOINTS, check_empty, new_results
from jaxsoft.training.config import settings_of

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE = "reference"
"""The copy of the run that is the reference, within a run directory."""

LOGS = "logs"
"""The folder of what loggers write, within a run directory."""


@contextmanager
def new_run(path: Path, config: RunConfig) -> Iterator[None]:
    """A new run directory, locked while it is trained. Where that fails before its first checkpoint, nothing is left.

    Where only standard output fails, or the process is asked to end, it stays: the training can go on.

    Raises:
        InputError: there is something in `path` already, it cannot be written, another process has it, or a setting is
            a function.
    """
    _refuse_functions(config)
    was_there = path.exists()
    check_empty(path)
    with lock(path, CHECKPOINTS) as require_place:
        create(path, config)
        try:
            yield
        except Exception as error:
            is_output = isinstance(error, OSError) and error.filename is None
            with suppress(InputError):
                require_place()  # what is there now may be another's
                if not is_output and not any(timesteps(path / CHECKPOINTS / chunk.name) for chunk in config.chunks):
                    for name in (CONFIG, tables.NAME, REFERENCE, CHECKPOINTS, LOGS):
                        remove(path / name)
                    remove_partial(path)
                    if not was_there:
                        with suppress(OSError):  # something else was put there meanwhile
                            path.rmdir()
            raise


def create(path: Path, config: RunConfig) -> None:
    """Makes a new run directory with its `config.json`, and a copy of the run that is its reference.

    Raises:
        InputError: there is something in `path` already, it cannot be written, or a setting is a function.
    """
    _refuse_functions(config)
    with new_results(path, describe(config)):
        reference = reference_run(config.train)
        if reference is not None:
            _copy_run(reference, path / REFERENCE)


def _refuse_functions(config: RunConfig) -> None:
    for name, value in settings_of(config.train).items():
        if callable(value) or any(map(callable, config.sweep.get(name, ()))):
            instead = "name an earlier run's directory" if name == "reference" else "jaxsoft.make_train takes it"
            what = "a module" if name == "network" else "a function"
            raise InputError(f"{name} is {what}, which a run directory cannot hold; {instead}")


def _copy_run(source: Path, target: Path) -> None:
    """Copies what it takes to load a run's policies, and nothing that a link leads to."""
    if not (source / CONFIG).is_file():
        raise InputError(f"the reference {source} is not a run directory: it has no {CONFIG}")
    with tell_errors(target, "written"), new_folder(target) as unfinished:
        copy(source / CONFIG, unfinished / CONFIG)
        for name in (CHECKPOINTS, REFERENCE):
            if os.path.lexists(source / name):
                copy(source / name, unfinished / name)


def checkpoint_folder(path: Path, chunk: Chunk) -> Path:
    """The folder of a chunk's checkpoints.

    Raises:
        InputError: a link there leads outside of the run directory.
    """
    return path_inside(path, CHECKPOINTS, chunk.name)


class SavedChunk(NamedTuple):
    """A checkpoint of a chunk, and the reports that were made before it."""

    checkpoint: Checkpoint
    reports: pa.Table


def open_chunk(path: Path, config: RunConfig, chunk: Chunk, *, at_most: int | None = None) -> SavedChunk | None:
    """Opens a chunk's newest checkpoint, up to timestep `at_most`, once it is found whole; None where there is none.

    Raises:
        InputError: it is broken, of other settings, or of a timestep after the run's end; or its reports are not those
            of the chunk's members.
    """
    found = newest(checkpoint_folder(path, chunk), same_training(config), at_most=at_most)
    if found is None:
        return None
    require_before_end(config, found.path, found.timestep)
    return SavedChunk(found, tables.read(found.path / tables.NAME, config, chunk))
