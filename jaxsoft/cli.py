"""The command line: `jaxsoft train | eval | plot | list`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

import jaxsoft
from jaxsoft import runs
from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.config import TrainConfig, check, make_config, preset
from jaxsoft.envs import make_env
from jaxsoft.envs import names as env_names
from jaxsoft.errors import InputError, nearest
from jaxsoft.plots import draw
from jaxsoft.runs import RunConfig
from jaxsoft.statistics import Interval, iqm, iqm_interval
from jaxsoft.sweep import make_sweep
from jaxsoft.sweep import run as run_sweep
from jaxsoft.training import make_trainer
from jaxsoft.types import Box

USAGE = """\
usage: jaxsoft COMMAND ...

  train AGENT ENV [options]   train many seeds at once; writes a run directory
  eval RUN [options]          play episodes with a run's trained policies
  plot RUN [RUN ...]          draw the learning curves of one or more runs
  list                        agents and environments

`jaxsoft COMMAND --help` shows a command's options.
"""

TRAIN_USAGE = """\
usage: jaxsoft train AGENT ENV [options]

  AGENT is one of: {agents}. ENV is an environment's id: `jaxsoft list` shows them.
  `jaxsoft train AGENT --help` shows the options of an agent.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 2 after one line about what was wrong with the input."""
    argv = sys.argv[1:] if argv is None else argv
    commands = {"train": train_command, "eval": eval_command, "plot": plot_command, "list": list_command}
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if argv[0] == "--version":
            print(f"jaxsoft {jaxsoft.__version__}")
            return 0
        if argv[0] not in commands:
            raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], commands)} ({', '.join(commands)})")
        _cache_compiled_programs()
        commands[argv[0]](argv[1:])
    except InputError as error:
        print(f"jaxsoft: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxsoft: interrupted", file=sys.stderr)
        return 130
    return 0


def script() -> NoReturn:
    """The `jaxsoft` script."""
    sys.exit(main())


def _cache_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that the same command starts at once the next time."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxsoft"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def train_command(argv: list[str]) -> None:
    """`jaxsoft train AGENT ENV [options]`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(TRAIN_USAGE.format(agents=", ".join(AGENTS)), end="")
        return
    get_agent(argv[0])  # a wrong name is told before options are read
    train(*parse_train(argv[0], argv[1:]))


@dataclass(frozen=True)
class TrainOptions:
    """Train many seeds of one agent at once."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Environment id, for example gymnax/Pendulum-v1."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    num_seeds: int = 1
    """Seeds trained side by side."""
    seed: int = 0
    """The first seed; the others follow it."""
    out: Path | None = None
    """Run directory to write; by default a new one in runs/."""


def parse_train(agent_name: str, argv: list[str]) -> tuple[Path, RunConfig]:
    """Reads `ENV [options]`; options that are not given come from the preset, then from the defaults."""
    defaults = make_config(agent_name, "", {})
    argv = canonical_options(argv, defaults)

    def parse(train: TrainConfig) -> TrainOptions:
        return tyro.cli(
            TrainOptions,
            prog=f"jaxsoft train {agent_name}",
            args=argv,
            default=TrainOptions(env=tyro.MISSING, train=train),
            config=(tyro.conf.AvoidSubcommands,),
        )

    env_id = parse(defaults).env
    options = parse(make_config(agent_name, env_id, {}))
    check("num_seeds", options.num_seeds)
    check("seed", options.seed)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"{agent_name}-{env_id.split('/')[-1]}-{stamp}"
    return out, RunConfig(agent_name, env_id, options.train, options.seed, options.num_seeds)


def canonical_options(argv: list[str], config: TrainConfig) -> list[str]:
    """Puts the agent's settings under `--agent.` and the loop's outside, however they were written."""
    agent_options = {field.name.replace("_", "-") for field in dataclasses.fields(config.agent)}

    def canonical(arg: str) -> str:
        if not arg.startswith("--"):
            return arg
        option, equals, value = arg.removeprefix("--").removeprefix("agent.").replace("_", "-").partition("=")
        prefix = "agent." if option.removeprefix("no-") in agent_options else ""
        return f"--{prefix}{option}{equals}{value}"

    return [canonical(arg) for arg in argv]


def train(out: Path, config: RunConfig) -> None:
    """Trains all seeds of a run, shows how it goes, and writes the run directory."""
    trainer = make_trainer(config.agent_name, make_env(config.env_id), config.train)
    runs.create(out, config)
    console = _console()
    device = jax.devices()[0].device_kind
    console.print(f"[bold]{config.agent_name}[/] in [bold]{config.env_id}[/], {_seeds(config)}, on {device}")
    start = last = time.perf_counter()
    timestep, tables, state = 0, [], None
    with _progress(console) as progress:
        task = progress.add_task("compiling", total=config.train.total_timesteps, num_seeds=config.num_seeds, iqm="")
        for state, metrics in run_sweep(make_sweep(trainer), config.seeds, trainer.segments):
            progress.update(task, description="training", completed=int(state.timestep))
            if metrics is None:
                if last == start:  # the first step compiled the program: speed is counted from here
                    timestep, last = int(state.timestep), time.perf_counter()
                continue
            taken, now = int(state.timestep) - timestep, time.perf_counter()
            tables.append(runs.metrics_rows(config, metrics, config.num_seeds * taken / (now - last)))
            runs.write_metrics(out, tables)
            timestep, last = timestep + taken, now
            if len(tables) == 1:
                console.print(REPORT_HEADER)
            console.print(report_line(tables[-1].to_pydict()))
            progress.update(task, iqm=f"IQM {iqm(_returns(tables[-1].to_pydict())):.1f}")
    assert state is not None
    runs.save_agents(out, state.agent_state)
    picture = draw([out], out / "learning_curve.png")
    seconds = time.perf_counter() - start
    console.print(f"trained in {seconds:.0f} s, compilation included", soft_wrap=True)
    console.print(f"learning curve  {picture}", soft_wrap=True)
    console.print(f"run directory   {out}   (jaxsoft eval {out})", soft_wrap=True)


REPORT_HEADER = f"{'timestep':>10}  {'return, IQM [95 % interval]':>30}  {'min':>9}  {'max':>9}  {'steps/s':>9}"


def report_line(rows: dict[str, list]) -> str:
    """One report in one line: the returns over seeds, evaluated or, where evaluation is off, of training."""
    returns = _returns(rows)
    speed = rows["steps_per_second"][0]
    return (
        f"{rows['timestep'][0]:>10,}  {iqm_interval(returns)!s:>30}  {returns.min():>9.1f}  {returns.max():>9.1f}"
        f"  {speed:>9,.0f}"
    )


def _returns(rows: dict[str, list]) -> np.ndarray:
    evaluated = rows["eval_return"][0] is not None
    return np.array(rows["eval_return" if evaluated else "episode_return"], np.float64)


def _seeds(config: RunConfig) -> str:
    return "1 seed" if config.num_seeds == 1 else f"{config.num_seeds} seeds"


def _console() -> Console:
    """Standard output; where it is no terminal, wide enough for every table."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class _StepsPerSecond(ProgressColumn):
    """Environment steps of all seeds per second of late."""

    def render(self, task: Task) -> Text:
        speed = (task.speed or 0) * task.fields["num_seeds"]
        return Text(f"{speed:,.0f} steps/s" if speed else "")


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("× {task.fields[num_seeds]} seeds"),
        _StepsPerSecond(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[iqm]}"),
        console=console,
        transient=True,
    )


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
    json: bool = False
    """Print one JSON object instead of a table."""


def eval_command(argv: list[str]) -> None:
    """`jaxsoft eval RUN [--deterministic | --stochastic] [--num-episodes N] [--json]`."""
    options = tyro.cli(EvalOptions, prog="jaxsoft eval", args=argv, config=(tyro.conf.FlagCreatePairsOff,))
    if options.deterministic and options.stochastic:
        raise InputError("give --deterministic or --stochastic, not both")
    check("seed", options.seed)
    config, returns, lengths = runs.evaluate_run(
        options.run,
        num_episodes=options.num_episodes,
        deterministic=not options.stochastic,
        seed=options.seed,
    )
    mean_returns, mean_lengths = returns.mean(axis=1), lengths.mean(axis=1)
    interval = iqm_interval(mean_returns)
    mode = "stochastic" if options.stochastic else "deterministic"
    if options.json:
        answer = {
            "run": str(options.run),
            "agent": config.agent_name,
            "env": config.env_id,
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
    console = _console()
    console.print(f"{config.agent_name} in {config.env_id}, {mode}, {options.num_episodes} episodes per seed")
    console.print(table)
    console.print(f"IQM over {_seeds(config)}: {_with_interval(interval)}")


def _with_interval(interval: Interval) -> str:
    return f"{interval.point:.1f}" if np.isnan(interval.low) else f"{interval} (95 % bootstrap interval)"


@dataclass(frozen=True)
class PlotOptions:
    """Draw the learning curves of one or more runs."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories."""
    out: Path | None = None
    """PNG file to write; by default learning_curve.png, in the run directory if there is only one."""


def plot_command(argv: list[str]) -> None:
    """`jaxsoft plot RUN [RUN ...]`."""
    options = tyro.cli(PlotOptions, prog="jaxsoft plot", args=argv)
    if not options.runs:
        raise InputError("name at least one run directory")
    folder = options.runs[0] if len(options.runs) == 1 else Path()
    print(draw(options.runs, options.out or folder / "learning_curve.png"))


def list_command(argv: list[str]) -> None:
    """`jaxsoft list`."""
    if argv:
        raise InputError(f"list takes no arguments; got {' '.join(argv)}")
    console = _console()
    agents = Table(title="agents")
    agents.add_column("agent")
    agents.add_column("actions")
    for name, module in AGENTS.items():
        agents.add_row(name, "continuous" if module.ACTION_SPACE is Box else "discrete")
    environments = Table(title="environments")
    for column in ("environment", "observation", "actions", "time limit", "tuned preset"):
        environments.add_column(column, no_wrap=True)
    for env_id in env_names():
        tuned = ", ".join(agent for agent in AGENTS if preset(agent, env_id))
        try:
            spec = make_env(env_id).spec
        except InputError:
            environments.add_row(env_id, "needs a download")
            continue
        shape = " × ".join(map(str, spec.obs_shape))
        environments.add_row(env_id, shape, str(spec.action_space), f"{spec.max_episode_steps:,}", tuned)
    console.print(agents)
    console.print(environments)
