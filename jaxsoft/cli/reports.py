"""How returns are told: a line for every report of a training, and a table of the cells of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from jaxsoft.grid import Cell, cell_in_words, value_in_words
from jaxsoft.statistics import Interval, iqm, iqm_interval
from jaxsoft.tables import CELL, returns_of

NO_SWEEP: Sequence[Cell] = ({},)

REPORT_HEADER = f"{'timestep':>10}  {'return, IQM [95 % interval]':>30}  {'min':>9}  {'max':>9}  {'steps/s':>9}"
CELLS_HEADER = f"{'timestep':>10}  {'best cell, IQM [95 % interval]':>30}  {'worst':>9}  {'steps/s':>9}  settings"


def report_line(rows: dict[str, list]) -> str:
    """One report in one line: the returns over seeds, evaluated or, where evaluation is off, of training."""
    returns = returns_of(rows)
    speed = rows["steps_per_second"][0]
    return (
        f"{rows['timestep'][0]:>10,}  {iqm_interval(returns)!s:>30}  {returns.min():>9.1f}  {returns.max():>9.1f}"
        f"  {speed:>9,.0f}"
    )


def cells_line(rows: dict[str, list], cells: Sequence[Cell]) -> str:
    """One report of several cells in one line: the best one, and the interquartile mean of the worst."""
    returns, of_cells = returns_of(rows), np.array(rows[CELL])
    seeds_of = {i: returns[of_cells == i] for i in np.unique(of_cells)}
    ranked = best_first([iqm(x) for x in seeds_of.values()])
    numbers = [list(seeds_of)[i] for i in ranked]
    best, worst = (seeds_of[numbers[i]] for i in (0, -1))
    return (
        f"{rows['timestep'][0]:>10,}  {iqm_interval(best)!s:>30}  {iqm(worst):>9.1f}"
        f"  {rows['steps_per_second'][0]:>9,.0f}  {cell_in_words(cells[numbers[0]])}"
    )


def best_first(scores: Any) -> np.ndarray:
    """The order of some scores from the highest to the lowest; NaN is the lowest, and of equal ones the first leads."""
    return np.argsort(-np.nan_to_num(np.asarray(scores, float), nan=-np.inf), kind="stable")


def cells_table(cells: Sequence[Cell], returns: np.ndarray, intervals: Sequence[Interval]) -> Table:
    """The cells of a sweep, best first.

    Args:
        cells: [num_cells], their settings.
        returns: [num_cells, num_seeds]; −∞ of seeds that failed.
        intervals: [num_cells], of the interquartile means.
    """
    table = Table()
    failed = np.isneginf(returns).sum(axis=1)
    for column in (*cells[0], "return, IQM [95 % interval]", "min", "max", *["failed seeds"] * bool(failed.any())):
        table.add_column(column, justify="right")
    for i in best_first([interval.point for interval in intervals]):
        numbers = (f"{returns[i].min():.1f}", f"{returns[i].max():.1f}", *[str(failed[i])] * bool(failed.any()))
        table.add_row(*map(value_in_words, cells[i].values()), str(intervals[i]), *numbers)
    return table


def failure_lines(rows: dict[str, list], known: set[tuple[int, int]], cells: Sequence[Cell] = NO_SWEEP) -> list[str]:
    """A line for each seed that has failed and is not `known` yet, as (cell, seed); afterwards it is."""
    lines = []
    of_cells = rows.get(CELL, [0] * len(rows["seed"]))
    columns = (of_cells, rows["seed"], rows["failed_at"], rows["failed_quantities"])
    for cell, seed, timestep, quantities in zip(*columns, strict=True):
        if timestep is not None and (cell, seed) not in known:
            known.add((cell, seed))
            of_cell = f" of {cell_in_words(cells[cell])}" if cells[cell] else ""
            lines.append(
                f"seed {seed}{of_cell} failed at timestep {timestep:,}: not finite: {quantities}. It learns no more, "
                "and counts as the worst"
            )
    return lines
