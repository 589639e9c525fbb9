"""The reports of a training as values, and as the numbers that a logger writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsoft.fleet.grid import Cell, cell_in_words
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Progress
from jaxsoft.runs.tables import CELL, returns_of

if TYPE_CHECKING:
    import pyarrow as pa

RETURNS = ("eval_return", "episode_return")
"""The metrics in which a seed that failed counts as the worst: it has −∞."""


@dataclass(frozen=True, eq=False)
class Report:
    """One report of the seeds of a cell that are trained at once.

    >>> def show(report):
    ...     print(report.timestep, report.cell, report.iqm)  # 5000 {'learning_rate': 0.001} -153.2 [-160.1, -149.8]

    Attributes:
        timestep: environment steps that each seed has taken.
        cell: the settings of its cell in a sweep; without a sweep, none.
        seeds: [num_seeds], int32: all of the cell, but where memory or `seeds_per_chunk` divide them.
        returns: [num_seeds], float64, of evaluation or, where that is off, of training; −∞ of seeds that failed.
        rows: a row for each seed, with the columns of `metrics.parquet`.
        label: the cell, and the seeds where they are not all of it, in words; empty without a sweep.
    """

    timestep: int
    cell: Cell
    seeds: np.ndarray
    returns: np.ndarray
    rows: pa.Table
    label: str

    @cached_property
    def iqm(self) -> Interval:
        """Interquartile mean of the returns with its interval: `point`, `low`, `high`."""
        return iqm_interval(self.returns)


def reports_of(progress: Progress) -> list[Report]:
    """The new reports in a run's progress, one for each cell."""
    config, rows = progress.plan.config, progress.rows
    if rows is None or progress.is_restored:
        return []
    numbers = rows[CELL].to_numpy() if config.sweep else np.zeros(rows.num_rows, int)
    return [_report(config, int(number), rows.filter(numbers == number)) for number in np.unique(numbers)]


def _report(config: RunConfig, number: int, rows: pa.Table) -> Report:
    cell, seeds = config.cells[number], rows["seed"].to_numpy()
    part = f"seeds={seeds[0]}-{seeds[-1]}" if len(seeds) < config.num_seeds else ""
    returns = returns_of(rows.select(["eval_return", "episode_return", "failed_at"]).to_pydict())
    label = ", ".join(filter(None, (cell_in_words(cell), part)))
    return Report(int(rows["timestep"][0].as_py()), cell, seeds, returns, rows, label)


class Series(NamedTuple):
    """The numbers of a report that are one point of each curve of a series.

    Attributes:
        name: of the series: the report's label, and perhaps a seed.
        seeds: which they are of.
        scalars: by the metric's name. Those of several seeds are `…/iqm`, `…/low` and `…/high`.
    """

    name: str
    seeds: list[int]
    scalars: dict[str, float]


def series_of(report: Report, *, per_seed: bool) -> list[Series]:
    """A report as numbers: a series for each seed, or one with interquartile means and their intervals over seeds.

    A metric that a seed has not measured is left out; so are seeds that failed, but in returns, where they have −∞.
    """
    rows, names = report.rows, report.rows.column_names
    has_failed = ~np.array(rows["failed_at"].is_null())
    columns = {}
    for name in names[names.index("eval_return") : names.index("failed_at")]:
        column = rows[name]
        if column.null_count < len(column):
            values = column.to_numpy().astype(np.float64)
            columns[name] = np.where(has_failed, -np.inf, values) if name in RETURNS else values
    shared = {"steps_per_second": float(rows["steps_per_second"][0].as_py())}
    if per_seed:
        return [
            Series(
                ", ".join(filter(None, (report.label, f"seed={seed}"))),
                [int(seed)],
                {name: float(x[i]) for name, x in columns.items() if not np.isnan(x[i])} | shared,
            )
            for i, seed in enumerate(report.seeds)
        ]
    scalars = shared | {"num_failed": float(has_failed.sum())}
    for name, values in columns.items():
        if not np.isnan(values).all():
            interval = iqm_interval(values[~np.isnan(values)])._asdict()
            ends = {"iqm" if end == "point" else end: x for end, x in interval.items()}
            scalars |= {f"{name}/{end}": float(x) for end, x in ends.items() if not np.isnan(x)}
    return [Series(report.label, report.seeds.tolist(), scalars)]
