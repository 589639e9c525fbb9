"""The figures of docs/soft_q_lambda.md, each for light and for dark pages, at a size and in a type for slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deep_soft_q
import lambda_on_cartpole
import numpy as np
import off_policy
from pages import save

from jaxsoft.ops.traces import TRACES
from jaxsoft.reports.plots import COLOURS

HERE = Path(__file__).parent
GREY = "#888888"
TYPE: dict[Any, Any] = {
    "font.size": 16,
    "axes.titlesize": 17,
    "legend.fontsize": 15,
    "lines.linewidth": 2.5,
    "lines.markersize": 8,
}
GROUND, INK = "#1e2029", "#e6e6ea"
"""Of dark pages: the site's ground."""
DARK: dict[Any, Any] = dict.fromkeys(("figure.facecolor", "axes.facecolor"), GROUND)
DARK |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
LIGHTER = {COLOURS[0]: COLOURS[5], COLOURS[6]: INK}
"""Colours of the palette that dark ground swallows, and those that take their place."""

Palette = Sequence[str]


def paths(stem: str) -> tuple[Path, Path]:
    """The light and the dark version of a figure."""
    return HERE / f"{stem}.png", HERE / f"{stem}_dark.png"


def draw_all(far: list[off_policy.Row], deep: list[deep_soft_q.Cell], cartpole: list[lambda_on_cartpole.Cell]) -> None:
    """Writes every figure twice."""
    figures: dict[str, Callable[[Any, Palette], None]] = {
        "study_when": lambda figure, palette: draw_when(figure, palette, deep, cartpole),
        "study_far": lambda figure, palette: draw_far(figure, palette, far),
        "study_temperature": lambda figure, palette: draw_temperature(figure, palette, deep),
    }
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from PIL import Image

    for stem, draw in figures.items():
        for path, style in zip(paths(stem), ({}, DARK), strict=True):
            with rc_context(TYPE | style):
                figure = Figure(figsize=(12.0, 5.2), dpi=110, layout="constrained")
                draw(figure, [LIGHTER.get(x, x) if style else x for x in COLOURS])
                save(figure, path, has_legend=False)
            Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # half the bytes


def draw_when(
    figure: Any, palette: Palette, deep: list[deep_soft_q.Cell], cartpole: list[lambda_on_cartpole.Cell]
) -> None:
    """Reward that is rare: Acrobot over λ. Returns that are large: CartPole over the step size."""
    left, right = figure.subplots(1, 2)
    rare = [cell for cell in deep if (cell.task, cell.temperature) == ("Acrobot", 0.1)]
    for i, trace in enumerate(TRACES[:4]):
        one_step, *cells = deep_soft_q.cells_of(rare, trace)
        at = [x.lambda_ + 0.014 * (i - 1.5) for x in cells]
        left.plot([0, at[0]], [one_step.final.point, cells[0].final.point], color=palette[i], zorder=1)
        whisker(left, at, [x.final for x in cells], palette[i], trace, off_policy.MARKER_OF[trace])
        if i == 0:
            whisker(left, [0], [one_step.final], GREY, "", "p")
    left.set(title="Reward is rare: Acrobot, τ = 0.1", xlabel="λ", ylabel="return", ylim=(-520, 25))
    left.legend(frameon=False, loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.3)
    names = lambda_on_cartpole.SHOWN["CartPole"]
    for i, (lambda_, marker) in enumerate(zip((0.0, 0.5, 0.9, 1.0), "os^D", strict=True)):
        cells = [x for name in names for x in cartpole if (x.part, x.lambda_) == (name, lambda_)]
        at = [x.learning_rate * 1.05 ** (i - 1.5) for x in cells]
        whisker(right, at, [(x.iqm, x.low, x.high) for x in cells], palette[i], f"λ = {lambda_:g}", marker)
    right.set(title="Returns are large: CartPole, τ = 1", xlabel="step size α", ylabel="return", xscale="log")
    right.legend(frameon=False, loc="lower right")


def whisker(axes: Any, x: Sequence[float], intervals: Sequence[Any], colour: str, label: str, marker: str) -> None:
    """Points joined by a line, with their intervals as bars."""
    point, low, high = np.array(intervals).T
    bars = (point - low, high - point)
    axes.errorbar(x, point, bars, fmt=f"{marker}-", color=colour, label=label or None, capsize=3, elinewidth=1.5)


def draw_far(figure: Any, palette: Palette, rows: list[off_policy.Row]) -> None:
    """What longer returns gain over the distance between the behaviour and the policy."""
    left, right = figure.subplots(1, 2)
    colour_of: dict[str, str] = dict(zip(TRACES, palette, strict=False))
    off_policy.draw_garnets(left, rows, 0.1, colour_of)
    off_policy.draw_cartpole(right, rows, colour_of)
    left.axhline(1, color=GREY, linestyle="--", linewidth=2)
    left.set(title="Random MDPs, τ = 0.1", xlabel="TV(μ, π)", ylabel="error / error of one step", yscale="log")
    left.set_yticks([0.6, 0.8, 1.0, 1.5, 2.0], ["0.6", "0.8", "1", "1.5", "2"])
    left.minorticks_off()
    right.set(title="CartPole, τ = 1, λ = 0.9", xlabel="TV(μ, π)", ylabel="return")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=len(labels), fontsize=13.5)


def draw_temperature(figure: Any, palette: Palette, deep: list[deep_soft_q.Cell]) -> None:
    """Returns over the temperature, with one step and with Retrace."""
    shown = "CartPole", "Acrobot", "DeepSea", "Breakout"
    lines = ("one-step", 0.0, palette[1], "s"), ("retrace", 0.9, palette[0], "o")
    for axes, task in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for i, (trace, lambda_, colour, marker) in enumerate(lines):
            cells = [x for x in deep if (x.task, x.trace, x.lambda_) == (task, trace, lambda_)]
            at = [x.temperature * 1.06 ** (2 * i - 1) for x in cells]
            whisker(axes, at, [x.final for x in cells], colour, f"λ = {lambda_:g}", marker)
        axes.set(title=task, xlabel="τ", xscale="log")
        temperatures = deep_soft_q.TASKS[task].temperatures
        axes.set_xticks(temperatures, [f"{x:g}" for x in temperatures])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("return")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=2)
