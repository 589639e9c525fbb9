"""`jaxsoft plot RUN [RUN ...]`: draws learning curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import failed_lines
from jaxsoft.errors import InputError, printable
from jaxsoft.reports.plots import draw
from jaxsoft.runs.config import read_config
from jaxsoft.runs.tables import failed_seeds, read_metrics


@dataclass(frozen=True)
class PlotOptions:
    """Draw the learning curves of one or more runs."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories."""
    out: Path | None = None
    """PNG file to write; by default learning_curve.png, in the run directory if there is only one."""


def plot_command(argv: list[str]) -> None:
    """`jaxsoft plot RUN [RUN ...]`."""
    options = parse_options(PlotOptions, "jaxsoft plot", argv)
    if not options.runs:
        raise InputError("name at least one run directory")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise InputError(f"out is {str(options.out)!r}; it must be a .png file")
    folder = options.runs[0] if len(options.runs) == 1 else Path()
    print(printable(draw(options.runs, options.out or folder / "learning_curve.png")))
    for run in options.runs:
        for line in failed_lines(failed_seeds(read_metrics(run).to_pydict()), read_config(run).cells):
            print(printable(f"{run}: {line}"))
