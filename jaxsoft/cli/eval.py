"""`jaxsoft eval RUN`: plays episodes with a run's trained policies."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxsoft.cli.console import make_console
from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import MOST_ROWS, cells_table, failed_lines, quartiles_table, seeds_table, unfinished_lines
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError, printable
from jaxsoft.fleet.grid import cell_in_words
from jaxsoft.reports.statistics import count_in_words, ends_in_words
from jaxsoft.reports.summary import Summary, describe, median_member, summarise
from jaxsoft.reports.video import check_film, film, play
from jaxsoft.runs.config import read_config
from jaxsoft.runs.evaluation import evaluate_run
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
    summary = summarise(evaluation)
    if options.json:
        print(json.dumps(_answer(options, summary), allow_nan=False))
    else:
        _print_tables(options, summary)
    if options.video is not None:
        told = f"{options.video}: {_film(options.video, options, summary)}"
        print(printable(told), file=sys.stderr if options.json else sys.stdout)


def _mode(options: EvalOptions) -> str:
    return "stochastic" if options.stochastic else "deterministic"


def _print_tables(options: EvalOptions, summary: Summary) -> None:
    evaluation, config, console = summary.evaluation, summary.evaluation.config, make_console()
    played_in = options.env or config.env_id
    origin = "" if played_in == config.env_id else f", trained in {config.env_id}"
    agent, episodes = config.train.kind.name, f"{options.num_episodes} episodes per seed"
    console.print(f"{agent} in {played_in}{origin}, {_mode(options)}, {episodes}")
    for line in unfinished_lines(evaluation):
        console.print(line, style="bold yellow")
    if options.all_rows or summary.mean_returns.size <= MOST_ROWS:
        console.print(seeds_table(evaluation))
    elif not config.sweep:
        console.print(quartiles_table(evaluation))
    for line in failed_lines(evaluation.failed, config.cells, all_rows=options.all_rows):
        console.print(line, style="bold red")
    if config.sweep:
        most = len(config.cells) if options.all_rows else MOST_ROWS
        console.print(cells_table(config.cells, summary.mean_returns, summary.intervals, most=most))
        return
    num_seeds = int(np.count_nonzero(evaluation.timesteps))
    seeds = count_in_words(num_seeds, "seed")
    console.print(f"IQM over {seeds}{ends_in_words(num_seeds)}: {summary.intervals[0]}")


def _answer(options: EvalOptions, summary: Summary) -> dict[str, object]:
    """What `--json` prints."""
    config = summary.evaluation.config
    return {
        "run": str(options.run),
        "agent": config.train.kind.name,
        "env": options.env or config.env_id,
        "trained_in": config.env_id,
        "policy": _mode(options),
        "num_episodes": options.num_episodes,
        **describe(summary),
    }


def _film(path: Path, options: EvalOptions, summary: Summary) -> str:
    """Films the median seed of the best cell, and says which that is."""
    config, member = summary.evaluation.config, median_member(summary)
    if member is None:
        return "not filmed, no seed has a finite mean return"
    cell, seed = member
    policy = load_policy(options.run, seed=seed, deterministic=not options.stochastic, **config.cells[cell])
    env = make_env(options.env or config.env_id)
    film(path, play(policy, env, seed=options.seed), env.spec.id)
    which = f" of {cell_in_words(config.cells[cell])}" if config.sweep else ""
    beside = "" if np.isfinite(summary.mean_returns[cell]).all() else " of those that are well"
    return f"an episode of seed {seed}{which}, the median one{beside}"
