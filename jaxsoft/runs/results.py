"""New folders that describe themselves: there with all that belongs to them, or with nothing.

    config.json      format, description, versions and device

and, of a method that is no training of agents:

    history.parquet  one row per step or report
    history.png      their picture
    result.npz       what was found
"""

from __future__ import annotations

import importlib.metadata
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.runs import parquet
from jaxsoft.runs.config import CONFIG, FORMAT
from jaxsoft.runs.files import LOCK, PARTIAL, remove, remove_partial, tell_errors, write_atomically

CHECKPOINTS = "checkpoints"

PACKAGES = "jaxsoft jax jaxlib flax optax orbax-checkpoint numpy gymnax brax mujoco mujoco-mjx".split()


@contextmanager
def new_results(path: Path, description: dict[str, Any]) -> Iterator[None]:
    """A new folder to fill, which then gets its `config.json`. Where that fails, nothing is left in it.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    check_empty(path)
    remove_partial(path)
    try:
        yield
        write_config(path, description)
    except BaseException:
        for entry in path.glob("*"):
            if entry.name != CHECKPOINTS:  # which holds the lock
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
    with tell_errors(f"the output folder {path}", "written"):
        path.mkdir(parents=True, exist_ok=True)
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(PARTIAL)]
        held = [entry for folder in entries if folder.name == CHECKPOINTS for entry in folder.iterdir()]
        if any(entry.name != CHECKPOINTS for entry in entries) or any(entry.name != LOCK for entry in held):
            raise InputError(f"the output folder {path} is not empty; nothing was changed in it")


def write_config(path: Path, description: dict[str, Any]) -> None:
    """Writes `config.json`, last of all: what has one is whole.

    Raises:
        InputError: it cannot be written.
    """
    devices = jax.devices()
    description = {
        "format": FORMAT,
        **description,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{len(devices)} x {devices[0].device_kind}",
    }
    write_atomically(path / CONFIG, (json.dumps(description, indent=2) + "\n").encode())


def write_results(
    path: Path,
    description: dict[str, Any],
    history: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    draw: Callable[[Path], object],
) -> Path:
    """Writes a folder of results: columns of equal length, arrays, and what `draw` draws; returns that picture's path.

    Raises:
        InputError: there is something in `path` already, or it cannot be written.
    """
    picture, arrays = path / "history.png", io.BytesIO()
    np.savez(arrays, allow_pickle=False, **found)
    with new_results(path, description):
        write_atomically(path / "history.parquet", parquet.encode(parquet.load().table(dict(history))))
        write_atomically(path / "result.npz", arrays.getvalue())
        draw(picture)
    return picture
