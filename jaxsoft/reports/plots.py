"""Pictures of runs, with matplotlib, written to PNG files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import Grid, cell_in_words
from jaxsoft.reports.statistics import ends_in_words, iqm, iqm_interval
from jaxsoft.runs.config import RunConfig, read_config
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
"""How many curves of a sweep are told apart."""


LINE = 112
"""Characters that fit in the width of a picture of a sweep."""


class Curve(NamedTuple):
    """What one run draws, or one cell of its sweep.

    Attributes:
        label: its name in the legend.
        timesteps: [num_reports].
        returns: [num_reports, num_seeds].
        look: number of its colour and of its dashes; None: as its place among the curves says.
    """

    label: str
    timesteps: np.ndarray
    returns: np.ndarray
    look: tuple[int, int] | None = None


def draw(run_paths: Sequence[Path], picture: Path) -> Path:
    """Draws the learning curves of run directories into one picture; returns where it is.

    Raises:
        InputError: one of them is no run directory, or is cut short, or the picture cannot be written.
    """
    curves = [curve for path in run_paths for curve in read_curves(path, with_path=len(run_paths) > 1)]
    configs = [read_config(path) for path in run_paths]
    title = ", ".join(dict.fromkeys(config.env_id for config in configs))
    if len(configs) == 1 and configs[0].sweep:
        title = f"{configs[0].train.kind.name} in {title}, {_seeds_in_words(configs[0])} of each cell"
    learning_curves(picture, curves, title=title, are_cells=any(config.sweep for config in configs))
    return picture


def read_curves(run_path: Path, *, with_path: bool = False) -> list[Curve]:
    """A run's returns, of each cell of its sweep: evaluated ones, or those of training where evaluation was off.

    Seeds that failed have −∞. Reports that some seeds of a cell have not come to yet are left out.
    """
    config = read_config(run_path)
    name = f"{config.train.kind.name}, {_seeds_in_words(config)}" + (f" ({run_path})" if with_path else "")
    curves = []
    for i, cell in enumerate(read_returns(run_path)):
        settings = cell_in_words(cell.settings)
        label = (f"{settings}, {name}" if with_path else settings) if settings else name
        num_failed = np.isneginf(cell.returns[-1:]).sum()
        label += f", {num_failed} failed" if num_failed else ""
        curves.append(Curve(label, cell.timesteps, cell.returns, None if with_path else _look(i, config.sweep)))
    return curves


def _look(number: int, sweep: Grid) -> tuple[int, int] | None:
    """Of a cell: where there is room, dashes tell the last setting's value, and colours those of the others."""
    *others, num_dashes = [len(values) for values in sweep.values()] or [1]
    fits = num_dashes <= len(DASHES) and 1 < math.prod(others) <= len(COLOURS)
    return divmod(number, num_dashes) if fits else None


def _seeds_in_words(config: RunConfig) -> str:
    return "1 seed" if config.num_seeds == 1 else f"{config.num_seeds} seeds"


def learning_curves(path: Path, curves: Sequence[Curve], *, title: str, are_cells: bool = False) -> None:
    """Draws each run's interquartile mean over seeds, the band that `iqm_interval` gives it, and the seeds behind it.

    Of the cells of a sweep the seeds are left out, and the best `MOST_CELLS` at the end are told apart. What is
    infinite is beyond the picture: a seed that failed ends, and so does a mean of too many of them; a band that begins
    at −∞ reaches down to the lowest return that is drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    shown = _best(curves) if are_cells else list(curves)
    others = [curve for curve in curves if not any(curve is one for one in shown)]
    num_columns = max(1, min(3, LINE // max(len(curve.label) + 8 for curve in shown)))
    num_lines = -(-len(shown) // num_columns) + bool(others) if are_cells else 0
    figure = Figure(figsize=(8.0 if are_cells else 6.4, 4.0 + 0.2 * num_lines), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(others):
        label = f"{len(others):,} others" if i == 0 else None
        axes.plot(curve.timesteps, _finite(iqm(curve.returns)), color="0.8", linewidth=0.6, zorder=1, label=label)
    floor = min((x.min() for curve in shown if len(x := curve.returns[np.isfinite(curve.returns)])), default=0.0)
    for i, curve in enumerate(shown):
        colour, dashes = curve.look or (i % len(COLOURS), i // len(COLOURS) % len(DASHES))
        colour, dashes = COLOURS[colour], DASHES[dashes]
        intervals = np.array([iqm_interval(returns) for returns in curve.returns]).reshape(-1, 3)
        intervals[np.isneginf(intervals[:, 1]) & np.isfinite(intervals[:, 2]), 1] = floor
        intervals = _finite(intervals)
        if not are_cells:
            axes.plot(curve.timesteps, _finite(curve.returns), color=colour, linewidth=0.6, alpha=0.25)
        axes.plot(
            curve.timesteps, intervals[:, 0], color=colour, linewidth=2, linestyle=dashes, label=plain(curve.label)
        )
        axes.fill_between(curve.timesteps, intervals[:, 1], intervals[:, 2], color=colour, alpha=0.2, linewidth=0)
    ends = dict.fromkeys(ends_in_words(curve.returns.shape[1]) for curve in shown)
    axes.set(title=plain(title), xlabel="environment steps per seed", ylabel=f"return, IQM{' or'.join(ends)}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if are_cells:
        figure.legend(frameon=False, loc="outside lower center", ncols=num_columns, fontsize="small", handlelength=3)
    else:
        axes.legend(frameon=False, loc="best")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
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


def plain(text: str) -> str:
    r"""Text from outside as matplotlib shows it: dollars are no formula, and what cannot be printed is escaped.

    >>> plain("e$x_{$")
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

    Args:
        path: PNG file.
        history: `residual` [n] and, as its first entry, the number of each policy or sweep; perhaps `largest_gain`.
        title: above the axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    unit, numbers = next(iter(history.items()))
    marker = "o" if len(numbers) <= 40 else ""
    axes.plot(numbers, history["residual"], marker=marker, markersize=4, color=COLOURS[0], label="residual")
    if "largest_gain" in history:
        axes.plot(
            numbers, history["largest_gain"], "s--", markersize=4, color=COLOURS[1], label="largest gain of any Q"
        )
        axes.legend(frameon=False)
    axes.set(title=plain(title), xlabel=unit, ylabel="units of reward", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def learning_picture(
    path: Path, steps: np.ndarray, distances: np.ndarray, returns: np.ndarray, best_return: float, *, title: str
) -> None:
    """Draws the distance to Q* and the return of many seeds over their steps, each with its interval.

    Args:
        path: PNG file.
        steps: [n].
        distances: [n, 3], an `Interval` each; what is not finite leaves a gap.
        returns: [n, 3], an `Interval` each.
        best_return: of the optimal policy.
        title: above both.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(8.4, 3.6), dpi=120, layout="constrained")
    figure.suptitle("\n".join(map(plain, title.split("\n"))), fontsize=10)
    panels = figure.subplots(1, 2)
    for axes, intervals, label in zip(panels, (distances, returns), ("max |Q − Q*|", "return"), strict=True):
        intervals = np.where(np.isfinite(intervals), intervals, np.nan)
        axes.plot(steps, intervals[:, 0], color=COLOURS[0], linewidth=2, label="soft policy")
        axes.fill_between(steps, intervals[:, 1], intervals[:, 2], color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.set(xlabel="environment steps per seed", ylabel=label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, steps[-1])
    shown = distances[:, 0][np.isfinite(distances[:, 0])]
    if len(shown) and shown.max() > 10 * shown.min():
        panels[0].set_yscale("log")
    panels[1].axhline(best_return, color="0.4", linewidth=1, linestyle="--", label="optimal soft policy")
    panels[1].legend(frameon=False)
    _save(figure, path)
