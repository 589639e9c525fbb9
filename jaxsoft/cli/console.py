"""What the commands share: the console they print to, and the bar of a training run."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def make_console() -> Console:
    """Standard output; where it is no terminal, wide enough for every table."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def seeds_in_words(num_seeds: int) -> str:
    """`1 seed`, `2 seeds`."""
    return "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"


def cells_in_words(num_cells: int) -> str:
    """`1 cell`, `2 cells`."""
    return "1 cell" if num_cells == 1 else f"{num_cells} cells"


class _StepsPerSecond(ProgressColumn):
    """Environment steps of all seeds per second of late."""

    def render(self, task: Task) -> Text:
        speed = (task.speed or 0) * task.fields["num_seeds"]
        return Text(f"{speed:,.0f} steps/s" if speed else "")


def training_progress(console: Console) -> Progress:
    """A bar over the environment steps of one seed, with the speed of all of them."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("× {task.fields[num_seeds]} seeds"),
        _StepsPerSecond(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[iqm]}"),
        console=console,
        transient=True,
    )
