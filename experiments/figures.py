"""What the experiments' figures share: lines with their intervals, and a file with one legend above all panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsoft.reports.plots import tidy


def draw_band(axes: Any, x: Any, intervals: Sequence[Any], style: str = "-", **line: Any) -> None:
    """Points over `x` and, as a band, their intervals: each `(point, low, high)`; `line` is matplotlib's."""
    point, low, high = np.array(intervals).T
    axes.plot(x, point, style, **line)
    axes.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)


def save(figure: Any, file: Path, legend: tuple[list[Any], list[str]] | None = None, **options: Any) -> None:
    """Tidies all panels, and writes them with a legend above: by default the first panel's, in one row."""
    for axes in figure.axes:
        tidy(axes)
    lines, labels = legend or figure.axes[0].get_legend_handles_labels()
    if lines:
        options = {"ncols": len(labels), "loc": "outside upper center"} | options
        figure.legend(lines, labels, frameon=False, **options)
    figure.savefig(file, metadata={"Software": None})
