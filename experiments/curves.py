"""What the experiments on learning curves share: run directories, their returns in a CSV file, tables and a picture.

A script's run directories stand in the folder that `--runs` names. Those that are finished are not trained again, and
those that were cut short go on. The returns go into the script's CSV file: what is in that file needs no run directory.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from go_on import train_on
from pages import draw_band, save, table

import jaxsoft
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.tables import CellReturns, read_returns
from jaxsoft.training.config import make_config
from jaxsoft.types import AgentKind, Metrics

LAST = 3
"""Evaluations that a final score is the mean of."""


class Run(NamedTuple):
    """What is trained.

    Attributes:
        task: the heading of its table, the title of its panel.
        label: tells the runs of a task apart.
        path: of its run directory, in the folder of all.
        config: what it trains.
    """

    task: str
    label: str
    path: str
    config: RunConfig


Curves = dict[tuple[str, str], CellReturns]
"""Returns by task and label."""


def make_run_config(
    agent: str | AgentKind, env_id: str, settings: Mapping[str, Any], num_seeds: int, **options: Any
) -> RunConfig:
    """Seeds from 0 on, with `settings` over the preset, and a checkpoint at every evaluation to go on from."""
    train = make_config(agent, env_id, settings)
    return RunConfig(env_id, train, num_seeds=num_seeds, checkpoint_every=train.eval_every, **options)


def train(folder: Path, run: Run) -> list[CellReturns]:
    """Trains what is not trained yet of a run directory; its returns, cell by cell."""
    path = folder / run.path
    train_on(path, run.config)
    return read_returns(path)


def train_curve(folder: Path, run: Run) -> Curves:
    """The one curve of a run that is no sweep."""
    (returns,) = train(folder, run)
    return {(run.task, run.label): returns}


def map_seeds(function: Callable[[jax.Array], Metrics], num_seeds: int) -> dict[str, np.ndarray]:
    """What a function of a key gives for every seed from 0 on, in one program: each [num_seeds, ...]."""
    found = jaxsoft.spread(function)(seed_keys(jnp.arange(num_seeds, dtype=jnp.int32)))
    return {name: np.asarray(x) for name, x in found.items()}


def parse(doc: str | None, tasks: Iterable[str]) -> tuple[Path, str | None]:
    """The command line of a script: the folder of its run directories, and the one task to measure, if any."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="where run directories are kept")
    parser.add_argument("--only", choices=list(dict.fromkeys(tasks)), help="measure one task")
    options = parser.parse_args()
    jaxsoft.use_all_cores()
    return options.runs, options.only


def main(
    doc: str | None,
    stem: Path,
    all_runs: Sequence[Run],
    *,
    answer: str | Callable[[Curves], str],
    measure: Callable[[Path, Run], Curves] = train_curve,
    picture: Callable[[Path, Curves, str], None] | None = None,
    unit: str = "environment steps",
) -> Curves:
    """Measures what `stem`.csv does not have, then writes `stem`.md and `stem`.png.

    Args:
        doc: of the script, for its `--help`.
        stem: path of the files, without a suffix.
        all_runs: in the order of tables and legends.
        answer: what the numbers say, in words, for the top of `stem`.md; or a function of them.
        measure: `(folder, run)`; the label of a curve is the run's, or begins with it and a comma.
        picture: draws `stem`.png; by default `draw`, a panel per task.
        unit: of the timesteps.

    Returns:
        All that has been measured.
    """
    folder, only = parse(doc, (run.task for run in all_runs))
    file = stem.with_suffix(".csv")
    measured = read(file)
    for run in all_runs:
        if only in (None, run.task) and not curves_of(run, measured):
            start = time.perf_counter()
            measured |= measure(folder, run)
            write_csv(file, measured)
            ends = ", ".join(str(final(curve)) for curve in curves_of(run, measured).values())
            print(f"{run.task}, {run.label}: {ends}, {time.perf_counter() - start:.0f} s", flush=True)
    measured = {name: curve for run in all_runs for name, curve in curves_of(run, measured).items()}
    write_csv(file, measured)
    words = answer if isinstance(answer, str) else answer(measured)
    write(stem.with_suffix(".md"), measured, {run.task: run.config.env_id for run in all_runs}, words, unit)
    (picture or draw)(stem.with_suffix(".png"), measured, unit)
    return measured


def curves_of(run: Run, curves: Curves) -> Curves:
    """Those of one run."""
    return {
        (task, label): curve
        for (task, label), curve in curves.items()
        if task == run.task and f"{label},".startswith(f"{run.label},")
    }


def by_task(curves: Curves) -> dict[str, dict[str, CellReturns]]:
    """The curves of each task by their labels."""
    tasks: dict[str, dict[str, CellReturns]] = {}
    for (task, label), curve in curves.items():
        tasks.setdefault(task, {})[label] = curve
    return tasks


def final(curve: CellReturns) -> Interval:
    """Over seeds, the mean of the last evaluations."""
    return iqm_interval(curve.returns[-LAST:].mean(axis=0))


def average(curve: CellReturns) -> Interval:
    """Over seeds, the mean of all evaluations: the area under the curve, the speed."""
    return iqm_interval(curve.returns.mean(axis=0))


def read(file: Path) -> Curves:
    """The curves that have been measured."""
    rows: dict[tuple[str, str], list[list[str]]] = {}
    if file.exists():
        with file.open() as lines:
            for task, label, *numbers in list(csv.reader(lines))[1:]:
                rows.setdefault((task, label), []).append(numbers)
    numbers = {name: np.array(own, np.float64) for name, own in rows.items()}
    return {name: CellReturns({}, own[:, 0].astype(int), own[:, 1:]) for name, own in numbers.items()}


def write_csv(file: Path, curves: Curves) -> None:
    """A row per evaluation, a column per seed."""
    num_seeds = max(curve.returns.shape[1] for curve in curves.values())
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["task", "label", "timestep", *(f"seed_{i}" for i in range(num_seeds))])
        for name, curve in curves.items():
            for timestep, returns in zip(curve.timesteps, curve.returns, strict=True):
                writer.writerow([*name, timestep, *(f"{x:.5g}" for x in returns)])


def write(file: Path, curves: Curves, env_ids: Mapping[str, str], answer: str, unit: str) -> None:
    """The answer, and a table per task."""
    numbers = {curve.returns.shape[1] for curve in curves.values()}
    all_seeds = "the seeds of each task" if len(numbers) > 1 else f"{max(numbers)} seeds"
    lines = [answer.strip(), ""]
    lines += [f"IQM over {all_seeds} with its 95 % bootstrap interval; the final score is the mean of"]
    lines += [f"a seed's last {LAST} evaluations, the average that of all: the area under the learning curve."]
    for task, own in by_task(curves).items():
        first = next(iter(own.values()))
        seeds = f", {first.returns.shape[1]} seeds" if len(numbers) > 1 else ""
        lines += ["", f"## {task}", "", f"`{env_ids[task]}`, {first.timesteps[-1]:,} {unit}{seeds}.", ""]
        rows = ((label, final(curve), average(curve)) for label, curve in own.items())
        lines += table(("", "final", "average"), rows)
    file.write_text("\n".join(lines) + "\n")


def draw(file: Path, curves: Curves, unit: str) -> None:
    """A panel per task: IQM over seeds and its interval, against timesteps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, NullFormatter

    tasks = by_task(curves)
    columns = 2 if len(tasks) == 4 else min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(1.0 + 3.2 * columns, 2.9 * rows), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = dict(zip(dict.fromkeys(label for _, label in curves), COLOURS, strict=False))
    for axes, (task, own) in zip(panels, tasks.items(), strict=False):
        for label, curve in own.items():
            draw_curve(axes, curve, color=colours[label], label=label)
        axes.set(title=task, xlabel=unit, ylabel="return")
        if len({curve.timesteps[-1] for curve in own.values()}) > 1:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels[len(tasks) :]:
        axes.remove()
    save(figure, file)


def draw_curve(axes: Any, curve: CellReturns, **line: Any) -> None:
    """A learning curve and, as a band, its intervals over seeds."""
    draw_band(axes, curve.timesteps, [iqm_interval(returns) for returns in curve.returns], **line)
