"""Shows the progress of a training, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxsoft.cli.console import make_console, print_line
from jaxsoft.cli.imports import repeat_imports
from jaxsoft.cli.reports import cells_header, cells_line, cells_table, failure_lines, report_header, report_line
from jaxsoft.errors import InputError, Stopped
from jaxsoft.fleet.grid import Chunk, cell_in_words
from jaxsoft.reports.background import Logging
from jaxsoft.reports.loggers import Logger
from jaxsoft.reports.plots import draw
from jaxsoft.reports.progress import training_bar
from jaxsoft.reports.statistics import count_in_words, iqm_interval
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Interrupted, Progress
from jaxsoft.runs.plan import Plan
from jaxsoft.runs.signals import catch_signals
from jaxsoft.runs.tables import FailedSeed, read_returns


def show_training(path: Path, training: Callable[..., Any], loggers: Sequence[Logger] = ()) -> None:
    """Iterates over `training(path, should_stop=…)`, `train` or `resume` of `jaxsoft.runs`, and prints its progress.

    Its reports go to the loggers, too.

    Raises:
        Stopped: after a signal.
    """
    console, start = make_console(), time.perf_counter()
    with catch_signals() as request, closing(training(path, should_stop=request)) as events:
        try:
            plan = next(events).plan
            _print_plan(console, plan)
            with Logging(loggers, path, plan.config) as log, training_bar(console, plan.config) as show:
                _show(events, plan.config, console, (show, log))
        except Interrupted as interrupted:
            command = f"jaxsoft train --resume {path}{repeat_imports()}"
            raise Stopped(
                f"stopped at timestep {interrupted.timestep:,}; go on with: {command}", request.status
            ) from None
    if plan.hosts.index == 0:
        picture = draw([path], path / "learning_curve.png")
        if plan.config.sweep:
            _print_cells(console, path, plan.config)
        seconds = time.perf_counter() - start
        console.print(f"trained in {seconds:.0f} s, compilation included", soft_wrap=True)
        console.print(f"learning curve  {picture}", soft_wrap=True)
        console.print(f"run directory   {path}   (jaxsoft eval {path}{repeat_imports()})", soft_wrap=True)


def _print_plan(console: Console, plan: Plan) -> None:
    """Prints the agent, the environment, the devices, the memory of a seed, and the division into chunks."""
    config, hosts, devices = plan.config, plan.hosts, plan.devices
    where = f"{len(devices)} × {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind
    cells = f"{count_in_words(len(config.cells), 'cell')} × " if config.sweep else ""
    share = f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else ""
    seeds = count_in_words(config.num_seeds, "seed")
    print_line(console, f"{config.train.kind.name} in {config.env_id}, {cells}{seeds}, on {where}{share}", style="bold")
    num_chunks, num_programs, divided = len(config.chunks), len(plan.settings), ""
    if num_chunks > 1:
        programs = f"{num_programs} programs, " if num_programs > 1 else ""
        largest = count_in_words(plan.largest_chunk, "seed")
        divided = f", {programs}{num_chunks} chunks of {largest}, one after the other"
    print_line(console, f"a seed needs {max(plan.needs, key=lambda need: need.total)}{divided}")


def _print_cells(console: Console, path: Path, config: RunConfig) -> None:
    cells = read_returns(path)
    if not all(len(cell.timesteps) for cell in cells):
        raise InputError(f"{path} was changed by hand: a cell has no report of all its seeds")
    returns = np.array([cell.returns[-1] for cell in cells])
    console.print(cells_table(config.cells, returns, [iqm_interval(x) for x in returns]))


def _show(
    events: Iterator[Progress], config: RunConfig, console: Console, watchers: Sequence[Callable[[Progress], None]]
) -> None:
    """Prints a line for every report and for every seed that fails, once the watchers have been told."""
    failed: set[FailedSeed] = set()
    cells, chunk, header = config.cells, "", ""
    for progress in events:
        for watch in watchers:
            watch(progress)
        if progress.rows is None:
            continue
        rows = progress.rows.to_pydict()
        needed = cells_header(config.num_seeds) if config.sweep else report_header(len(progress.chunk.seeds))
        if header != needed:
            console.print(header := needed)
        if config.sweep and chunk != progress.chunk.name:
            print_line(console, _chunk_in_words(progress.chunk, config), style="bold")
        chunk = progress.chunk.name
        print_line(console, cells_line(rows, cells) if config.sweep else report_line(rows))
        for line in failure_lines(rows, failed, cells):
            print_line(console, line, style="bold red")


def _chunk_in_words(chunk: Chunk, config: RunConfig) -> str:
    """The settings that all members of a chunk have in common, and how many members there are."""
    arguments = config.layout.arguments
    shared = {name: x for name, x in config.cells[chunk.cells[0]].items() if name not in arguments}
    num_cells = len(np.unique(chunk.cells))
    words = f"{count_in_words(num_cells, 'cell')}, {count_in_words(len(chunk.seeds), 'seed')} in all"
    return f"{cell_in_words(shared)}: {words}" if shared else words
