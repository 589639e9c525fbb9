"""A run's metrics as a table: one row per seed and report, of every cell of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Cell, Chunk, cell_in_words, value_in_words
from jaxsoft.runs import parquet
from jaxsoft.runs.config import RunConfig, read_config, require_before_end
from jaxsoft.runs.files import path_inside, write_atomically
from jaxsoft.training.failures import PREFIX, failure_names
from jaxsoft.types import Metrics

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "metrics.parquet"

CELL = "cell"
"""The column of the cells' numbers, in a sweep; the columns of its settings follow it."""

INTEGER, REAL = ("int32", "int64"), ("float", "double")
KINDS = {
    CELL: INTEGER,
    "seed": INTEGER,
    "timestep": INTEGER,
    "eval_return": REAL,
    "episode_return": REAL,
    "failed_at": ("int32",),
    "failed_quantities": ("string",),
    "steps_per_second": ("double",),
}
"""The columns of every table of reports, `cell` in a sweep only, and pyarrow's names of their types."""

NULLABLE = {"eval_return", "episode_return", "failed_at", "failed_quantities"}

INT32, FLOAT32 = np.iinfo(np.int32).max, float(np.finfo(np.float32).max)


def cell_columns(config: RunConfig, cells: np.ndarray) -> dict[str, pa.Array]:
    """The columns of a sweep's rows in these cells [n]: their numbers and settings; none without a sweep.

    The columns of the agent's settings are called `agent.…`: a metric may have the same name.
    """
    if not config.sweep:
        return {}
    pa = parquet.load()
    columns = {CELL: pa.array(cells, pa.int32())}
    for name, values in config.sweep.items():
        values = [value_in_words(x) if isinstance(x, tuple) else x for x in values]
        kind = pa.array(values).type  # of all values: those of these cells may all be none
        numbers = [config.sweep[name].index(config.cells[i][name]) for i in cells]
        column = f"agent.{name}" if name in vars(config.train.agent) else name
        columns[column] = pa.array([values[i] for i in numbers], kind)
    return columns


def metrics_rows(
    seeds: np.ndarray, metrics: Metrics, steps_per_second: float, cells: Mapping[str, pa.Array]
) -> pa.Table:
    """One report as rows, one per member. Null are a return that was not evaluated and a mean over no episodes.

    Seeds are [num_members], metrics as long or longer: the rest only fills the devices. `steps_per_second` counts
    the steps of all members; `cells` are from `cell_columns`.
    """
    pa = parquet.load()
    columns = {name: np.asarray(value)[: len(seeds)] for name, value in metrics.items()}
    failed_at = columns.pop("failed_at")
    quantities = {name: columns.pop(name) for name in metrics if name.startswith(PREFIX)}
    names = [
        failure_names({name: x[i] for name, x in quantities.items()}) if timestep else None
        for i, timestep in enumerate(failed_at)
    ]
    for name in ("episode_return", "episode_length"):
        columns[name] = pa.array(columns[name], pa.float32(), mask=columns["num_episodes"] == 0)
    first = {
        "seed": seeds,
        "timestep": columns.pop("timestep"),
        "eval_return": columns.pop("eval_return", pa.nulls(len(seeds), pa.float32())),
    }
    last = {
        "failed_at": pa.array(failed_at, pa.int32(), mask=failed_at == 0),
        "failed_quantities": pa.array(names, pa.string()),
        "steps_per_second": np.full(len(seeds), steps_per_second),
    }
    return pa.table({**cells, **first, **columns, **last})


def concat_reports(reports: list[pa.Table]) -> pa.Table:
    """Reports as one table, ordered by timestep, cell and seed; of no reports, a table without rows.

    Raises:
        InputError: they have different columns.
    """
    pa = parquet.load()
    none = pa.table({"seed": pa.array([], pa.int32()), "timestep": pa.array([], pa.int32())})
    try:
        table = pa.concat_tables(reports) if reports else none
    except pa.ArrowInvalid:
        raise InputError("the reports so far have other columns than the next: another version made them") from None
    order = ["timestep", *({CELL} & set(table.column_names)), "seed"]
    return table.sort_by([(name, "ascending") for name in order])


def last_report(table: pa.Table) -> pa.Table:
    """The rows of the last timestep."""
    timesteps = table["timestep"].to_numpy()
    return table.filter(timesteps == timesteps.max())


def write_metrics(path: Path, reports: list[pa.Table]) -> None:
    """Writes a run directory's `metrics.parquet` anew, with all rows so far.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(path / NAME, parquet.encode(concat_reports(reports)))


def read(file: Path, config: RunConfig, chunk: Chunk | None = None) -> pa.Table:
    """Reads a table of a run's reports, or of one chunk's.

    Raises:
        InputError: it is missing, cut short or changed, or of another run or chunk.
    """
    table = parquet.read(file)
    try:
        check_rows(table, config, chunk)
    except InputError as error:
        raise InputError(f"{file} was changed by hand: its column {error}") from None
    if table.num_rows:
        require_before_end(config, file, int(table["timestep"].to_numpy().max()))
    return table


def check_rows(table: pa.Table, config: RunConfig, chunk: Chunk | None = None) -> None:
    """Makes sure that rows are reports of a run, or of all members of a chunk: anyone can compute a table's digest.

    Raises:
        InputError: names the column, and what is wrong with it.
    """
    names = set(KINDS) if table.num_rows else {"seed", "timestep"}  # a table without reports has no others
    names -= {CELL} if not config.sweep and CELL not in table.column_names else set()
    ranges = {
        "seed": (config.seed, config.seed + config.num_seeds - 1),
        CELL: (0, len(config.cells) - 1),
        "timestep": (0, INT32),
        "failed_at": (1, INT32),
        "eval_return": (-FLOAT32, FLOAT32),
        "episode_return": (-FLOAT32, FLOAT32),
    }
    for name in sorted(names):
        kind = str(table.schema.field(name).type) if name in table.column_names else "missing"
        if kind not in KINDS[name]:
            raise InputError(f"{name} is {kind}; it must be {' or '.join(KINDS[name])}")
        if name not in NULLABLE and table[name].null_count:
            raise InputError(f"{name} has gaps")
        if name in ranges:
            values, (low, high) = table[name].drop_null().to_numpy(), ranges[name]
            wrong = values[np.isfinite(values) & ((values < low) | (values > high))]
            if len(wrong):
                raise InputError(f"{name} has {wrong[0]}; it must be from {low} to {high}")
    if table.num_rows and not table["failed_at"].is_null().equals(table["failed_quantities"].is_null()):
        raise InputError("failed_quantities has other gaps than failed_at")
    if chunk is not None:
        num_members, timesteps = len(chunk.seeds), np.unique(table["timestep"].to_numpy())
        expected = {name: np.tile(x, len(timesteps)) for name, x in (("seed", chunk.seeds), (CELL, chunk.cells))}
        expected["timestep"] = np.repeat(timesteps, num_members)
        for name in sorted(names & set(expected)):
            if not np.array_equal(table[name].to_numpy(), expected[name]):
                raise InputError(f"{name} is not that of all {num_members} members of {chunk.name} at each report")


def read_metrics(path: Path) -> pa.Table:
    """Reads a run directory's `metrics.parquet`.

    Raises:
        InputError: it is missing, cut short or changed, of another run, or has no reports.
    """
    file = path_inside(path, NAME)
    table = read(file, read_config(path))
    if not table.num_rows:
        raise InputError(f"{file} has no reports")
    return table


def returns_of(rows: Mapping[str, Sequence]) -> np.ndarray:
    """The returns in rows, of evaluation or, where that is off, of training; [num_rows], float64.

    A seed that has failed counts as the worst: it has −∞.
    """
    evaluated = any(value is not None for value in rows["eval_return"])
    returns = np.array(rows["eval_return" if evaluated else "episode_return"], np.float64)
    return np.where([timestep is not None for timestep in rows["failed_at"]], -np.inf, returns)


class FailedSeed(NamedTuple):
    """A seed whose numbers went bad.

    Attributes:
        cell: number of its cell; 0 without a sweep.
        seed: the seed.
        timestep: of the first bad update.
        quantities: names of what was not finite then.
    """

    cell: int
    seed: int
    timestep: int
    quantities: str

    def in_words(self, cells: Sequence[Cell]) -> str:
        """For people: `seed 3 of learning_rate=1 failed at timestep 1,234 (not finite: q_loss)`."""
        cell = f" of {cell_in_words(cells[self.cell])}" if cells[self.cell] else ""
        return f"seed {self.seed}{cell} failed at timestep {self.timestep:,} (not finite: {self.quantities})"


def failed_seeds(rows: Mapping[str, Sequence]) -> list[FailedSeed]:
    """The seeds that failed according to rows, in the rows' order, each once."""
    if not len(rows["seed"]):
        return []
    columns = (rows.get(CELL, [0] * len(rows["seed"])), rows["seed"], rows["failed_at"], rows["failed_quantities"])
    found = (FailedSeed(*values) for values in zip(*columns, strict=True) if values[2] is not None)
    return list(dict.fromkeys(found))


class CellReturns(NamedTuple):
    """The returns of one cell of a sweep; of a run that is no sweep there is one, without settings.

    Attributes:
        settings: of the cell.
        timesteps: [num_reports], of the reports that all of its seeds have made.
        returns: [num_reports, num_seeds]; see `returns_of`.
    """

    settings: Cell
    timesteps: np.ndarray
    returns: np.ndarray


def read_returns(path: Path) -> list[CellReturns]:
    """A run directory's returns, cell by cell.

    Raises:
        InputError: its table is missing, cut short or changed, or of another run.
    """
    config, rows = read_config(path), read_metrics(path)
    returns = returns_of(rows.select(["eval_return", "episode_return", "failed_at"]).to_pydict())
    timesteps = rows["timestep"].to_numpy()
    numbers = rows[CELL].to_numpy() if config.sweep else np.zeros(len(rows), int)
    cells = []
    for i, settings in enumerate(config.cells):
        is_own = numbers == i
        reports, counts = np.unique(timesteps[is_own], return_counts=True)
        reports = reports[counts == config.num_seeds]
        is_whole = is_own & np.isin(timesteps, reports)
        cells.append(CellReturns(settings, reports, returns[is_whole].reshape(-1, config.num_seeds)))
    return cells
