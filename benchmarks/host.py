"""Does the host starve the device? `python benchmarks/host.py`, some minutes a round on 2 cores; runs on any device.

1,024 small seeds, one compiled program, trained in turns: bare, where all turns up to a report are dispatched at once
with the report, and nothing is fetched; and as `jaxsoft train` does it, with its table, bar, checkpoints, metrics and
two loggers. Both are timed from the first turn to the last report, as the device has them; what comes after, until the
last checkpoint is on the disk, is told by itself. On a CPU the host's work takes the device's cores, so there the ratio
says how much work it is. `--pretend SECONDS` puts a device in the place of this one that takes so long for all turns
and no core, as an accelerator would; states, reports and what the host does with them are the same.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from rounds import alternate, in_words, make_parser

import jaxsoft
from jaxsoft.cli.training import show_training
from jaxsoft.cpu import use_all_cores
from jaxsoft.fleet.programs import Program, Settings, init_members, seed_keys
from jaxsoft.reports.loggers import LOGGERS
from jaxsoft.runs import directory
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Progress, train_run
from jaxsoft.runs.plan import Plan, plan_run
from jaxsoft.training.config import make_config
from jaxsoft.training.schedule import last_timestep, timesteps_per_turn
from jaxsoft.training.state import TrainState
from jaxsoft.types import Metrics

ENV = "gymnax/CartPole-v1"
WORKLOADS = {
    "soft_q": {
        "total_timesteps": 500_000,
        "hidden_sizes": (64, 64),
        "num_envs": 64,
        "rollout_length": 64,
        "num_epochs": 2,
        "num_minibatches": 16,
    },
    "soft_q_stream": {"total_timesteps": 100_000, "hidden_sizes": (32,)},
}


def make_plan(agent: str, num_seeds: int, share: float) -> Plan:
    """A run of a share of the workload's length, with as many reports as ever."""
    settings = dict(WORKLOADS[agent])
    settings["total_timesteps"] = round(settings["total_timesteps"] * share)
    settings["eval_every"] = -(-settings["total_timesteps"] // 20)
    config = RunConfig(
        ENV,
        make_config(agent, ENV, settings),
        num_seeds=num_seeds,
        seeds_per_chunk=num_seeds,
        checkpoint_every=settings["total_timesteps"] // 10,
    )
    return plan_run(config, jaxsoft.make_env(ENV), config.train)


def pretend(plan: Plan, program: Program, seconds: float) -> Program:
    """The program on a device that takes `seconds` in all and no core: it sleeps. Its returns are random numbers."""
    per_turn, pause = timesteps_per_turn(plan.settings[0]), seconds / int(program.segments.sum())
    keys = seed_keys(plan.config.seeds)
    _, metrics = jax.eval_shape(program.report, jax.eval_shape(program.init, keys, {}), {})

    def sleep(num_turns: np.ndarray) -> np.ndarray:
        time.sleep(pause * int(num_turns))
        return np.asarray(num_turns)

    def advance(state: TrainState, settings: Settings, num_turns: jax.Array) -> TrainState:
        taken = jax.pure_callback(sleep, jax.ShapeDtypeStruct((), np.int32), num_turns)
        return replace(state, timestep=state.timestep + per_turn * taken)

    def report(state: TrainState, settings: Settings) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(0), state.timestep)
        made = {name: jax.numpy.zeros(x.shape, x.dtype) for name, x in metrics.items()}
        made["timestep"] += state.timestep
        return state, made | {"eval_return": jax.random.normal(key, made["eval_return"].shape)}

    return program._replace(advance=jax.jit(advance, donate_argnums=0), report=jax.jit(report, donate_argnums=0))


def bare(plan: Plan, program: Program) -> list[float]:
    """Seconds of all turns but the first with all reports, and of what comes after: none."""
    state = program.advance(init_members(program, plan.config.seeds), {}, np.int32(1))
    segments = program.segments.copy()
    segments[0] -= 1
    jax.block_until_ready(state)
    began = time.perf_counter()
    for num_turns in segments:
        state = program.advance(state, {}, num_turns)
        state, _ = program.report(state, {})
    jax.block_until_ready(state)
    return [time.perf_counter() - began, 0.0]


def command(plan: Plan, program: Program) -> list[float]:
    """Seconds of the same as the command line does it, and until all is on the disk."""
    ended: list[Future[float]] = []
    began = written = 0.0

    def training(path: Path, should_stop: Any) -> Iterator[Progress]:
        nonlocal began, written
        directory.create(path, plan.config)
        yield Progress(plan, plan.config.chunks[0], -1, None)
        for progress in train_run(path, plan, [watched], should_stop=should_stop):
            began = began or time.perf_counter()
            yield progress
        written = time.perf_counter()

    with (
        ThreadPoolExecutor(max_workers=1) as watcher,
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):

        def report(state: TrainState, settings: Settings) -> tuple[TrainState, Metrics]:
            state, metrics = program.report(state, settings)
            ended.append(watcher.submit(lambda: (jax.block_until_ready(metrics), time.perf_counter())[1]))
            return state, metrics

        watched = program._replace(report=cast(Any, report))
        show_training(Path(folder) / "run", training, [LOGGERS[name]() for name in ("jsonl", "tensorboard")])
        end = ended[-1].result()
    return [end - began, written - end]


def main() -> None:
    parser = make_parser(__doc__, 3)
    parser.add_argument("--only", choices=WORKLOADS, help="one workload instead of all")
    parser.add_argument("--num-seeds", type=int, default=1024)
    parser.add_argument("--pretend", type=float, metavar="SECONDS", help="of all turns, on a device that takes no core")
    parser.add_argument("--share", type=float, default=1.0, help="of the workload's length: 0.1 is quick")
    arguments = parser.parse_args()
    if not arguments.pretend:
        use_all_cores()
    print(f"jax {jax.__version__}, {jax.local_device_count()} x {jax.devices()[0].device_kind}")
    for agent in [arguments.only] if arguments.only else WORKLOADS:
        plan = make_plan(agent, arguments.num_seeds, arguments.share)
        (program,) = plan.programs()
        program = pretend(plan, program, arguments.pretend) if arguments.pretend else program
        contestants = {"bare": lambda: bare(plan, program), "command": lambda: command(plan, program)}  # noqa: B023
        for contestant in contestants.values():  # compiles
            contestant()
        seconds = alternate(contestants, arguments.rounds)
        num_steps = arguments.num_seeds * last_timestep(plan.settings[0])
        print(f"{agent}, {arguments.num_seeds:,} seeds, {num_steps:,} steps")
        for name, each in seconds.items():
            print(f"  {name:8} {in_words(each[:, 0])} s, {num_steps / np.median(each[:, 0]):,.0f} steps/s")
        print(f"  ratio    {in_words(seconds['bare'][:, 0] / seconds['command'][:, 0])} (wanted: at least 0.90)")
        print(f"  after it {in_words(seconds['command'][:, 1])} s, until all is on the disk", flush=True)


if __name__ == "__main__":
    main()
