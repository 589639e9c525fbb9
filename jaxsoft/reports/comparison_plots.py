"""The figure of a comparison: intervals of the aggregate metrics, performance profiles and sample efficiency."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from jaxsoft.reports.aggregates import profile_bands, sample_efficiency
from jaxsoft.reports.comparison import Algorithm, Comparison
from jaxsoft.reports.plots import COLOURS, DASHES, STEPS, escape_text, plot_band, save, tidy

NAMES = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality_gap": "optimality gap"}

STYLES = [{"color": colour, "linestyle": DASHES[i % len(DASHES)]} for i, colour in enumerate(COLOURS)]
"""Line styles of the algorithms, best first."""

MOST_ALGORITHMS = 7
"""How many are drawn, the best: as many as there are colours."""

LABEL = 32
"""Characters in a line of an algorithm's name."""

MARGIN = 0.05
"""Share of the range of scores that is added at each end of a profile."""


def draw_comparison(path: Path, comparison: Comparison) -> Path:
    """Draws the best algorithms of a comparison; returns the path.

    Above, each aggregate metric with its interval; below, the share of seeds whose score exceeds τ, and the
    interquartile mean over environment steps. What is infinite is not drawn.

    Raises:
        InputError: the figure cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    algorithms = comparison.algorithms[:MOST_ALGORITHMS]
    metrics = list(algorithms[0].intervals)
    score = "score" if comparison.is_normalised else "return"
    labels = [textwrap.fill(escape_text(one.name), LABEL) for one in algorithms]
    height = 0.9 + len(algorithms) * (0.14 + 0.14 * max(label.count("\n") + 1 for label in labels))
    figure = Figure(figsize=(9.6, height + 3.5), dpi=120, layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 3.5))
    above, below = parts
    for axes, metric in zip(above.subplots(1, len(metrics), sharey=True), metrics, strict=True):
        _draw_intervals(axes, algorithms, labels, metric)
    profile, efficiency = below.subplots(1, 2)
    taus = _thresholds(algorithms)
    for one, style in zip(algorithms, STYLES, strict=False):
        plot_band(profile, taus, profile_bands(one.scores, taus), one.name, **style)
        curves = [[(part.timesteps, part.scores) for part in task] for task in one.parts]
        plot_band(efficiency, *sample_efficiency(curves), one.name, **style)
    profile.set(xlabel=f"{score} τ", ylabel=f"share of seeds with {score} > τ", ylim=(-0.03, 1.03))
    profile.xaxis.set_major_formatter(ScalarFormatter())  # the band's is of environment steps
    efficiency.set(xlabel=STEPS, ylabel=f"{score}, IQM")
    for axes in (profile, efficiency):
        tidy(axes)
    tasks = comparison.tasks
    title = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    hidden = len(comparison.algorithms) - len(algorithms)
    figure.suptitle(escape_text(title) + (f", the best {len(algorithms)} of {hidden + len(algorithms)}" * bool(hidden)))
    save(figure, path)
    return path


def _draw_intervals(axes: Any, algorithms: list[Algorithm], labels: list[str], metric: str) -> None:
    """One row per algorithm, the best at the top: a bar over the interval and a mark at the point."""
    from matplotlib.ticker import MaxNLocator

    for i, (one, style) in enumerate(zip(algorithms, STYLES, strict=False)):
        interval = np.array(one.intervals[metric])
        point, low, high = np.where(np.isfinite(interval), interval, np.nan)
        axes.barh(i, high - low, left=low, height=0.5, color=style["color"], alpha=0.3, linewidth=0)
        axes.plot([point, point], [i - 0.25, i + 0.25], color=style["color"], linewidth=2.5)
    axes.set_title(NAMES[metric], fontsize="medium")
    axes.set(yticks=range(len(algorithms)), ylim=(len(algorithms) - 0.5, -0.5))
    axes.set_yticklabels(labels, fontsize="small")
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.use_sticky_edges = False  # which would put the ends of bars on the frame
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="y", length=0)


def _thresholds(algorithms: list[Algorithm]) -> np.ndarray:
    """Values of τ from below the lowest finite score to above the highest."""
    scores = np.concatenate([x for one in algorithms for x in one.scores])
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    margin = MARGIN * (high - low) or MARGIN
    return np.linspace(low - margin, high + margin, 201)
