"""`jaxsoft eval RUN`: plays episodes with a run's trained policies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import tyro
from rich.table import Table

from jaxsoft.cli.console import make_console, seeds_in_words
from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import best_first, cells_table
from jaxsoft.config import check
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.grid import cell_in_words, value_in_words
from jaxsoft.policies import evaluate_run, load_policy
from jaxsoft.runs import RunConfig, read_config
from jaxsoft.statistics import Interval, iqm_interval
from jaxsoft.video import check_film, film, play


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
    """Random seed of the episodes; every policy meets the same starts."""
    env: str | None = None
    """Environment to play in, by default the run's; also one of gymnasium's own, for example gymnasium/Hopper-v5."""
    video: Path | None = None
    """Film one episode of the median seed's policy, of a sweep's best cell: a .gif of gymnax's environments, a .html of
    Brax's and MuJoCo's."""
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
    config, returns, lengths = evaluate_run(
        options.run,
        num_episodes=options.num_episodes,
        deterministic=not options.stochastic,
        seed=options.seed,
        env_id=options.env,
    )
    played_in = options.env or config.env_id
    by_cell = (len(config.cells), config.num_seeds)
    mean_returns, mean_lengths = (x.mean(axis=1).reshape(by_cell) for x in (returns, lengths))
    intervals = [iqm_interval(x) for x in mean_returns]
    best = int(best_first([interval.point for interval in intervals])[0])
    filmed = None if options.video is None else _film(options, config, best, mean_returns[best])
    mode = "stochastic" if options.stochastic else "deterministic"
    if options.json:
        print(json.dumps(_answer(options, config, mean_returns, mean_lengths, intervals)))
        return
    console = make_console()
    origin = "" if played_in == config.env_id else f", trained in {config.env_id}"
    console.print(f"{config.agent_name} in {played_in}{origin}, {mode}, {options.num_episodes} episodes per seed")
    console.print(_seeds_table(config, returns, lengths))
    if filmed is not None:
        of_cell = f" of {cell_in_words(config.cells[best])}" if config.sweep else ""
        console.print(f"{options.video}: an episode of seed {filmed}{of_cell}, the median one", soft_wrap=True)
    if config.sweep:
        console.print(cells_table(config.cells, mean_returns, intervals))
        return
    console.print(f"IQM over {seeds_in_words(config.num_seeds)}: {_with_interval(intervals[0])}")


def _answer(
    options: EvalOptions, config: RunConfig, returns: np.ndarray, lengths: np.ndarray, intervals: list[Interval]
) -> dict[str, Any]:
    """What `--json` prints, of mean returns and lengths [num_cells, num_seeds]; a sweep's cells best first."""
    cells = [
        {
            "eval_return": returns[i].tolist(),
            "eval_length": lengths[i].tolist(),
            "iqm": intervals[i].point,
            "iqm_interval": [None if np.isnan(end) else end for end in intervals[i][1:]],
        }
        for i in range(len(config.cells))
    ]
    ranked = best_first([interval.point for interval in intervals])
    return {
        "run": str(options.run),
        "agent": config.agent_name,
        "env": options.env or config.env_id,
        "trained_in": config.env_id,
        "policy": "stochastic" if options.stochastic else "deterministic",
        "num_episodes": options.num_episodes,
        "seeds": config.seeds.tolist(),
        **({"cells": [{"settings": config.cells[i]} | cells[i] for i in ranked]} if config.sweep else cells[0]),
    }


def _seeds_table(config: RunConfig, returns: np.ndarray, lengths: np.ndarray) -> Table:
    """A row for each seed, of every cell; returns and lengths are [num_cells * num_seeds, num_episodes]."""
    table = Table()
    for column in (*config.sweep, "seed", "mean return", "std", "min", "max", "mean length"):
        table.add_column(column, justify="right")
    members = [(cell, seed) for cell in config.cells for seed in config.seeds]
    for (cell, seed), episodes, length in zip(members, returns, lengths.mean(axis=1), strict=True):
        numbers = (episodes.mean(), episodes.std(), episodes.min(), episodes.max(), length)
        settings = map(value_in_words, cell.values())
        table.add_row(*settings, str(seed), *(f"{number:.1f}" for number in numbers))
    return table


def _film(options: EvalOptions, config: RunConfig, cell: int, mean_returns: np.ndarray) -> int:
    """Films the policy of a cell's seed in the middle, and returns that seed."""
    seed = int(config.seeds[np.argsort(mean_returns)[len(mean_returns) // 2]])
    policy = load_policy(options.run, seed=seed, deterministic=not options.stochastic, **config.cells[cell])
    env = make_env(options.env or config.env_id)
    film(cast(Path, options.video), play(policy, env, seed=options.seed), env.spec.id)
    return seed


def _with_interval(interval: Interval) -> str:
    return f"{interval.point:.1f}" if np.isnan(interval.low) else f"{interval} (95 % bootstrap interval)"
