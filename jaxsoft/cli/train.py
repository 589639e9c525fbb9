"""`jaxsoft train AGENT ENV`: trains many seeds at once and writes a run directory."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from jaxsoft import runs
from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.cli.console import make_console, seeds_in_words, training_progress
from jaxsoft.config import TrainConfig, check, make_config
from jaxsoft.envs import make_env
from jaxsoft.plots import draw
from jaxsoft.references import Reference
from jaxsoft.runs import RunConfig
from jaxsoft.statistics import iqm, iqm_interval
from jaxsoft.sweep import make_sweep
from jaxsoft.sweep import run as run_sweep
from jaxsoft.training import make_trainer

USAGE = """\
usage: jaxsoft train AGENT ENV [options]

  AGENT is one of: {agents}. ENV is an environment's id: `jaxsoft list` shows them.
  `jaxsoft train AGENT --help` shows the options of an agent.
"""


def train_command(argv: list[str]) -> None:
    """`jaxsoft train AGENT ENV [options]`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(agents=", ".join(AGENTS)), end="")
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
            registry=_registry(),
        )

    env_id = parse(defaults).env
    options = parse(make_config(agent_name, env_id, {}))
    check("num_seeds", options.num_seeds)
    check("seed", options.seed)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"{agent_name}-{env_id.partition('?')[0].split('/')[-1]}-{stamp}"
    return out, RunConfig(agent_name, env_id, options.train, options.seed, options.num_seeds)


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


def train(out: Path, config: RunConfig) -> None:
    """Trains all seeds of a run, shows how it goes, and writes the run directory."""
    env = make_env(config.env_id)
    trainer = make_trainer(config.agent_name, env, runs.with_reference(config.train, env.spec))
    runs.create(out, config)
    console = make_console()
    device = jax.devices()[0].device_kind
    console.print(
        f"[bold]{config.agent_name}[/] in [bold]{config.env_id}[/], {seeds_in_words(config.num_seeds)}, on {device}"
    )
    start = last = time.perf_counter()
    timestep, tables, state = 0, [], None
    with training_progress(console) as progress:
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
