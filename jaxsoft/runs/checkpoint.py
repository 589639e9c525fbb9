"""Checkpoints: all that it takes to go on as if nothing had happened, each with digests of its files.

    000000010000/       the timestep
      agent/            what every seed has learned, through Orbax
      training/         the rest of the training state: environments, replay, keys, counters, sums
      metrics.parquet   the reports so far
      manifest.json     settings, timestep, turn, and a digest of every file

A checkpoint appears under its name when all of it is on the disk. It is written while the training goes on; of a replay
that is not full only what it holds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.runs import arrays, manifest, tables
from jaxsoft.runs.files import new_folder, path_inside, remove_folder, remove_partial, tell_errors
from jaxsoft.runs.older_replays import with_pairs, without_pairs
from jaxsoft.training.state import TrainState

AGENT, TRAINING = "agent", "training"

AGENT_STATE, REPLAY_ROWS = "agent_state", "replay_state/data/"
"""How the names of arrays begin: of those in `agent/`, and of the replay's, of which only filled rows are stored."""

NEXT_OBS = REPLAY_ROWS + "next_obs"
"""An array of a replay that stores each observation twice, see `jaxsoft.runs.older_replays`."""

FACTS = {"settings": dict, "timestep": int, "turn": int, "has_training": bool}
"""The facts in a checkpoint's manifest, and their types."""


class Checkpoint(NamedTuple):
    """A checkpoint whose manifest has been read.

    Attributes:
        path: its folder.
        timestep: environment steps taken.
        turn: turns taken since the prefill; where a report is due at this turn, it is in the table.
        has_training: whether a training can go on from it.
    """

    path: Path
    timestep: int
    turn: int
    has_training: bool


def copy_to_host(
    state: TrainState, seed_axes: Any, num_seeds: int, *, at_once: bool
) -> Callable[[], dict[str, np.ndarray]]:
    """A function that gives the state of the first `num_seeds` seeds on the host, by name; it is called once.

    Of the replay there are only the filled rows. With `at_once` the state is copied here, so that its memory may then
    be taken. Else the function does, and lets go of each array when that has been copied.
    """
    leaves, shared = arrays.flatten(state), shared_names(state, seed_axes)
    num_rows = None if state.replay_state is None else int(state.replay_state.num_filled)

    def take(name: str) -> np.ndarray:
        x = np.asarray(leaves.pop(name))
        seeds = x if name in shared else x[:num_seeds]
        return seeds[:, :num_rows] if name.startswith(REPLAY_ROWS) else seeds

    if not at_once:
        return lambda: {name: take(name) for name in list(leaves)}
    copied = {name: np.array(take(name)) for name in list(leaves)}
    return lambda: copied


def shared_names(state: TrainState, seed_axes: Any) -> set[str]:
    """The names of the leaves that all seeds share."""
    shared = jax.tree.map(lambda axis, part: None if axis == 0 else part, seed_axes, state, is_leaf=lambda x: x is None)
    return set(arrays.flatten(shared))


def _parts(leaves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The arrays of each folder: those of the agent's state, and the others."""
    agent = {name: x for name, x in leaves.items() if name.split("/")[0] == AGENT_STATE}
    return {AGENT: agent, TRAINING: {name: x for name, x in leaves.items() if name not in agent}}


class Writer:
    """Writes the checkpoints of one chunk to a locked folder in a thread, one at a time."""

    def __init__(self, folder: Path, settings: dict[str, Any], keep: int) -> None:
        self.folder, self.settings, self.keep = folder, settings, keep
        remove_partial(folder)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: deque[Future[None]] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(not one.done() for one in self._pending)

    def save(
        self,
        timestep: int,
        turn: int,
        copy: Callable[[], dict[str, np.ndarray]],
        table: bytes,
        *,
        has_training: bool = True,
    ) -> None:
        """Writes a checkpoint after the one before it; waits until the one before that is on the disk.

        `copy` gives its arrays, see `copy_to_host`, and is called in the thread. The table has the reports so far.
        Unless `has_training`, only the agents' part of the state is written.

        Raises:
            InputError: an earlier one could not be written.
        """
        self.wait(1)
        facts = {"settings": self.settings, "timestep": timestep, "turn": turn, "has_training": has_training}
        self._pending.append(self._thread.submit(self._write, facts, copy, table))

    def wait(self, num_pending: int = 0) -> None:
        """Waits until all is on the disk, or all but so many.

        Raises:
            InputError: a checkpoint could not be written; earlier ones are as they were.
        """
        while len(self._pending) > num_pending or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()

    def forget_after(self, timestep: int) -> None:
        """Removes the checkpoints after a timestep."""
        self._remove([later for later in timesteps(self.folder) if later > timestep])

    def close(self) -> None:
        """Waits for the thread to end."""
        self._thread.shutdown(wait=True)

    def _write(self, facts: dict[str, Any], copy: Callable[[], dict[str, np.ndarray]], table: bytes) -> None:
        parts = _parts(copy())
        path, fate = self.folder / folder_name(facts["timestep"]), "written (earlier ones are untouched)"
        # Orbax passes on the system's errors in its own kinds
        with tell_errors(f"the checkpoint {path}", fate, Exception), new_folder(path) as unfinished:
            arrays.write(unfinished / AGENT, parts[AGENT])
            if facts["has_training"]:
                arrays.write(unfinished / TRAINING, parts[TRAINING])
            (unfinished / tables.NAME).write_bytes(table)
            manifest.write(unfinished, facts)
        self._remove(timesteps(self.folder)[: -self.keep])

    def _remove(self, these: list[int]) -> None:
        for timestep in these:
            remove_folder(self.folder / folder_name(timestep))


def folder_name(timestep: int) -> str:
    """The name of a checkpoint's folder."""
    return f"{timestep:012}"


def timesteps(folder: Path) -> list[int]:
    """The timesteps of the checkpoints in a folder, whole or not, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch("[0-9]{12}", path.name))


def newest(folder: Path, settings: dict[str, Any], *, at_most: int | None = None) -> Checkpoint | None:
    """Finds the newest checkpoint in a chunk's folder and checks the digests of its files; None where there is none.

    Those of later timesteps than `at_most` are ignored.

    Raises:
        InputError: it is broken or of other settings; names the newest that is neither.
    """
    broken, rest = None, "no earlier one is whole"
    for timestep in reversed(timesteps(folder)):
        if at_most is not None and timestep > at_most:
            continue
        try:
            found = _open(folder, timestep, settings)
        except InputError as error:
            broken = broken or error
            continue
        if broken is None:
            return found
        rest = f"the newest whole one: --from-timestep {timestep}"
        break
    if broken is not None:
        raise InputError(f"{broken}; {rest}") from broken
    return None


def _open(folder: Path, timestep: int, settings: dict[str, Any]) -> Checkpoint:
    path = path_inside(folder, folder_name(timestep))
    content = manifest.read(path, FACTS)
    if content["settings"] != settings:
        differing = arrays.difference(content["settings"], settings)
        raise InputError(f"{path} is of other settings: {differing} in config.json")
    if content["timestep"] != timestep or content["turn"] < 0:
        raise InputError(f"{path} is broken: its manifest is of timestep {content['timestep']}")
    manifest.verify(path, content)
    return Checkpoint(path, timestep, content["turn"], content["has_training"])


def read_agents(checkpoint: Checkpoint, example: Any) -> Any:
    """The agents' states in a checkpoint, shaped like `example`: leaves [num_seeds, ...], NumPy.

    Raises:
        InputError: other arrays are stored than those of `example`.
    """
    whole = {AGENT_STATE: example}
    found = arrays.read(checkpoint.path / AGENT, jax.eval_shape(arrays.flatten, whole))
    return arrays.unflatten(found, whole)[AGENT_STATE]


def read_state(checkpoint: Checkpoint, example: TrainState, num_rows: int, *, only_check: bool = False) -> TrainState:
    """A checkpoint's training state, shaped like `example`, NumPy; the replay's empty rows are zero.

    At the checkpoint's turn `num_rows` rows of the replay hold data. With `only_check` no array is read, and `example`
    is returned.

    Raises:
        InputError: something else is stored than `example` describes, or no training state at all.
    """
    if not checkpoint.has_training:
        raise InputError(f"{checkpoint.path} cannot be gone on from: the run was trained with --checkpoint-every 0")
    replay_state = example.replay_state
    if replay_state is not None and replay_state.last_obs is not None:
        there = arrays.names(checkpoint.path / TRAINING)
        if NEXT_OBS in there:
            older = with_pairs(example, has_flag=REPLAY_ROWS + "truncated" in there)
            state = _read_like(checkpoint, older, num_rows, only_check=only_check)
            return example if only_check else without_pairs(state, example)
    return _read_like(checkpoint, example, num_rows, only_check=only_check)


def _read_like(checkpoint: Checkpoint, example: TrainState, num_rows: int, *, only_check: bool) -> TrainState:
    whole, stored, found = jax.eval_shape(arrays.flatten, example), {}, {}
    for name, x in whole.items():
        shape = (x.shape[0], num_rows, *x.shape[2:]) if name.startswith(REPLAY_ROWS) else x.shape
        stored[name] = jax.ShapeDtypeStruct(shape, x.dtype)
    for part, expected in _parts(stored).items():
        found |= arrays.read(checkpoint.path / part, expected, only_check=only_check)
    if only_check:
        return example
    for name, x in found.items():
        if x.shape != whole[name].shape:
            found[name] = np.pad(x, [(0, missing) for missing in np.subtract(whole[name].shape, x.shape)])
    return arrays.unflatten(found, example)
