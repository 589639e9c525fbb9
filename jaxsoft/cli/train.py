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
import tyro
from rich.console import Console
from rich.progress import Progress as ProgressBar

from jaxsoft import runs
from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.cli.console import make_console, seeds_in_words, training_progress
from jaxsoft.cli.signals import noticed
from jaxsoft.cli.supervisor import supervised
from jaxsoft.config import TrainConfig, check, make_config
from jaxsoft.driver import Interrupted, Progress, collect, train_run
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError, Stopped
from jaxsoft.files import locked
from jaxsoft.hosts import ALONE, NOT_DISTRIBUTED, HostOptions, Hosts, require_agreement, wait_for_all
from jaxsoft.memory import Need, capacity_of, need_of, seeds_per_chunk
from jaxsoft.plots import draw
from jaxsoft.policies import with_reference
from jaxsoft.references import Reference
from jaxsoft.runs import CHECKPOINTS, REFERENCE, RunConfig
from jaxsoft.statistics import iqm, iqm_interval
from jaxsoft.sweep import make_sweep
from jaxsoft.tables import returns_of
from jaxsoft.training import Trainer, make_trainer

USAGE = """\
usage: jaxsoft train AGENT ENV [options]
       jaxsoft train --resume RUN [--from-timestep STEPS]

  AGENT is one of: {agents}. ENV is an environment's id: `jaxsoft list` shows them.
  `jaxsoft train AGENT --help` shows the options of an agent.
"""


def train_command(argv: list[str]) -> None:
    """`jaxsoft train AGENT ENV [options]`, or `jaxsoft train --resume RUN`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(agents=", ".join(AGENTS)), end="")
        return
    if argv[0].partition("=")[0] == "--resume":
        options = tyro.cli(ResumeOptions, prog="jaxsoft train", args=argv)
        with supervised(["train", *argv], options.hosts) as hosts:
            resume(options.resume, hosts, from_timestep=options.from_timestep)
        return
    get_agent(argv[0])  # a wrong name is told before options are read
    out, config, host_options = parse_train(argv[0], argv[1:])
    with supervised(["train", *argv], host_options) as hosts:
        train(out, config, hosts)


def extend_command(argv: list[str]) -> None:
    """`jaxsoft extend RUN --total-timesteps N`."""
    options = tyro.cli(ExtendOptions, prog="jaxsoft extend", args=argv)
    check("total_timesteps", options.total_timesteps)
    with locked(options.run / CHECKPOINTS):
        runs.extend(options.run, options.total_timesteps)
    resume(options.run)


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
    num_seeds: int = 1
    """Seeds trained side by side."""
    seed: int = 0
    """The first seed; the others follow it."""
    seeds_per_chunk: int = 0
    """Seeds trained in one program; 0: as many as fit the devices."""
    checkpoint_every: int = 50_000
    """Timesteps between checkpoints; 0: none, what is cut short is lost."""
    keep_checkpoints: int = 2
    """Checkpoints to keep, the newest."""
    out: Path | None = None
    """Run directory to write; by default a new one in runs/."""
    hosts: Annotated[HostOptions, tyro.conf.arg(name="")] = NOT_DISTRIBUTED


def parse_train(agent_name: str, argv: list[str]) -> tuple[Path, RunConfig, HostOptions]:
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
            registry=_registry(),
        )

    env_id = parse(defaults).env
    options = parse(make_config(agent_name, env_id, {}))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"{agent_name}-{env_id.partition('?')[0].split('/')[-1]}-{stamp}"
    config = RunConfig(
        agent_name,
        env_id,
        options.train,
        options.seed,
        options.num_seeds,
        options.seeds_per_chunk,
        options.checkpoint_every,
        options.keep_checkpoints,
    )
    runs.check_run(config)
    if options.hosts.distributed and options.out is None:
        raise InputError("--distributed needs --out: all processes must write to the same folder")
    return out, config, options.hosts


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How options are read whose type says more than a command line can: a reference policy is named by its text."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def reference(
        type_info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Reference] | None:
        if type_info.type != Reference:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="POLICY",
            instance_from_str=lambda args: args[0],
            is_instance=lambda instance: isinstance(instance, str),
            str_from_instance=lambda instance: [str(instance)],
        )

    return registry


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
    env = make_env(config.env_id)
    trainer = make_trainer(config.agent_name, env, with_reference(config.train, env.spec))
    need, devices = need_of(trainer, config.agent_name, config.train), jax.local_devices()
    if not config.seeds_per_chunk:
        share = -(-config.num_seeds // hosts.count)
        chunk = seeds_per_chunk(need, share, len(devices), capacity_of(devices))
        config = dataclasses.replace(config, seeds_per_chunk=chunk)
    with contextlib.ExitStack() as stack:
        if hosts.index == 0:
            runs.check_empty(out)
            stack.enter_context(locked(out / CHECKPOINTS))
            runs.create(out, config)
        wait_for_all(hosts, "created")
        _train(out, config, trainer, need, hosts)


def resume(path: Path, hosts: Hosts = ALONE, *, from_timestep: int | None = None) -> None:
    """Trains what is not trained yet of a run."""
    config = runs.read_config(path)
    env = make_env(config.env_id)
    trainer = make_trainer(config.agent_name, env, with_reference(config.train, env.spec, path / REFERENCE))
    need = need_of(trainer, config.agent_name, config.train)
    with contextlib.ExitStack() as stack:
        if hosts.index == 0:
            stack.enter_context(locked(path / CHECKPOINTS))
        _train(path, config, trainer, need, hosts, from_timestep=from_timestep)


def _train(
    path: Path, config: RunConfig, trainer: Trainer, need: Need, hosts: Hosts, *, from_timestep: int | None = None
) -> None:
    require_agreement(hosts, json.dumps(runs.describe(config)))
    console, start = make_console(), time.perf_counter()
    chunks, devices = config.chunks, jax.local_devices()[: len(config.chunks[0])]
    where = f"{len(devices)} × {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind
    console.print(
        f"[bold]{config.agent_name}[/] in [bold]{config.env_id}[/], {seeds_in_words(config.num_seeds)}, on {where}"
        + (f", process {hosts.index} of {hosts.count}" if hosts.count > 1 else "")
    )
    in_chunks = f", {len(chunks)} chunks of {len(chunks[0])} seeds, one after the other" if len(chunks) > 1 else ""
    console.print(f"a seed needs {need}{in_chunks}", soft_wrap=True)
    sweep = make_sweep(trainer, devices)
    with noticed() as request, training_progress(console) as bar:
        try:
            events = train_run(
                path, config, trainer, sweep, hosts=hosts, from_timestep=from_timestep, should_stop=request
            )
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
    console.print(f"trained in {seconds:.0f} s, compilation included", soft_wrap=True)
    console.print(f"learning curve  {picture}", soft_wrap=True)
    console.print(f"run directory   {path}   (jaxsoft eval {path})", soft_wrap=True)


def _show(events: Iterator[Progress], config: RunConfig, console: Console, bar: ProgressBar) -> None:
    """Shows a training as it goes: a bar, a line for every report, and one for every seed that fails."""
    task = bar.add_task("compiling", total=config.train.total_timesteps, num_seeds=config.num_seeds, iqm="")
    failed: set[int] = set()
    has_header = False
    for progress in events:
        bar.update(task, description="training", completed=progress.timestep)
        if progress.rows is None:
            continue
        rows = progress.rows.to_pydict()
        if not has_header:
            console.print(REPORT_HEADER)
            has_header = True
        console.print(report_line(rows))
        for line in failure_lines(rows, failed):
            console.print(line, style="bold red")
        bar.update(task, iqm=f"IQM {iqm(returns_of(rows)):.1f}")


def failure_lines(rows: dict[str, list], known: set[int]) -> list[str]:
    """A line for each seed that has failed and is not `known` yet; afterwards it is."""
    lines = []
    for seed, timestep, quantities in zip(rows["seed"], rows["failed_at"], rows["failed_quantities"], strict=True):
        if timestep is not None and seed not in known:
            known.add(seed)
            lines.append(
                f"seed {seed} failed at timestep {timestep:,}: not finite: {quantities}. It learns no more, and counts "
                "as the worst"
            )
    return lines


REPORT_HEADER = f"{'timestep':>10}  {'return, IQM [95 % interval]':>30}  {'min':>9}  {'max':>9}  {'steps/s':>9}"


def report_line(rows: dict[str, list]) -> str:
    """One report in one line: the returns over seeds, evaluated or, where evaluation is off, of training."""
    returns = returns_of(rows)
    speed = rows["steps_per_second"][0]
    return (
        f"{rows['timestep'][0]:>10,}  {iqm_interval(returns)!s:>30}  {returns.min():>9.1f}  {returns.max():>9.1f}"
        f"  {speed:>9,.0f}"
    )
