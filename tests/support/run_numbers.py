"""All numbers that a run directory has ended with, to compare it with another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jaxsoft.fleet.grid import Chunk
from jaxsoft.runs import arrays, checkpoint, directory, parquet, tables
from jaxsoft.runs.config import RunConfig


def results(path: Path, chunk: Chunk, *, whole_table: bool = True) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """What a run has ended with: its metrics but for the speed, and all numbers of its last checkpoint."""
    folder = directory.checkpoint_folder(path, chunk)
    last = folder / checkpoint.folder_name(checkpoint.timesteps(folder)[-1])
    state = {}
    for part in (checkpoint.AGENT, checkpoint.TRAINING):
        with arrays._checkpointer() as checkpointer:
            state |= checkpointer.restore((last / part).resolve())
    assert not whole_table or parquet.read(last / tables.NAME) == parquet.read(path / tables.NAME)
    return parquet.read(path / tables.NAME).drop_columns(["steps_per_second"]), state


def assert_same(path: Path, other: Path, config: RunConfig) -> None:
    for chunk in config.chunks:
        is_whole = len(config.chunks) == 1
        (table, state), (other_table, other_state) = (results(x, chunk, whole_table=is_whole) for x in (path, other))
        assert table.column_names == other_table.column_names
        for name in table.column_names:
            np.testing.assert_array_equal(table[name].to_numpy(), other_table[name].to_numpy(), err_msg=name)
        assert state.keys() == other_state.keys()
        for name, array in state.items():
            np.testing.assert_array_equal(array, other_state[name], err_msg=name)
