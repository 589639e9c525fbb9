"""`jaxsoft eval RUN [RUN ...]`: plays episodes with runs' trained policies."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxsoft.cli.console import make_console, print_line
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
    """Play episodes with the trained policies of one or more runs."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories."""
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
    environments and of one's own that have `render`, a .html of Brax's and MuJoCo's. With one run only."""
    all_rows: bool = False
    """Show a row for every seed and cell, and every failed seed; otherwise more than 20 are summarised."""
    json: bool = False
    """Print one JSON object instead of a table; of several runs a list of them."""


def eval_command(argv: list[str]) -> None:
    """`jaxsoft eval RUN ... [--stochastic] [--num-episodes N] [--env ENV] [--video FILE] [--json]`."""
    options = parse_options(EvalOptions, "jaxsoft eval", argv, config=(tyro.conf.FlagCreatePairsOff,))
    if not options.runs:
        raise InputError("name at least one run directory")
    if options.deterministic and options.stochastic:
        raise InputError("give --deterministic or --stochastic, not both")
    check("seed", options.seed)
    if options.video is not None:
        run, *others = options.runs
        if others:
            raise InputError(f"video is of one run; {len(options.runs)} are named")
        check_film(options.video, options.env or read_config(run).env_id)
    summaries = []
    for run in options.runs:
        evaluation = evaluate_run(
            run,
            num_episodes=options.num_episodes,
            deterministic=not options.stochastic,
            seed=options.seed,
            env_id=options.env,
        )
        summaries.append(summarise(evaluation))
        if not options.json:
            _print_tables(options, run, summaries[-1])
    if options.json:
        answers = [_answer(options, *both) for both in zip(options.runs, summaries, strict=True)]
        print(json.dumps(answers if len(answers) > 1 else answers[0], allow_nan=False))
    elif len(summaries) > 1:
        _print_ends(options.runs, summaries)
    if options.video is not None:
        message = f"{options.video}: {_film(options.video, options, summaries[0])}"
        print(printable(message), file=sys.stderr if options.json else sys.stdout)


def _mode(options: EvalOptions) -> str:
    return "stochastic" if options.stochastic else "deterministic"


def _print_ends(runs: Sequence[Path], summaries: Sequence[Summary]) -> None:
    """A line for each run: its best cell."""
    console = make_console()
    for run, summary in zip(runs, summaries, strict=True):
        config, best = summary.evaluation.config, summary.ranked[0]
        which = f", best of {len(config.cells)} cells: {cell_in_words(config.cells[best])}" if config.sweep else ""
        seeds = count_in_words(config.num_seeds, "seed")
        print_line(console, f"{run}: {config.train.kind.name}, IQM over {seeds} {summary.intervals[best]}{which}")


def _print_tables(options: EvalOptions, run: Path, summary: Summary) -> None:
    evaluation, config, console = summary.evaluation, summary.evaluation.config, make_console()
    played_in = options.env or config.env_id
    origin = "" if played_in == config.env_id else f", trained in {config.env_id}"
    agent, episodes = config.train.kind.name, f"{options.num_episodes} episodes per seed"
    where = f"{run}: " if len(options.runs) > 1 else ""
    print_line(console, f"{where}{agent} in {played_in}{origin}, {_mode(options)}, {episodes}")
    for line in unfinished_lines(evaluation):
        print_line(console, line, style="bold yellow")
    if options.all_rows or summary.mean_returns.size <= MOST_ROWS:
        console.print(seeds_table(evaluation))
    elif not config.sweep:
        console.print(quartiles_table(evaluation))
    for line in failed_lines(evaluation.failed, config.cells, all_rows=options.all_rows):
        print_line(console, line, style="bold red")
    if config.sweep:
        most = len(config.cells) if options.all_rows else MOST_ROWS
        console.print(cells_table(config.cells, summary.mean_returns, summary.intervals, most=most))
        return
    num_seeds = int(np.count_nonzero(evaluation.timesteps))
    seeds = count_in_words(num_seeds, "seed")
    print_line(console, f"IQM over {seeds}{ends_in_words(num_seeds)}: {summary.intervals[0]}")


def _answer(options: EvalOptions, run: Path, summary: Summary) -> dict[str, object]:
    """The output of `--json`."""
    config = summary.evaluation.config
    return {
        "run": str(run),
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
    policy = load_policy(options.runs[0], seed=seed, deterministic=not options.stochastic, **config.cells[cell])
    env = make_env(options.env or config.env_id)
    film(path, play(policy, env, seed=options.seed), env.spec.id)
    which = f" of {cell_in_words(config.cells[cell])}" if config.sweep else ""
    beside = "" if np.isfinite(summary.mean_returns[cell]).all() else " of those that are well"
    return f"an episode of seed {seed}{which}, the median one{beside}"
