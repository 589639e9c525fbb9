"""`jaxsoft train AGENT ENV`: trains many seeds at once and writes a run directory; `--resume` and `extend` go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress as ProgressBar

from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.cli.console import cells_in_words, make_console, print_line, seeds_in_words, training_progress
from jaxsoft.cli.options import parse_options
from jaxsoft.cli.reports import cells_header, cells_line, cells_table, failure_lines, report_header, report_line
from jaxsoft.cli.signals import noticed
from jaxsoft.cli.supervisor import supervised
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError, Stopped
from jaxsoft.fleet.devices import enough_for
from jaxsoft.fleet.grid import Chunk, Grid, argument_names, cell_in_words, check_grid, parse_grid, programs_of
from jaxsoft.fleet.hosts import ALONE, NOT_DISTRIBUTED, HostOptions, Hosts, require_agreement, wait_for_all
from jaxsoft.fleet.memory import Need, capacity_of, need_of, seeds_per_block, seeds_per_chunk
from jaxsoft.fleet.sweep import make_sweep
from jaxsoft.reports.plots import draw
from jaxsoft.reports.statistics import iqm, iqm_interval
from jaxsoft.runs import directory
from jaxsoft.runs.directory import CHECKPOINTS, REFERENCE, RunConfig
from jaxsoft.runs.driver import Interrupted, Progress, collect, make_trainers, require_fitting, train_run
from jaxsoft.runs.files import locked
from jaxsoft.runs.policies import with_reference
from jaxsoft.runs.tables import FailedSeed, read_returns, returns_of
from jaxsoft.training.config import TrainConfig, check, make_config, with_settings
from jaxsoft.training.loop import Trainer
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
        print(USAGE.format(agents=", ".join(AGENTS)), end="")
        return
    if argv[0].partition("=")[0] == "--resume":
        argv = ["--help"] if argv[1:] in (["-h"], ["--help"]) else argv
        options = parse_options(ResumeOptions, "jaxsoft train", argv)
        with supervised(["train", *argv], options.hosts) as hosts:
            resume(options.resume, hosts, from_timestep=options.from_timestep)
        return
    out, config, host_options = parse_train(get_agent(argv[0]), argv[1:])
    with supervised(["train", *argv], host_options) as hosts:
        train(out, config, hosts)


def extend_command(argv: list[str]) -> None:
    """`jaxsoft extend RUN --total-timesteps N`."""
    options = parse_options(ExtendOptions, "jaxsoft extend", argv)
    check("total_timesteps", options.total_timesteps)
    resume(options.run, total_timesteps=options.total_timesteps)


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a run from its newest checkpoints, to the numbers that it would have ended with."""

    resume: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    from_timestep: int | None = None
    """Forget what came after this timestep, for example because a checkpoint is broken; 0: begin anew."""
    hosts: Annotated[HostOptions, tyro.conf.arg(name="")] = NOT_DISTRIBUTED


@dataclass(frozen=True)
class ExtendOptions:
    """Train a run for more timesteps than it was to. What follows a schedule follows that of the new length."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    total_timesteps: int
    """Environment steps of each seed, those already taken included."""


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
    """Timesteps between checkpoints; 0: none, what is cut short is lost."""
    keep_checkpoints: int = 2
    """Checkpoints to keep, the newest."""
    out: Path | None = None
    """Run directory to write; by default a new one in runs/."""
    hosts: Annotated[HostOptions, tyro.conf.arg(name="")] = NOT_DISTRIBUTED


def parse_train(kind: AgentKind, argv: list[str]) -> tuple[Path, RunConfig, HostOptions]:
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
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"{kind.name}-{env_id.partition('?')[0].split('/')[-1]}-{stamp}"
    grid = parse_grid(kind, [text for texts in options.sweep for text in texts])
    _check_not_given(grid, argv)
    config = RunConfig(
        env_id,
        with_settings(options.train, {name: values[0] for name, values in grid.items()}),
        options.seed,
        options.num_seeds,
        options.seeds_per_chunk,
        options.checkpoint_every,
        options.keep_checkpoints,
        grid,
    )
    directory.check_run(config)
    if options.hosts.distributed and options.out is None:
        raise InputError("--distributed needs --out: all processes must write to the same folder")
    return out, config, options.hosts


def _check_not_given(grid: Grid, argv: list[str]) -> None:
    """Refuses a setting that is given one value beside those of the sweep.

    Raises:
        InputError: names it.
    """
    options = {arg.partition("=")[0].removeprefix("--").removeprefix("agent.") for arg in argv if arg.startswith("--")}
    given = {option.removeprefix("no-").replace("-", "_") for option in options}
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


def train(out: Path, config: RunConfig, hosts: Hosts = ALONE) -> None:
    """Trains all seeds of a new run, shows how it goes, and writes the run directory."""
    config = dataclasses.replace(config, sweep=check_grid(config.train.kind, config.sweep))
    directory.check_run(config)
    env = make_env(config.env_id)
    trainers = make_trainers(config, env, with_reference(config.train, env.spec))
    needs = _needs(config, trainers)
    if not config.seeds_per_chunk:
        sizes, capacity = shares(config, hosts), capacity_of(jax.local_devices())
        fitting = [seeds_per_chunk(need, n, capacity) for n, need in zip(sizes, needs, strict=True)]
        config = dataclasses.replace(config, seeds_per_chunk=min(fitting))
    with contextlib.ExitStack() as stack:
        if hosts.index == 0:
            stack.enter_context(directory.new_run(out, config))
        wait_for_all(hosts, "created")
        _train(out, config, trainers, needs, hosts)


def resume(
    path: Path, hosts: Hosts = ALONE, *, from_timestep: int | None = None, total_timesteps: int | None = None
) -> None:
    """Trains what is not trained yet of a run, or extends it, once all that it has saved is found to fit."""
    config = directory.read_config(path) if total_timesteps is None else directory.extended(path, total_timesteps)
    env = make_env(config.env_id)
    trainers = make_trainers(config, env, with_reference(config.train, env.spec, path / REFERENCE))
    with contextlib.ExitStack() as stack:
        if hosts.index == 0:
            stack.enter_context(locked(path, CHECKPOINTS))
        needs = _needs(config, trainers)
        if total_timesteps is not None:
            require_fitting(path, config, trainers)
            directory.change(path, config)
        _train(path, config, trainers, needs, hosts, from_timestep=from_timestep)


def _needs(config: RunConfig, trainers: list[Trainer]) -> list[Need]:
    """What a seed of each program needs."""
    programs, cells = programs_of(config.train.kind, config.sweep), config.cells
    settings = (with_settings(config.train, cells[numbers[0]]) for numbers in programs)
    return [need_of(trainer, x) for trainer, x in zip(trainers, settings, strict=True)]


def shares(config: RunConfig, hosts: Hosts) -> list[int]:
    """How many seeds of each program a chunk may have, so that every process gets about as much of all of them."""
    totals = [config.num_seeds * len(numbers) for numbers in programs_of(config.train.kind, config.sweep)]
    share = -(-sum(totals) // hosts.count)
    return [-(-total // -(-total // share)) for total in totals]


def _train(
    path: Path,
    config: RunConfig,
    trainers: list[Trainer],
    needs: list[Need],
    hosts: Hosts,
    *,
    from_timestep: int | None = None,
) -> None:
    require_agreement(hosts, json.dumps(directory.describe(config)))
    console, start = make_console(), time.perf_counter()
    largest = max(len(chunk.seeds) for chunk in config.chunks)
    devices = enough_for(largest, jax.local_devices())
    where = f"{len(devices)} × {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind
    cells = f"{cells_in_words(len(config.cells))} × " if config.sweep else ""
    console.print(
        f"{config.train.kind.name} in {config.env_id}, {cells}{seeds_in_words(config.num_seeds)}, on {where}"
        + (f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else ""),
        style="bold",
    )
    most = max(needs, key=lambda need: need.total)
    print_line(console, f"a seed needs {most}{_in_chunks(config, largest)}")
    blocks = (seeds_per_block(need, devices[0]) for need in needs)
    sweeps = [make_sweep(trainer, devices, block) for trainer, block in zip(trainers, blocks, strict=True)]
    with noticed() as request, training_progress(console) as bar:
        try:
            events = train_run(path, config, sweeps, hosts=hosts, from_timestep=from_timestep, should_stop=request)
            _show(events, config, console, bar)
        except Interrupted as interrupted:
            raise Stopped(
                f"stopped at timestep {interrupted.timestep:,}; go on with: jaxsoft train --resume {path}",
                request.status,
            ) from None
    wait_for_all(hosts, "trained")
    if hosts.index > 0:
        return
    collect(path, config)
    picture = draw([path], path / "learning_curve.png")
    seconds = time.perf_counter() - start
    if config.sweep:
        cells = read_returns(path)
        if not all(len(cell.timesteps) for cell in cells):
            raise InputError(f"{path} was changed by hand: a cell has no report of all its seeds")
        returns = np.array([cell.returns[-1] for cell in cells])
        console.print(cells_table(config.cells, returns, [iqm_interval(x) for x in returns]))
    console.print(f"trained in {seconds:.0f} s, compilation included", soft_wrap=True)
    console.print(f"learning curve  {picture}", soft_wrap=True)
    console.print(f"run directory   {path}   (jaxsoft eval {path})", soft_wrap=True)


def _in_chunks(config: RunConfig, largest: int) -> str:
    """How a run is divided, if it is."""
    num_chunks, num_programs = len(config.chunks), len(programs_of(config.train.kind, config.sweep))
    if num_chunks == 1:
        return ""
    programs = f"{num_programs} programs, " if num_programs > 1 else ""
    return f", {programs}{num_chunks} chunks of {seeds_in_words(largest)}, one after the other"


def _show(events: Iterator[Progress], config: RunConfig, console: Console, bar: ProgressBar) -> None:
    """Shows a training as it goes: a bar, a line for every report, and one for every seed that fails."""
    task = bar.add_task("compiling", total=config.train.total_timesteps, num_seeds=config.num_seeds, iqm="")
    failed: set[FailedSeed] = set()
    cells, chunk, header = config.cells, "", ""
    for progress in events:
        bar.update(task, description="training", completed=progress.timestep)
        if config.sweep:
            bar.update(task, num_seeds=len(progress.chunk.seeds))
        if progress.rows is None:
            continue
        rows = progress.rows.to_pydict()
        needed = cells_header(config.num_seeds) if config.sweep else report_header(len(progress.chunk.seeds))
        if header != needed:
            console.print(header := needed)
        if config.sweep and chunk != progress.chunk.name:
            console.print(_chunk_in_words(progress.chunk, config), style="bold")
        chunk = progress.chunk.name
        print_line(console, cells_line(rows, cells) if config.sweep else report_line(rows))
        for line in failure_lines(rows, failed, cells):
            console.print(line, style="bold red")
        if not config.sweep:
            bar.update(task, iqm=f"IQM {iqm(returns_of(rows)):.1f}")


def _chunk_in_words(chunk: Chunk, config: RunConfig) -> str:
    """What the members of a chunk have in common, and how many they are."""
    arguments = argument_names(config.train.kind, config.sweep)
    shared = {name: x for name, x in config.cells[chunk.cells[0]].items() if name not in arguments}
    num_cells = len(np.unique(chunk.cells))
    words = f"{cells_in_words(num_cells)}, {seeds_in_words(len(chunk.seeds))} in all"
    return f"{cell_in_words(shared)}: {words}" if shared else words
