"""`jaxsoft eval RUN`: plays episodes with a run's trained policies."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from jaxsoft.cli.console import Fitting, make_console, seeds_in_words
from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import MOST_ROWS, best_first, cells_table, failed_lines
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import cell_in_words, value_in_words
from jaxsoft.reports.statistics import Interval, Range, ends_in_words, iqm_interval
from jaxsoft.reports.video import check_film, film, play
from jaxsoft.runs.config import RunConfig, read_config
from jaxsoft.runs.evaluation import Evaluation, evaluate_run
from jaxsoft.runs.policies import load_policy
from jaxsoft.training.config import check


@dataclass(frozen=True)
class EvalOptions:
    """Play episodes with the trained policies of a run."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    deterministic: bool = False
    """Act by the policy's mode (this is what happens without either flag)."""
    stochastic: bool = False
    """Draw actions from the policy."""
    num_episodes: int = 100
    """Episodes for each seed's policy."""
    seed: int = 0
    """Random seed of the episodes, of which every policy meets its own: intervals tell what starts contribute, too."""
    env: str | None = None
    """Environment to play in, by default the run's; also one of gymnasium's own, for example gymnasium/Hopper-v5."""
    video: Path | None = None
    """Film one episode of the policy of the median seed that has not failed, of a sweep's best cell: a .gif of gymnax's
    environments, a .html of Brax's and MuJoCo's."""
    all_rows: bool = False
    """Show a row for every seed and cell, and every failed seed; otherwise more than 20 are summarised."""
    json: bool = False
    """Print one JSON object instead of a table."""


def eval_command(argv: list[str]) -> None:
    """`jaxsoft eval RUN [--deterministic | --stochastic] [--num-episodes N] [--env ENV] [--video FILE] [--json]`."""
    options = parse_options(EvalOptions, "jaxsoft eval", argv, config=(tyro.conf.FlagCreatePairsOff,))
    if options.deterministic and options.stochastic:
        raise InputError("give --deterministic or --stochastic, not both")
    check("seed", options.seed)
    if options.video is not None:
        check_film(options.video, options.env or read_config(options.run).env_id)
    evaluation = evaluate_run(
        options.run,
        num_episodes=options.num_episodes,
        deterministic=not options.stochastic,
        seed=options.seed,
        env_id=options.env,
    )
    config = evaluation.config
    mean_returns = evaluation.returns.mean(axis=1).reshape(len(config.cells), config.num_seeds)
    saved_of = (evaluation.timesteps > 0).reshape(mean_returns.shape)
    saved = [returns[is_saved] for returns, is_saved in zip(mean_returns, saved_of, strict=True)]
    intervals = [iqm_interval(returns) if len(returns) else NOTHING for returns in saved]
    if options.json:
        print(json.dumps(_answer(options, evaluation, mean_returns, intervals), allow_nan=False))
    else:
        _print_tables(options, evaluation, mean_returns, intervals)
    if options.video is not None:
        told = f"{options.video}: {_film(options.video, options, config, mean_returns, intervals)}"
        print(printable(told), file=sys.stderr if options.json else sys.stdout)


def _print_tables(
    options: EvalOptions, evaluation: Evaluation, mean_returns: np.ndarray, intervals: list[Interval]
) -> None:
    """Shows people the mean returns [num_cells, num_seeds], and their intervals."""
    config, console = evaluation.config, make_console()
    played_in = options.env or config.env_id
    mode = "stochastic" if options.stochastic else "deterministic"
    origin = "" if played_in == config.env_id else f", trained in {config.env_id}"
    console.print(f"{config.train.kind.name} in {played_in}{origin}, {mode}, {options.num_episodes} episodes per seed")
    for line in _progress_lines(evaluation):
        console.print(line, style="bold yellow")
    if options.all_rows or mean_returns.size <= MOST_ROWS:
        console.print(_seeds_table(evaluation))
    elif not config.sweep:
        console.print(_summary_table(evaluation))
    for line in failed_lines(evaluation.failed, config.cells, all_rows=options.all_rows):
        console.print(line, style="bold red")
    if config.sweep:
        most = len(config.cells) if options.all_rows else MOST_ROWS
        console.print(cells_table(config.cells, mean_returns, intervals, most=most))
        return
    num_seeds = int(np.count_nonzero(evaluation.timesteps))
    console.print(f"IQM over {seeds_in_words(num_seeds)}{ends_in_words(num_seeds)}: {intervals[0]}")


NOTHING = Range(math.nan, math.nan, math.nan)
"""The interval of a cell whose seeds have no checkpoint."""


def _progress_lines(evaluation: Evaluation) -> list[str]:
    """Which policies are not those of the end of training, if some are."""
    total, num = evaluation.config.train.total_timesteps, len(evaluation.timesteps)
    early, counts = np.unique(evaluation.timesteps[evaluation.timesteps < total], return_counts=True)
    if not len(early):
        return []
    told = []
    for timestep, count in zip(early, counts, strict=True):
        whose = "all policies are" if count == num else f"{count:,} of {num:,} policies are"
        missing = f"{count:,} of {num:,} seeds have no checkpoint yet"
        told.append(f"{whose} those of timestep {timestep:,}" if timestep else missing)
    return [f"not trained to its end, timestep {total:,}: {'; '.join(told)}"]


def _answer(
    options: EvalOptions, evaluation: Evaluation, mean_returns: np.ndarray, intervals: list[Interval]
) -> dict[str, Any]:
    """What `--json` prints, of mean returns [num_cells, num_seeds]; a sweep's cells best first. −∞ and NaN are null."""
    config, by_cell = evaluation.config, mean_returns.shape
    lengths, timesteps = evaluation.lengths.mean(axis=1).reshape(by_cell), evaluation.timesteps.reshape(by_cell)
    cells = [
        {
            "eval_return": _numbers(mean_returns[i]),
            "eval_length": lengths[i].tolist(),
            "timestep": timesteps[i].tolist(),
            "failed": [one._asdict() for one in evaluation.failed if one.cell == i],
            "missing": config.seeds[timesteps[i] == 0].tolist(),
            "iqm": _numbers(intervals[i])[0],
            "min_max" if isinstance(intervals[i], Range) else "iqm_interval": _numbers(intervals[i])[1:],
        }
        for i in range(len(config.cells))
    ]
    ranked = best_first([interval.point for interval in intervals])
    return {
        "run": str(options.run),
        "agent": config.train.kind.name,
        "env": options.env or config.env_id,
        "trained_in": config.env_id,
        "policy": "stochastic" if options.stochastic else "deterministic",
        "num_episodes": options.num_episodes,
        "seeds": config.seeds.tolist(),
        **({"cells": [{"settings": config.cells[i]} | cells[i] for i in ranked]} if config.sweep else cells[0]),
    }


def _numbers(values: Any) -> list[float | None]:
    return [float(x) if np.isfinite(x) else None for x in values]


def _seeds_table(evaluation: Evaluation) -> Fitting:
    """A row for each seed, of every cell."""
    table, config = Table(), evaluation.config
    columns = ("seed", "mean return", "std", "min", "max", "mean length")
    for column in (*config.sweep, *columns):
        table.add_column(column, justify="right", no_wrap=True)
    lines = ["  ".join((*columns, *["settings"] * bool(config.sweep)))]
    members = [(cell, seed) for cell in config.cells for seed in config.seeds]
    of_members = (evaluation.timesteps, evaluation.returns, evaluation.lengths)
    for (cell, seed), timestep, returns, lengths in zip(members, *of_members, strict=True):
        if not timestep or np.isneginf(returns).all():
            numbers = ["failed" if timestep else "no checkpoint", *["–"] * 4]
        else:
            told = (returns.mean(), returns.std(), returns.min(), returns.max(), lengths.mean())
            numbers = [f"{number:.1f}" for number in told]
        table.add_row(*map(value_in_words, cell.values()), str(seed), *numbers)
        lines.append("  ".join((str(seed), *numbers, cell_in_words(cell))).rstrip())
    return Fitting(table, lines)


def _summary_table(evaluation: Evaluation) -> Table:
    """The quartiles of all saved seeds' mean returns, failed ones as −∞, and of their mean lengths, without those."""
    is_saved = evaluation.timesteps > 0
    table, returns = Table(), evaluation.returns[is_saved].mean(axis=1)
    for column in ("", *QUARTILES):
        table.add_column(column, justify="right")
    lengths = evaluation.lengths[is_saved].mean(axis=1)[np.isfinite(returns)]
    for name, values in (("mean return", returns), ("mean length", lengths)):
        if len(values):
            table.add_row(name, *(f"{x:.1f}" for x in np.quantile(values, list(QUARTILES.values()), method="nearest")))
    return table


QUARTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "max": 1.0}


def _film(
    path: Path, options: EvalOptions, config: RunConfig, mean_returns: np.ndarray, intervals: list[Interval]
) -> str:
    """Films, of the best cell, the seed in the middle of those that are well, and returns which that is."""
    is_well, ranked = np.isfinite(mean_returns), best_first([interval.point for interval in intervals])
    if not is_well.any():
        return "not filmed, no seed has a finite mean return"
    cell = next(i for i in ranked if is_well[i].any())
    seeds = config.seeds[np.argsort(mean_returns[cell])]
    well = seeds[is_well[cell][seeds - config.seed]]
    seed = int(well[len(well) // 2])
    policy = load_policy(options.run, seed=seed, deterministic=not options.stochastic, **config.cells[cell])
    env = make_env(options.env or config.env_id)
    film(path, play(policy, env, seed=options.seed), env.spec.id)
    of_cell = f" of {cell_in_words(config.cells[cell])}" if config.sweep else ""
    beside = "" if is_well[cell].all() else " of those that are well"
    return f"an episode of seed {seed}{of_cell}, the median one{beside}"
