"""Pictures of runs, with matplotlib, written to PNG files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import Grid, cell_in_words
from jaxsoft.reports.statistics import count_in_words, ends_in_words, iqm, iqm_interval
from jaxsoft.runs.config import read_config
from jaxsoft.runs.files import write_atomically
from jaxsoft.runs.tables import read_returns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers and in grey."""


DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1)))
"""Curves beyond the number of colours are dashed, then dotted."""

MOST_CELLS = 12
"""How many curves of a sweep have a style of their own."""


STEPS = "environment steps per seed"

LINE = 112
"""Characters that fit in the width of a picture of a sweep."""


class Curve(NamedTuple):
    """The returns of a run, or of one cell of its sweep, as they are drawn.

    Attributes:
        label: its name in the legend.
        timesteps: [num_reports].
        returns: [num_reports, num_seeds].
        style: numbers of its colour and of its dashes; None: its place among the curves decides.
    """

    label: str
    timesteps: np.ndarray
    returns: np.ndarray
    style: tuple[int, int] | None = None


def draw(run_paths: Sequence[Path], picture: Path) -> Path:
    """Draws the learning curves of run directories into one picture; returns where it is.

    Raises:
        InputError: one of them is no run directory, or is cut short, or the picture cannot be written.
    """
    curves = [curve for path in run_paths for curve in read_curves(path, with_path=len(run_paths) > 1)]
    configs = [read_config(path) for path in run_paths]
    title = ", ".join(dict.fromkeys(config.env_id for config in configs))
    if len(configs) == 1 and configs[0].sweep:
        seeds = count_in_words(configs[0].num_seeds, "seed")
        title = f"{configs[0].train.kind.name} in {title}, {seeds} of each cell"
    learning_curves(picture, curves, title=title, are_cells=any(config.sweep for config in configs))
    return picture


def read_curves(run_path: Path, *, with_path: bool = False) -> list[Curve]:
    """A curve for each cell of a run: returns of evaluation or, where that was off, of training.

    Seeds that failed have −∞. Reports that some seeds of a cell have not made yet are left out.
    """
    config = read_config(run_path)
    name = f"{config.train.kind.name}, {count_in_words(config.num_seeds, 'seed')}" + (
        f" ({run_path})" if with_path else ""
    )
    curves = []
    for i, cell in enumerate(read_returns(run_path)):
        settings = cell_in_words(cell.settings)
        label = (f"{settings}, {name}" if with_path else settings) if settings else name
        num_failed = np.isneginf(cell.returns[-1:]).sum()
        label += f", {num_failed} failed" if num_failed else ""
        curves.append(Curve(label, cell.timesteps, cell.returns, None if with_path else _style_of(i, config.sweep)))
    return curves


def _style_of(number: int, sweep: Grid) -> tuple[int, int] | None:
    """The style of a cell. Where there is room, dashes tell the last setting's value, and colours the others'."""
    *others, num_dashes = [len(values) for values in sweep.values()] or [1]
    fits = num_dashes <= len(DASHES) and 1 < math.prod(others) <= len(COLOURS)
    return divmod(number, num_dashes) if fits else None


def learning_curves(path: Path, curves: Sequence[Curve], *, title: str, are_cells: bool = False) -> None:
    """Draws each run's interquartile mean over seeds in the band of its `iqm_interval`, and thinly its seeds.

    Of a sweep's cells no seeds are drawn, and only the `MOST_CELLS` that end highest have a style of their own. Curves
    stop where they are infinite: at a seed that failed, or at a mean of too many such seeds. A band whose lower end is
    −∞ reaches down to the lowest finite return.
    """
    shown = _best(curves) if are_cells else list(curves)
    others = [curve for curve in curves if not any(curve is one for one in shown)]
    num_columns = max(1, min(3, LINE // max(len(curve.label) + 8 for curve in shown)))
    num_lines = -(-len(shown) // num_columns) + bool(others) if are_cells else 0
    figure, (axes,) = _make_figure((8.0 if are_cells else 6.4, 4.0 + 0.2 * num_lines))
    for i, curve in enumerate(others):
        label = f"{len(others):,} others" if i == 0 else None
        axes.plot(curve.timesteps, _finite(iqm(curve.returns)), color="0.8", linewidth=0.6, zorder=1, label=label)
    floor = min((x.min() for curve in shown if len(x := curve.returns[np.isfinite(curve.returns)])), default=0.0)
    for i, curve in enumerate(shown):
        colour, dashes = curve.style or (i % len(COLOURS), i // len(COLOURS) % len(DASHES))
        intervals = _intervals(curve.returns)
        intervals[np.isneginf(intervals[:, 1]) & np.isfinite(intervals[:, 2]), 1] = floor
        if not are_cells:
            _plot_seeds(axes, curve, COLOURS[colour])
        style = {"color": COLOURS[colour], "linestyle": DASHES[dashes]}
        plot_band(axes, curve.timesteps, intervals, escape_text(curve.label), **style)
    ends = dict.fromkeys(ends_in_words(curve.returns.shape[1]) for curve in shown)
    axes.set(title=escape_text(title), xlabel=STEPS, ylabel=f"return, IQM{' or'.join(ends)}")
    if are_cells:
        figure.legend(frameon=False, loc="outside lower center", ncols=num_columns, fontsize="small", handlelength=3)
    else:
        axes.legend(frameon=False, loc="best")
    save(figure, path)


def _plot_seeds(axes: Axes, curve: Curve, colour: str) -> None:
    """Draws a thin line for each seed. They are one artist: a legend takes seconds to avoid a thousand."""
    from matplotlib.collections import LineCollection

    returns = _finite(curve.returns)
    lines = [np.column_stack((curve.timesteps, seed_returns)) for seed_returns in returns.T]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.25))
    for ends in (np.fmin, np.fmax):  # not to be seen, but for the legend, which keeps away from lines
        axes.plot(curve.timesteps, ends.reduce(returns, axis=1), linewidth=0)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, of the kind that its name says, or PNG.

    Raises:
        InputError: matplotlib has no such kind, or it cannot be written.
    """
    content, kind = io.BytesIO(), path.suffix.removeprefix(".").lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"the picture is {path}; it must be a .png, .pdf or .svg file")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # that the font lacks one can be seen
        figure.savefig(content, format=kind, metadata={"Software": None} if kind == "png" else None)
    write_atomically(path, content.getvalue())


def _best(curves: Sequence[Curve]) -> list[Curve]:
    """The `MOST_CELLS` curves that end highest, in their own order."""
    ends = [iqm(curve.returns[-1]) if len(curve.returns) else -np.inf for curve in curves]
    return [curves[i] for i in sorted(np.argsort(np.nan_to_num(ends, nan=-np.inf))[::-1][:MOST_CELLS])]


def escape_text(text: str) -> str:
    r"""Text from outside as matplotlib shows it: dollars are no formula, and what cannot be printed is escaped.

    >>> escape_text("e$x_{$")
    'e\\$x_{\\$'
    """
    return printable(text).replace("$", r"\$")


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)


def tidy(axes: Axes) -> None:
    """A light grid, and no frame above and at the right."""
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def residuals_picture(path: Path, history: Mapping[str, np.ndarray], *, title: str) -> None:
    """Draws how the residual of a solution fell, and the gains of each policy where there are some.

    The history has `residual` [n] and, as its first entry, the number of each policy or sweep; perhaps `largest_gain`.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _make_figure((6.4, 4.0))
    unit, numbers = next(iter(history.items()))
    marker = "o" if len(numbers) <= 40 else ""
    axes.plot(numbers, history["residual"], marker=marker, markersize=4, color=COLOURS[0], label="residual")
    if "largest_gain" in history:
        axes.plot(
            numbers, history["largest_gain"], "s--", markersize=4, color=COLOURS[1], label="largest gain of any Q"
        )
        axes.legend(frameon=False)
    axes.set(title=escape_text(title), xlabel=unit, ylabel="units of reward", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


def learning_picture(path: Path, history: Mapping[str, np.ndarray], best_return: float, *, title: str) -> None:
    """Draws the distance to Q* and the return of many seeds over their steps, each with its interval.

    The history has `step`, `distance` and `return`, each [num_reports * num_seeds], one report after the other;
    `best_return` is that of the optimal policy.
    """
    steps = np.unique(history["step"])
    figure, panels = _make_figure((8.4, 3.6), 2)
    figure.suptitle("\n".join(map(escape_text, title.split("\n"))), fontsize=10)
    for axes, name, label in zip(panels, ("distance", "return"), ("max |Q − Q*|", "return"), strict=True):
        intervals = _intervals(history[name].reshape(len(steps), -1))
        plot_band(axes, steps, intervals, "soft policy", color=COLOURS[0])
        axes.set(xlabel=STEPS, ylabel=label)
        axes.set_xlim(0, steps[-1])
        shown = intervals[np.isfinite(intervals[:, 0]), 0]
        if name == "distance" and len(shown) and shown.max() > 10 * shown.min():
            axes.set_yscale("log")
    panels[1].axhline(best_return, color="0.4", linewidth=1, linestyle="--", label="optimal soft policy")
    panels[1].legend(frameon=False)
    save(figure, path)


def _make_figure(size: tuple[float, float], num_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of a size in inches, its panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(1, num_panels, squeeze=False)[0]
    for axes in panels:
        tidy(axes)
    return figure, list(panels)


def _intervals(rows: np.ndarray) -> np.ndarray:
    """[n, num_seeds] -> [n, 3], the interval of each row."""
    return np.array([iqm_interval(row) for row in rows]).reshape(-1, 3)


def plot_band(
    axes: Axes, steps: np.ndarray, intervals: np.ndarray, label: str, *, color: str, linestyle: Any = "solid"
) -> None:
    """Draws intervals [n, 3] over environment steps [n] as a line in a band; what is not finite leaves a gap."""
    from matplotlib.ticker import EngFormatter

    point, low, high = _finite(intervals).T
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, point, color=color, linewidth=2, linestyle=linestyle, marker=marker, label=label)
    axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
