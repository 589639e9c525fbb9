"""`jaxsoft train AGENT ENV`: trains many seeds at once and writes a run directory; `--resume` and `extend` go on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsoft.agents import AGENTS, get_agent, installed_agents
from jaxsoft.cli.options import new_folder, option_name, parse_options
from jaxsoft.cli.supervisor import supervise
from jaxsoft.cli.training import show_training
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Grid, parse_grid
from jaxsoft.fleet.hosts import NOT_DISTRIBUTED, HostOptions
from jaxsoft.reports.loggers import LOGGERS, Logger
from jaxsoft.runs.config import RUN_SETTINGS, RunConfig
from jaxsoft.runs.driver import resume, train
from jaxsoft.training.config import TrainConfig, check, make_config, with_settings
from jaxsoft.types import AgentKind

USAGE = """\
usage: jaxsoft train AGENT ENV [options]
       jaxsoft train AGENT ENV --sweep SETTING=VALUE,VALUE,... [options]
       jaxsoft train --resume RUN [--from-timestep STEPS]

  AGENT is one of: {agents}. ENV is an environment's id: `jaxsoft list` shows them.
  `jaxsoft train AGENT --help` shows the options of an agent. Whole numbers may be written 1e4, sizes 64x64 or 64 64;
  true or false may follow a flag.
"""


def train_command(argv: list[str]) -> None:
    """`jaxsoft train AGENT ENV [options]`, or `jaxsoft train --resume RUN`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(agents=", ".join(dict.fromkeys([*AGENTS, *installed_agents()]))), end="")
        return
    if argv[0].partition("=")[0] == "--resume":
        argv = ["--help"] if argv[1:] in (["-h"], ["--help"]) else argv
        options = parse_options(ResumeOptions, "jaxsoft train", argv)
        with supervise(["train", *argv], options.hosts) as hosts:
            training = partial(resume, from_timestep=options.from_timestep, hosts=hosts)
            show_training(options.resume, training, options.loggers.make())
        return
    out, config, options = parse_train(get_agent(argv[0]), argv[1:])
    with supervise(["train", *argv], options.hosts) as hosts:
        show_training(out, partial(train, config=config, hosts=hosts), options.loggers.make())


def extend_command(argv: list[str]) -> None:
    """`jaxsoft extend RUN --total-timesteps N`."""
    options = parse_options(ExtendOptions, "jaxsoft extend", argv)
    check("total_timesteps", options.total_timesteps)
    training = partial(resume, total_timesteps=options.total_timesteps)
    show_training(options.run, training, options.loggers.make())


@dataclass(frozen=True)
class LogOptions:
    """Where reports go beside the run's own table."""

    log: tuple[Literal["tensorboard", "wandb", "jsonl", "trackio"], ...] = ()
    """Loggers that get every report: --log tensorboard wandb. Their files go to RUN/logs."""
    log_per_seed: bool = False
    """Log every seed, instead of interquartile means over seeds with their intervals."""

    def make(self) -> list[Logger]:
        """The loggers.

        Raises:
            InputError: one is not installed.
        """
        return [LOGGERS[name](per_seed=self.log_per_seed) for name in dict.fromkeys(self.log)]


NO_LOGGERS = LogOptions()


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a run from its newest checkpoints, to the numbers that it would have ended with."""

    resume: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    from_timestep: int | None = None
    """Forget what came after this timestep, for example because a checkpoint is broken; 0: begin anew."""
    loggers: Annotated[LogOptions, tyro.conf.arg(name="")] = NO_LOGGERS
    hosts: Annotated[HostOptions, tyro.conf.arg(name="")] = NOT_DISTRIBUTED


@dataclass(frozen=True)
class ExtendOptions:
    """Train a run for more timesteps than it was to. What follows a schedule follows that of the new length."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    total_timesteps: int
    """Environment steps of each seed, those already taken included."""
    loggers: Annotated[LogOptions, tyro.conf.arg(name="")] = NO_LOGGERS


@dataclass(frozen=True)
class TrainOptions:
    """Train many seeds of one agent at once."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """Environment id, for example gymnax/Pendulum-v1."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    sweep: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=VALUE,VALUE,...")
    ] = ()
    """Train every combination of some settings' values, each with all seeds: --sweep learning-rate=1e-4,3e-4
    hidden-sizes=64x64,256x256. Numbers of the agent share a program, other settings have several. Words are written as
    they are, or true, false, none."""
    num_seeds: int = 1
    """Seeds trained side by side, of every combination."""
    seed: int = 0
    """The first seed; the others follow it."""
    seeds_per_chunk: int = 0
    """Seeds, of all combinations together, trained at once in one program; 0: as many as fit the devices."""
    checkpoint_every: int = 50_000
    """Timesteps between checkpoints; 0: none, what is cut short is lost. Where the disk is
    slower than that, those that later ones would replace are left out."""
    keep_checkpoints: int = 2
    """Checkpoints to keep, the newest."""
    out: Path | None = None
    """Run directory to write; by default a new one in runs/."""
    loggers: Annotated[LogOptions, tyro.conf.arg(name="")] = NO_LOGGERS
    hosts: Annotated[HostOptions, tyro.conf.arg(name="")] = NOT_DISTRIBUTED


def parse_train(kind: AgentKind, argv: list[str]) -> tuple[Path, RunConfig, TrainOptions]:
    """Reads `ENV [options]`; options that are not given come from the preset, then from the defaults."""
    defaults = make_config(kind, "", {})
    argv = canonical_options(argv, defaults)

    def parse(train: TrainConfig) -> TrainOptions:
        return parse_options(
            TrainOptions,
            f"jaxsoft train {kind.name}",
            argv,
            default=TrainOptions(env=tyro.MISSING, train=train),
            config=(tyro.conf.AvoidSubcommands,),
        )

    env_id = argv[0] if argv and not argv[0].startswith("-") else parse(defaults).env
    options = parse(make_config(kind, env_id, {}))
    out = options.out or new_folder(f"{kind.name}-{env_id.partition('?')[0].split('/')[-1]}")
    grid = parse_grid(kind, [text for texts in options.sweep for text in texts])
    _check_not_given(grid, argv)
    config = RunConfig(
        env_id,
        with_settings(options.train, {name: values[0] for name, values in grid.items()}),
        **{name: getattr(options, name) for name in RUN_SETTINGS},
        sweep=grid,
    )
    if options.hosts.distributed and options.out is None:
        raise InputError("--distributed needs --out: all processes must write to the same folder")
    return out, config, options


def _check_not_given(grid: Grid, argv: list[str]) -> None:
    """Refuses a setting that is given one value beside those of the sweep."""
    given = {option_name(arg.partition("=")[0]).removeprefix("no-").replace("-", "_") for arg in argv}
    for name in grid:
        if name in given:
            raise InputError(f"{name} is given and swept over; give it once")


def canonical_options(argv: list[str], config: TrainConfig) -> list[str]:
    """Puts the agent's settings under `--agent.` and the loop's outside, however they were written."""
    agent_options = {field.name.rstrip("_").replace("_", "-") for field in dataclasses.fields(config.agent)}

    def canonical(arg: str) -> str:
        if not arg.startswith("--"):
            return arg
        option, equals, value = arg.removeprefix("--").partition("=")
        option = option.removeprefix("agent.").rstrip("_").replace("_", "-")
        prefix = "agent." if option.removeprefix("no-") in agent_options else ""
        option = "lambda_" if option == "lambda" else option  # a word of Python's, so the setting has another name
        return f"--{prefix}{option}{equals}{value}"

    return [canonical(arg) for arg in argv]
