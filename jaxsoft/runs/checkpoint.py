"""Checkpoints: all that it takes to go on as if nothing had happened, each with digests of its files.

    000000010000/       the timestep
      agent/            what every seed has learned, through Orbax
      training/         the rest of the training state: environments, replay, keys, counters, sums
      metrics.parquet   the reports so far
      manifest.json     settings, timestep, turn, and a digest of every file

A checkpoint appears under its name when all of it is on the disk. It is written while the training goes on, from a copy
on the host; of a replay that is not full only what it holds.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.runs import arrays, manifest
from jaxsoft.runs.files import new_folder, remove_folder, remove_partial, within
from jaxsoft.training.state import TrainState, map_leaves

AGENT, TRAINING, TABLE = "agent", "training", "metrics.parquet"

FACTS = {"settings": dict, "timestep": int, "turn": int, "has_training": bool}
"""What a checkpoint's manifest tells beside its files."""


class Checkpoint(NamedTuple):
    """A checkpoint whose manifest has been read.

    Attributes:
        path: its folder.
        timestep: environment steps taken.
        turn: turns taken since the prefill; a report that falls on it has been made.
        has_training: whether the training can go on from it.
    """

    path: Path
    timestep: int
    turn: int
    has_training: bool


class Snapshot(NamedTuple):
    """A training state on the host, or what it looks like, as `arrays.flatten` names its leaves."""

    agent: dict[str, Any]
    training: dict[str, Any]


def to_host(state: TrainState, seed_axes: Any, num_seeds: int) -> Snapshot:
    """Copies the first `num_seeds` seeds' state to the host, of the replay only the rows that hold data.

    The copy is the training's only wait: the device's memory is free again when this returns.
    """
    replay_state = state.replay_state
    num_rows = None if replay_state is None else int(replay_state.num_filled)
    copied = {}
    for name, x in arrays.flatten(state).items():
        whole = np.asarray(x)
        copied[name] = np.array(whole[:, :num_rows] if name.startswith("replay_state/data/") else whole)
    shared = shared_names(state, seed_axes)
    copied = {name: x if name in shared else x[:num_seeds] for name, x in copied.items()}
    return Snapshot(*_divide(copied))


def to_state(snapshot: Snapshot, example: TrainState) -> TrainState:
    """The training state of a snapshot, NumPy. What its replay lacks to the size of that of `example` is zero."""
    copied = {**snapshot.agent, **snapshot.training}
    for name, like in arrays.flatten(example).items():
        if copied[name].shape != like.shape:
            rest = like.shape[1] - copied[name].shape[1]
            copied[name] = np.pad(copied[name], [(0, 0), (0, rest)] + [(0, 0)] * (len(like.shape) - 2))
    return arrays.unflatten(copied, example)


def expected_arrays(example: TrainState, num_rows: int) -> Snapshot:
    """What a checkpoint must hold: names, shapes and dtypes, of a replay with `num_rows` rows that hold data."""
    expected = {}
    for name, x in arrays.flatten(example).items():
        cut = name.startswith("replay_state/data/")
        shape = (x.shape[0], num_rows, *x.shape[2:]) if cut else x.shape
        expected[name] = jax.ShapeDtypeStruct(shape, x.dtype)
    return Snapshot(*_divide(expected))


class Writer:
    """Writes the checkpoints of one chunk of seeds to a locked folder, one at a time, while the training goes on."""

    def __init__(self, folder: Path, settings: dict[str, Any], keep: int) -> None:
        self.folder, self.settings, self.keep = folder, settings, keep
        remove_partial(folder)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, timestep: int, turn: int, snapshot: Snapshot, table: bytes, *, has_training: bool = True) -> None:
        """Begins to write a checkpoint, after the one before it has been written.

        Raises:
            InputError: that one could not be written.
        """
        self.wait()
        facts = {"settings": self.settings, "timestep": timestep, "turn": turn, "has_training": has_training}
        self._pending = self._thread.submit(self._write, facts, snapshot, table)

    def wait(self) -> None:
        """Waits until all is on the disk.

        Raises:
            InputError: the last checkpoint could not be written; earlier ones are as they were.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def forget_after(self, timestep: int) -> None:
        """Removes the checkpoints after a timestep."""
        for later in timesteps(self.folder):
            if later > timestep:
                remove_folder(self.folder / name_of(later))

    def close(self) -> None:
        """Lets what is being written end."""
        self._thread.shutdown(wait=True)

    def _write(self, facts: dict[str, Any], snapshot: Snapshot, table: bytes) -> None:
        path = self.folder / name_of(facts["timestep"])
        try:
            with new_folder(path) as partial:
                arrays.write(partial / AGENT, snapshot.agent)
                if facts["has_training"]:
                    arrays.write(partial / TRAINING, snapshot.training)
                (partial / TABLE).write_bytes(table)
                manifest.write(partial, facts)
        except Exception as error:  # Orbax passes on the system's errors in its own kinds
            raise InputError(
                f"the checkpoint {path} cannot be written ({arrays.in_short(error)}); earlier ones are untouched"
            ) from error
        for timestep in timesteps(self.folder)[: -self.keep]:
            remove_folder(self.folder / name_of(timestep))


def name_of(timestep: int) -> str:
    """The name of a checkpoint's folder."""
    return f"{timestep:012}"


def timesteps(folder: Path) -> list[int]:
    """Of which timesteps there are checkpoints in a folder, whole ones or not; ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch("[0-9]{12}", path.name))


def newest(folder: Path, settings: dict[str, Any], *, at_most: int | None = None) -> Checkpoint | None:
    """The newest checkpoint in a folder, once all of its files' digests are found right; None where there is none.

    Args:
        folder: of one chunk of seeds.
        settings: what the run was started with.
        at_most: look only at checkpoints of this timestep and earlier ones.

    Raises:
        InputError: it is broken, or of other settings; the newest one that is not is named.
    """
    candidates = [timestep for timestep in timesteps(folder) if at_most is None or timestep <= at_most]
    if not candidates:
        return None
    try:
        return _open(folder, candidates.pop(), settings)
    except InputError as error:
        whole = next((timestep for timestep in reversed(candidates) if _is_whole(folder, timestep, settings)), None)
        offer = "no earlier one is whole" if whole is None else f"the newest whole one: --from-timestep {whole}"
        raise InputError(f"{error}; {offer}") from error


def _open(folder: Path, timestep: int, settings: dict[str, Any]) -> Checkpoint:
    path = within(folder, name_of(timestep))
    content = manifest.read(path, FACTS)
    if content["settings"] != settings:
        raise InputError(f"{path} is of other settings: {_difference(content['settings'], settings)}")
    if content["timestep"] != timestep or content["turn"] < 0:
        raise InputError(f"{path} is broken: its manifest is of timestep {content['timestep']}")
    manifest.verify(path, content)
    return Checkpoint(path, timestep, content["turn"], content["has_training"])


def _is_whole(folder: Path, timestep: int, settings: dict[str, Any]) -> bool:
    try:
        _open(folder, timestep, settings)
    except InputError:
        return False
    return True


def read_agents(checkpoint: Checkpoint, example: Any) -> Any:
    """What the seeds of a checkpoint have learned, like `example`, leaves [num_seeds, ...]; NumPy.

    Raises:
        InputError: something else is stored than `example` describes.
    """
    expected = {f"agent_state/{name}": x for name, x in arrays.flatten(example).items()}
    found = arrays.read(checkpoint.path / AGENT, expected)
    return arrays.unflatten({name.removeprefix("agent_state/"): x for name, x in found.items()}, example)


def check(checkpoint: Checkpoint, example: TrainState, num_rows: int) -> None:
    """Makes sure that a checkpoint is one that `read_state` can read, without reading its arrays.

    Raises:
        InputError: as `read_state`.
    """
    _require_training(checkpoint)
    expected = expected_arrays(example, num_rows)
    arrays.check(checkpoint.path / AGENT, expected.agent)
    arrays.check(checkpoint.path / TRAINING, expected.training)


def read_state(checkpoint: Checkpoint, example: TrainState, num_rows: int) -> TrainState:
    """A checkpoint's training state, like `example`, NumPy.

    Args:
        checkpoint: from `newest`.
        example: shapes and dtypes, for as many seeds.
        num_rows: rows of the replay that hold data at the checkpoint's turn.

    Raises:
        InputError: something else is stored than `example` describes, or no training state at all.
    """
    _require_training(checkpoint)
    expected = expected_arrays(example, num_rows)
    agent = arrays.read(checkpoint.path / AGENT, expected.agent)
    training = arrays.read(checkpoint.path / TRAINING, expected.training)
    return to_state(Snapshot(agent, training), example)


def _require_training(checkpoint: Checkpoint) -> None:
    if not checkpoint.has_training:
        raise InputError(f"{checkpoint.path} cannot be gone on from: the run was trained with --checkpoint-every 0")


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    for name in sorted(found.keys() | expected.keys()):
        theirs, ours = found.get(name), expected.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict) and theirs != ours:
            return _difference(theirs, ours)
        if theirs != ours:
            return f"{name} is {json.dumps(theirs)[:100]} there and {json.dumps(ours)[:100]} in config.json"
    return ""


def shared_names(state: TrainState, seed_axes: Any) -> set[str]:
    """The names of the leaves that all seeds share."""
    marked = map_leaves(lambda axis, _: np.bool_(axis is None), seed_axes, state)
    return {name for name, is_shared in arrays.flatten(marked).items() if is_shared}


def _divide(leaves: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What has been learned, and the rest."""
    learned = {name: x for name, x in leaves.items() if name.startswith("agent_state/")}
    return learned, {name: x for name, x in leaves.items() if name not in learned}
