"""Results of a benchmark on one page of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsoft.bench.tables import FRACTIONS, describe_in_words, in_digits
from jaxsoft.reports.plots import COLOURS, escape_text, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_COLUMNS = 4


def draw_results(path: Path, results: Mapping[str, Any]) -> Path:
    """Draws steps per second over members, a panel for each workload with several, and the shares of the ceilings.

    Raises:
        InputError: the figure cannot be written.
    """
    from matplotlib.figure import Figure

    measured = [workload for workload in results["workloads"] if workload["results"]]
    climbing = [workload for workload in measured if len(workload["results"]) > 1]
    num_rows = -(-len(climbing) // NUM_COLUMNS)
    heights = (1.75 * num_rows, 1.1 + 0.13 * len(measured) * len(FRACTIONS))
    figure = Figure(figsize=(10.0, sum(heights) + 0.5), dpi=100, layout="constrained")
    figure.suptitle(escape_text(describe_in_words(results)), fontsize=9)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights) if climbing else (None, figure)
    if climbing:
        panels = parts[0].subplots(num_rows, NUM_COLUMNS, squeeze=False)
        for axes in panels.flat[len(climbing) :]:
            axes.set_visible(False)
        for axes, workload in zip(panels.flat, climbing, strict=False):
            _draw_throughput(axes, workload)
    _draw_fractions(parts[1].subplots(), measured)
    save(figure, path)
    return path


def _draw_throughput(axes: Axes, workload: Mapping[str, Any]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    rows = workload["results"]
    members = np.array([row["members"] for row in rows])
    median, low, high = (np.array([row["steps_per_second"][k] for row in rows]) for k in ("median", "low", "high"))
    axes.plot(members, median, "o-", color=COLOURS[0], markersize=3, linewidth=1.2)
    axes.fill_between(members, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(members, median[0] * members / members[0], ":", color="0.6", linewidth=0.8)
    axes.set(xscale="log", yscale="log", ylim=(0.6 * low.min(), 2.0 * high.max()))
    axes.set_title(f"{workload['name']}, {workload['unit']}/s", fontsize=8)
    axes.xaxis.set_major_locator(FixedLocator(members.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: in_digits(y)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=7)
    tidy(axes)


def _draw_fractions(axes: Axes, measured: Sequence[Mapping[str, Any]]) -> None:
    """Bars for the shares of the ceilings, of each workload where it is fastest."""
    from matplotlib.ticker import PercentFormatter

    places = np.arange(len(measured))
    best = [max(one["results"], key=lambda row: row["steps_per_second"]["median"]) for one in measured]
    names = [
        f"{workload['name']} × {row['members']:,}\n{in_digits(row['steps_per_second']['median'])} {workload['unit']}/s"
        for workload, row in zip(measured, best, strict=True)
    ]
    for i, (name, colour) in enumerate(zip(FRACTIONS, COLOURS, strict=False)):
        shares = [row["fractions"][name] for row in best]
        axes.barh(places + 0.27 * (i - 1), shares, height=0.25, color=colour, label=name)
    axes.axvline(1.0, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_yticks(places, names)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("share of the ceiling that is reached, where each workload is fastest", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    tidy(axes)
