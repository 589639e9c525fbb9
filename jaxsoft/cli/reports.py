"""Reports and evaluations in words: a line for every report of a training, and tables of seeds and of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Column, Table

from jaxsoft.cli.console import FittingTable
from jaxsoft.fleet.grid import Cell, cell_in_words, value_in_words
from jaxsoft.reports.statistics import FEWEST, Interval, ends_in_words, iqm, iqm_interval, rank
from jaxsoft.runs.evaluation import Evaluation
from jaxsoft.runs.tables import CELL, FailedSeed, failed_seeds, returns_of

MOST_ROWS = 20
"""Rows of seeds or cells that are shown at most, unless `--all-rows` is given."""

QUARTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "max": 1.0}


def report_header(num_seeds: int) -> str:
    """The header of `report_line` for so many seeds."""
    ends = f"  {'min':>9}  {'max':>9}" * (num_seeds >= FEWEST)
    return f"{'timestep':>10}  {'return, IQM' + ends_in_words(num_seeds):>30}{ends}  {'steps/s':>9}"


def cells_header(num_seeds: int) -> str:
    """The header of `cells_line` for cells with so many seeds."""
    return (
        f"{'timestep':>10}  {'best cell, IQM' + ends_in_words(num_seeds):>30}  {'worst':>9}  {'steps/s':>9}  settings"
    )


def report_line(rows: dict[str, list]) -> str:
    """One report in one line: the returns over seeds, evaluated or, where evaluation is off, of training."""
    returns = returns_of(rows)
    ends = f"  {returns.min():>9.1f}  {returns.max():>9.1f}" * (len(returns) >= FEWEST)
    return f"{rows['timestep'][0]:>10,}  {iqm_interval(returns)!s:>30}{ends}  {rows['steps_per_second'][0]:>9,.0f}"


def cells_line(rows: dict[str, list], cells: Sequence[Cell]) -> str:
    """One report of several cells in one line: the best one, and the interquartile mean of the worst."""
    returns, column = returns_of(rows), np.array(rows[CELL])
    numbers = np.unique(column)
    ranked = numbers[rank([iqm(returns[column == i]) for i in numbers])]
    best, worst = (returns[column == ranked[i]] for i in (0, -1))
    return (
        f"{rows['timestep'][0]:>10,}  {iqm_interval(best)!s:>30}  {iqm(worst):>9.1f}"
        f"  {rows['steps_per_second'][0]:>9,.0f}  {cell_in_words(cells[ranked[0]])}"
    )


def cells_table(
    cells: Sequence[Cell], returns: np.ndarray, intervals: Sequence[Interval], *, most: int = MOST_ROWS
) -> FittingTable:
    """The cells of a sweep, best first, with a column for each setting where there is room for that.

    Args:
        cells: [num_cells], their settings.
        returns: [num_cells, num_seeds]; −∞ of seeds that failed, NaN of those that have none.
        intervals: [num_cells], of the interquartile means.
        most: how many are shown; the others are only counted.
    """
    failed = np.isneginf(returns).sum(axis=1)
    ends = ("min", "max") if returns.shape[1] >= FEWEST else ()
    columns = [f"return, IQM{ends_in_words(returns.shape[1])}", *ends, *["failed seeds"] * bool(failed.any())]
    table, lines = _table_of_numbers(*cells[0], *columns), [_line(columns, "settings")]
    for i in rank([interval.point for interval in intervals])[:most]:
        both = np.fmin.reduce(returns[i]), np.fmax.reduce(returns[i])
        numbers = [str(intervals[i]), *(f"{end:.1f}" for end in both[: len(ends)])]
        if np.isnan(returns[i]).all():
            numbers = ["no return", *["–"] * len(ends)]
        numbers += [str(failed[i])] * bool(failed.any())
        table.add_row(*map(value_in_words, cells[i].values()), *numbers)
        lines.append(_line(numbers, cell_in_words(cells[i])))
    if len(cells) > most:
        lines.append(f"and {len(cells) - most:,} worse cells (jaxsoft eval RUN --all-rows shows them)")
        table.caption = lines[-1]
    return FittingTable(table, lines)


def _table_of_numbers(*columns: str) -> Table:
    return Table(*(Column(x, justify="right", no_wrap=True) for x in columns))


def _line(numbers: Sequence[str], settings: str) -> str:
    widths = (30, *[12] * (len(numbers) - 1))
    return "  ".join([*(f"{x:>{width}}" for x, width in zip(numbers, widths, strict=True)), settings])


def seeds_table(evaluation: Evaluation) -> FittingTable:
    """A row for each seed, of every cell."""
    config, columns = evaluation.config, ("seed", "mean return", "std", "min", "max", "mean length")
    table = _table_of_numbers(*config.sweep, *columns)
    lines = ["  ".join((*columns, *["settings"] * bool(config.sweep)))]
    members = [(cell, seed) for cell in config.cells for seed in config.seeds]
    columns = (evaluation.timesteps, evaluation.returns, evaluation.lengths)
    for (cell, seed), timestep, returns, lengths in zip(members, *columns, strict=True):
        if not timestep or np.isneginf(returns).all():
            numbers = ["failed" if timestep else "no checkpoint", *["–"] * 4]
        else:
            measured = (returns.mean(), returns.std(), returns.min(), returns.max(), lengths.mean())
            numbers = [f"{number:.1f}" for number in measured]
        table.add_row(*map(value_in_words, cell.values()), str(seed), *numbers)
        lines.append("  ".join((str(seed), *numbers, cell_in_words(cell))).rstrip())
    return FittingTable(table, lines)


def quartiles_table(evaluation: Evaluation) -> Table:
    """Quartiles over saved seeds: of their mean returns, −∞ where one failed, and of the mean lengths of the others."""
    is_saved = evaluation.timesteps > 0
    returns = evaluation.returns[is_saved].mean(axis=1)
    table = Table(*(Column(x, justify="right") for x in ("", *QUARTILES)))
    lengths = evaluation.lengths[is_saved].mean(axis=1)[np.isfinite(returns)]
    for name, values in (("mean return", returns), ("mean length", lengths)):
        if len(values):
            table.add_row(name, *(f"{x:.1f}" for x in np.quantile(values, list(QUARTILES.values()), method="nearest")))
    return table


def unfinished_lines(evaluation: Evaluation) -> list[str]:
    """Which policies are of a timestep before the end of training, if some are."""
    total, num = evaluation.config.train.total_timesteps, len(evaluation.timesteps)
    early, counts = np.unique(evaluation.timesteps[evaluation.timesteps < total], return_counts=True)
    newest = []
    for timestep, count in zip(early, counts, strict=True):
        whose = "all policies are" if count == num else f"{count:,} of {num:,} policies are"
        missing = f"{count:,} of {num:,} seeds have no checkpoint yet"
        newest.append(f"{whose} those of timestep {timestep:,}" if timestep else missing)
    return [f"not trained to its end, timestep {total:,}: {'; '.join(newest)}"] * bool(newest)


def failure_lines(rows: dict[str, list], known: set[FailedSeed], cells: Sequence[Cell]) -> list[str]:
    """A line for each seed that has failed and is not `known` yet; adds it to `known`."""
    news = [failed for failed in failed_seeds(rows) if failed not in known]
    known.update(news)
    return [f"{line}. It learns no more, and counts as the worst" for line in failed_lines(news, cells)]


def failed_lines(failed: Sequence[FailedSeed], cells: Sequence[Cell], *, all_rows: bool = False) -> list[str]:
    """A line for each seed that failed; or, if they are more than `MOST_ROWS`, their number and the first of them."""
    if len(failed) <= MOST_ROWS or all_rows:
        return [one.in_words(cells) for one in failed]
    first = min(failed, key=lambda one: one.timestep)
    return [f"{len(failed):,} seeds failed; the first: {first.in_words(cells)}"]
