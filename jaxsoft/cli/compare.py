"""`jaxsoft compare RUN RUN ...`: algorithms over tasks and seeds, in a table and a figure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jaxsoft.cli.console import FittingTable, make_console, print_line
from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import MOST_ROWS, failed_lines
from jaxsoft.errors import InputError, printable
from jaxsoft.reports.comparison import Algorithm, Comparison, compare_runs, describe, is_unfinished
from jaxsoft.reports.comparison_plots import draw_comparison
from jaxsoft.reports.statistics import ends_in_words

HEADERS = {"median": "median", "mean": "mean", "optimality_gap": "gap"}


@dataclass(frozen=True)
class CompareOptions:
    """Compare the algorithms of runs over tasks and seeds, by the returns at their last reports."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN RUN ...")]
    """Run directories; each cell of a sweep counts as a run."""
    by: str = "agent"
    """What an algorithm is: agent, with the settings in which its runs in one task differ; or run."""
    normalise: Annotated[tuple[str, ...], tyro.conf.arg(metavar="none|minmax|A:B|TASK=A:B")] = ()
    """How returns become scores: none; minmax: 0 and 1 are the lowest and highest return of any report in the task;
    --normalise=A:B: returns A and B; TASK=A:B: of one task. By default none in one task, minmax in several."""
    gamma: float | None = None
    """Score that is good enough, of the optimality gap; by default 1, and without normalisation there is no gap."""
    out: Path | None = None
    """Figure to write, a .png file; by default comparison.png."""
    all_rows: bool = False
    """Show every algorithm; otherwise the best 20."""
    json: bool = False
    """Print one JSON object instead of a table; the figure is drawn only with --out."""


def compare_command(argv: list[str]) -> None:
    """`jaxsoft compare RUN RUN ... [--by agent|run] [--normalise ...] [--gamma G] [--out FILE.png] [--json]`."""
    options = parse_options(CompareOptions, "jaxsoft compare", argv)
    if not options.runs:
        raise InputError("name at least one run directory")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise InputError(f"out is {str(options.out)!r}; it must be a .png file")
    comparison = compare_runs(options.runs, by=options.by, normalise=options.normalise, gamma=options.gamma)
    if options.json:
        print(json.dumps(describe(comparison), allow_nan=False))
        if options.out is not None:
            draw_comparison(options.out, comparison)
        return
    _print_table(comparison, all_rows=options.all_rows)
    print(printable(draw_comparison(options.out or Path("comparison.png"), comparison)))


def _print_table(comparison: Comparison, *, all_rows: bool) -> None:
    console, algorithms = make_console(), comparison.algorithms
    what = "scores" if comparison.is_normalised else "returns"
    print_line(console, f"{what} at the last report, in {', '.join(comparison.tasks)}")
    for part in (part for algorithm in algorithms for task in algorithm.parts for part in task if is_unfinished(part)):
        message = f"{part.path} is not trained to its end: its last report is of timestep {part.timesteps[-1]:,}"
        print_line(console, f"{message} of {part.config.train.total_timesteps:,}", style="bold yellow")
    shown = algorithms if all_rows else algorithms[:MOST_ROWS]
    console.print(comparison_table(comparison, shown))
    if len(shown) < len(algorithms):
        console.print(f"and {len(algorithms) - len(shown):,} more (--all-rows shows them)")
    for part in (part for algorithm in shown for task in algorithm.parts for part in task):
        for line in failed_lines(part.failed, part.config.cells):
            print_line(console, f"{part.path}: {line}", style="bold red")


def comparison_table(comparison: Comparison, algorithms: list[Algorithm]) -> FittingTable:
    """A row for each algorithm, each number with its interval below it."""
    best, spec = comparison.algorithms[0], ".2f" if comparison.is_normalised else ".1f"
    metrics = list(best.intervals)
    ends = {ends_in_words(one.num_seeds[0]) for one in algorithms}
    iqm = f"IQM{ends.pop() if len(ends) == 1 else ''}"
    headers = ["seeds", iqm, *(HEADERS[name] for name in metrics[1:])]
    headers += ["P(best > it)"] * (len(comparison.algorithms) > 1)
    table, lines = Table(box=SIMPLE_HEAD, pad_edge=False), []
    table.add_column("algorithm", overflow="fold")
    for header in headers:
        table.add_column(_in_two_lines(header) if header == iqm else header, justify="right", no_wrap=True)
    for one in algorithms:
        low, high = one.num_seeds
        cells = [(str(low) if low == high else f"{low}–{high}") + f" ({one.num_failed} failed)" * bool(one.num_failed)]
        cells += [one.intervals[name].in_words(spec) for name in metrics]
        cells += ["–" if one.improvement is None else one.improvement.in_words(".2f")] * (len(headers) > len(cells))
        table.add_row(one.name, *map(_in_two_lines, cells))
        words = (f"{header.partition(' [')[0]} {cell}" for header, cell in zip(headers, cells, strict=True))
        lines.append(f"{one.name}: {', '.join(words)}")
    return FittingTable(table, lines)


def _in_two_lines(interval: str) -> Text:
    """A cell with the part in brackets below the rest: the table stays narrow."""
    return Text(re.sub(r" (?=[\[(])", "\n", interval, count=1))
