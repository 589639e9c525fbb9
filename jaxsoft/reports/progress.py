"""The progress bar of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from jaxsoft.reports.statistics import iqm
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Progress
from jaxsoft.runs.tables import returns_of


class _StepsPerSecond(ProgressColumn):
    """Environment steps of all seeds per second of late."""

    def render(self, task: Task) -> Text:
        speed = (task.speed or 0) * task.fields["num_seeds"]
        return Text(f"{speed:,.0f} steps/s" if speed else "")


def make_bar(console: Console, *, transient: bool = True) -> ProgressBar:
    """A bar over the environment steps of one seed, with the speed of all of them; a transient one is gone at the end.

    Where nobody watches the console, a transient bar shows nothing, and another only its end.
    """
    return ProgressBar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("× {task.fields[num_seeds]} seeds"),
        _StepsPerSecond(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[iqm]}"),
        console=console,
        transient=transient,
    )


@contextmanager
def training_bar(
    console: Console, config: RunConfig, *, transient: bool = True
) -> Iterator[Callable[[Progress], None]]:
    """Shows a bar; call what it gives with every progress of the run."""
    with make_bar(console, transient=transient) as bar:
        task = bar.add_task("compiling", total=config.train.total_timesteps, num_seeds=config.num_seeds, iqm="")

        def show(progress: Progress) -> None:
            fields: dict[str, Any] = {"num_seeds": len(progress.chunk.seeds)} if config.sweep else {}
            if progress.rows is not None and not config.sweep:
                fields["iqm"] = f"IQM {iqm(returns_of(progress.rows.to_pydict())):.1f}"
            bar.update(task, description="training", completed=progress.timestep, **fields)

        yield show


def watched_bar(config: RunConfig, progress: bool | None) -> Any:
    """A bar where a person watches: standard output is a terminal or a notebook. `progress` forces it, or none."""
    console = Console(highlight=False, markup=False, emoji=False)
    is_watched = console.is_jupyter or sys.stdout.isatty()
    if progress is False or (progress is None and not is_watched):
        return nullcontext(lambda progress: None)
    return training_bar(console, config, transient=is_watched)
