"""`jaxsoft eval RUN`: plays episodes with a run's trained policies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import tyro
from rich.table import Table

from jaxsoft.cli.console import make_console, seeds_in_words
from jaxsoft.config import check
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
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
    """Film one episode of the median seed's policy: a .gif of gymnax's environments, a .html of Brax's and MuJoCo's."""
    json: bool = False
    """Print one JSON object instead of a table."""


def eval_command(argv: list[str]) -> None:
    """`jaxsoft eval RUN [--deterministic | --stochastic] [--num-episodes N] [--env ENV] [--video FILE] [--json]`."""
    options = tyro.cli(EvalOptions, prog="jaxsoft eval", args=argv, config=(tyro.conf.FlagCreatePairsOff,))
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
    mean_returns, mean_lengths = returns.mean(axis=1), lengths.mean(axis=1)
    interval = iqm_interval(mean_returns)
    filmed = None if options.video is None else _film(options, config, mean_returns)
    mode = "stochastic" if options.stochastic else "deterministic"
    if options.json:
        answer = {
            "run": str(options.run),
            "agent": config.agent_name,
            "env": played_in,
            "trained_in": config.env_id,
            "policy": mode,
            "num_episodes": options.num_episodes,
            "seeds": config.seeds.tolist(),
            "eval_return": mean_returns.tolist(),
            "eval_length": mean_lengths.tolist(),
            "iqm": interval.point,
            "iqm_interval": [None if np.isnan(end) else end for end in interval[1:]],
        }
        print(json.dumps(answer))
        return
    table = Table()
    for column in ("seed", "mean return", "std", "min", "max", "mean length"):
        table.add_column(column, justify="right")
    for seed, episodes, length in zip(config.seeds, returns, mean_lengths, strict=True):
        numbers = (episodes.mean(), episodes.std(), episodes.min(), episodes.max(), length)
        table.add_row(str(seed), *(f"{number:.1f}" for number in numbers))
    console = make_console()
    origin = "" if played_in == config.env_id else f", trained in {config.env_id}"
    console.print(f"{config.agent_name} in {played_in}{origin}, {mode}, {options.num_episodes} episodes per seed")
    console.print(table)
    if filmed is not None:
        console.print(f"{options.video}: an episode of seed {filmed}, the median one")
    console.print(f"IQM over {seeds_in_words(config.num_seeds)}: {_with_interval(interval)}")


def _film(options: EvalOptions, config: RunConfig, mean_returns: np.ndarray) -> int:
    """Films the policy of the seed in the middle, and returns that seed."""
    seed = int(config.seeds[np.argsort(mean_returns)[len(mean_returns) // 2]])
    policy = load_policy(options.run, seed=seed, deterministic=not options.stochastic)
    env = make_env(options.env or config.env_id)
    film(cast(Path, options.video), play(policy, env, seed=options.seed), env.spec.id)
    return seed


def _with_interval(interval: Interval) -> str:
    return f"{interval.point:.1f}" if np.isnan(interval.low) else f"{interval} (95 % bootstrap interval)"
