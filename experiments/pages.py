"""What the experiments' pages share: tables in Markdown, and figures with bands and one legend above all panels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsoft.reports.plots import tidy

TRACES = ("tree_backup", "retrace", "importance_sampling", "uncorrected")
"""The trace coefficients of the pages that compare Soft Q(λ)'s own; Watkins's cut is on that of λ on CartPole."""


def table(header: Sequence[str], rows: Iterable[Sequence[object]], num_words: int = 1) -> list[str]:
    """Lines of Markdown; the columns after the first `num_words` hold numbers and stand at the right."""
    lines = ["".join(f" {x} |" if f"{x}" else " |" for x in row) for row in (header, *rows)]
    lines.insert(1, "---|" * num_words + "--:|" * (len(header) - num_words))
    return [f"|{line}" for line in lines]


def draw_band(axes: Any, x: Any, intervals: Sequence[Any], style: str = "-", **line: Any) -> None:
    """Points over `x` and, as a band, their intervals: each `(point, low, high)`; `line` is matplotlib's."""
    point, low, high = np.array(intervals).T
    axes.plot(x, point, style, **line)
    axes.fill_between(x, low, high, color=line["color"], alpha=0.2, linewidth=0)


def save(figure: Any, file: Path, *, has_legend: bool = True, first: Sequence[Any] = ()) -> None:
    """Tidies all panels and writes them, with the first panel's lines, after those given, as a legend above."""
    for axes in figure.axes:
        tidy(axes)
    if has_legend:
        lines = [*first, *figure.axes[0].get_legend_handles_labels()[0]]
        figure.legend(handles=lines, frameon=False, loc="outside upper center", ncols=len(lines))
    figure.savefig(file, metadata={"Software": None})
