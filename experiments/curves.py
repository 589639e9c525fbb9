"""What the experiments on learning curves share: train cells over seeds, keep their numbers, tabulate and draw them."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxsoft
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval

LAST = 3
"""Evaluations that a final score is the mean of."""


class Cell(NamedTuple):
    """What is trained: an agent in a task, with settings over its preset; `label` tells the cells of a task apart."""

    task: str
    label: str
    agent: str
    env_id: str
    settings: dict[str, Any]


class Curve(NamedTuple):
    """A cell's returns: `timesteps` [num_reports], `returns` [num_seeds, num_reports]."""

    task: str
    label: str
    timesteps: np.ndarray
    returns: np.ndarray

    @property
    def final(self) -> Interval:
        """Over seeds, the mean of the last evaluations."""
        return iqm_interval(self.returns[:, -LAST:].mean(axis=1))

    @property
    def average(self) -> Interval:
        """Over seeds, the mean of all evaluations: the area under the curve, the speed."""
        return iqm_interval(self.returns.mean(axis=1))


def train(cell: Cell, num_seeds: int) -> list[Curve]:
    """Trains all seeds in one program; a list of one."""
    env = jaxsoft.make_env(cell.env_id)
    program = jaxsoft.spread(jaxsoft.make_train(cell.agent, env, **cell.settings))
    metrics = jax.device_get(program(seed_keys(jnp.arange(num_seeds, dtype=jnp.int32)))[1])
    return [Curve(cell.task, cell.label, metrics["timestep"][0], metrics["eval_return"])]


def main(
    doc: str,
    stem: Path,
    cells: Sequence[Cell],
    *,
    num_seeds: int,
    answer: str,
    measure: Callable[[Cell, int], list[Curve]] = train,
    picture: Callable[[Path, Sequence[Curve], str], None] | None = None,
    unit: str = "environment steps",
) -> None:
    """Measures the cells that `stem`.csv does not have, then writes `stem`.md and `stem`.png.

    Args:
        doc: of the script, for its `--help`.
        stem: path of the files, without a suffix.
        cells: all of them; the order is that of tables and legends.
        num_seeds: of each cell.
        answer: what the numbers say, in words, for the top of `stem`.md.
        measure: trains one cell.
        picture: draws `stem`.png; by default `draw`, a panel per task.
        unit: of the timesteps.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=dict.fromkeys(cell.task for cell in cells), help="measure one task")
    only = parser.parse_args().only
    jaxsoft.use_all_cores()
    file = stem.with_suffix(".csv")
    curves = read(file)
    for cell in cells:
        if only in (None, cell.task) and not any(c.task == cell.task and is_of(c, cell) for c in curves):
            start = time.perf_counter()
            curves += measure(cell, num_seeds)
            save(file, curves)
            print(f"{cell.task}, {cell.label}: {curves[-1].final}, {time.perf_counter() - start:.0f} s", flush=True)
    order = [(cell.task, cell.label) for cell in cells]
    curves.sort(key=lambda c: min(i for i, at in enumerate(order) if at[0] == c.task and c.label.startswith(at[1])))
    save(file, curves)
    write(stem.with_suffix(".md"), curves, cells, answer, unit)
    (picture or draw)(stem.with_suffix(".png"), curves, unit)


def is_of(curve: Curve, cell: Cell) -> bool:
    """Whether a curve is one of a cell's: its label is the cell's, or begins with it and a comma."""
    return curve.label == cell.label or curve.label.startswith(f"{cell.label},")


def read(file: Path) -> list[Curve]:
    """The curves that have been measured."""
    if not file.exists():
        return []
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    curves = []
    for task, label in dict.fromkeys((row["task"], row["label"]) for row in rows):
        ours = [row for row in rows if (row["task"], row["label"]) == (task, label)]
        timesteps = np.array([int(row["timestep"]) for row in ours])
        seeds = [name for name in ours[0] if name.startswith("seed_") and ours[0][name]]
        curves.append(Curve(task, label, timesteps, np.array([[float(row[s]) for row in ours] for s in seeds])))
    return curves


def save(file: Path, curves: Sequence[Curve]) -> None:
    """A row per evaluation, a column per seed."""
    num_seeds = max(len(curve.returns) for curve in curves)
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["task", "label", "timestep", *(f"seed_{i}" for i in range(num_seeds))])
        for curve in curves:
            for timestep, returns in zip(curve.timesteps, curve.returns.T, strict=True):
                writer.writerow([curve.task, curve.label, timestep, *(f"{x:.5g}" for x in returns)])


def write(file: Path, curves: Sequence[Curve], cells: Sequence[Cell], answer: str, unit: str) -> None:
    """The answer, and a table per task."""
    lines = [answer.strip(), ""]
    lines += [
        f"IQM over {len(curves[0].returns)} seeds with its 95 % bootstrap interval; the final score is the mean of"
    ]
    lines += [f"a seed's last {LAST} evaluations, the average that of all: the area under the learning curve."]
    for task in dict.fromkeys(curve.task for curve in curves):
        ours = [curve for curve in curves if curve.task == task]
        env_id = next(cell.env_id for cell in cells if cell.task == task)
        lines += ["", f"## {task}", "", f"`{env_id}`, {ours[0].timesteps[-1]:,} {unit}.", ""]
        lines += ["| | final | average |", "|---|--:|--:|"]
        lines += [f"| {curve.label} | {curve.final} | {curve.average} |" for curve in ours]
    file.write_text("\n".join(lines) + "\n")


def draw(file: Path, curves: Sequence[Curve], unit: str) -> None:
    """A panel per task: IQM over seeds and its interval, against timesteps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, NullFormatter

    tasks = list(dict.fromkeys(curve.task for curve in curves))
    columns = 2 if len(tasks) == 4 else min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(1.0 + 3.2 * columns, 2.9 * rows), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = list(dict.fromkeys(curve.label for curve in curves))
    for axes, task in zip(panels, tasks, strict=False):
        for curve in (curve for curve in curves if curve.task == task):
            colour = COLOURS[labels.index(curve.label) % len(COLOURS)]
            intervals = [iqm_interval(returns) for returns in curve.returns.T]
            draw_line(axes, curve.timesteps, intervals, colour, curve.label)
        axes.set(title=task, xlabel=unit, ylabel="return")
        if len({curve.timesteps[-1] for curve in curves if curve.task == task}) > 1:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        finish_axes(axes)
    for axes in panels[len(tasks) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=len(labels))
    figure.savefig(file, metadata={"Software": None})


def draw_line(axes: Any, x: Any, intervals: Sequence[Interval], colour: str, label: str, style: str = "-") -> None:
    """IQMs over `x` and, as a band, their intervals."""
    point, low, high = np.array(intervals).T
    axes.plot(x, point, style, color=colour, label=label, markersize=3)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def finish_axes(axes: Any) -> None:
    """A light grid, no box."""
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
