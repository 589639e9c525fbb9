"""What a turn is compiled to: `python benchmarks/kernels.py`, or `... --chip h100`, without having one.

The workloads are those of `jaxsoft bench`. Of each, one turn of many members is compiled as `jaxsoft train` compiles
it, and its kernels, bytes and temporaries are counted; see `jaxsoft/bench/compiled.py`. Counts repeat to the last one,
where clocks do not: compare them before and after a change. `--check` compares them with the committed ones,
`benchmarks/kernels.json`, and fails where one has risen; `--write` commits to the present ones.

A chip's compiler is a package: `make check-accelerators` has them. With `--devices 4` the members are sharded over as
many chips. On the present backend XLA's compilations of a short training are counted, too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import jax
from rich.table import Table
from rounds import make_console

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.measure import trace
from jaxsoft.bench.workloads import Workload, find_workloads
from jaxsoft.errors import InputError
from jaxsoft.precision import MatmulPrecision
from jaxsoft.types import Discrete

COMMITTED = Path(__file__).with_name("kernels.json")

MEMBERS = {"cpu": (1,), H100: (1, 64)}
"""Numbers of members by chip; others have 8. On a CPU more would be trained in blocks, as many as its cache holds."""

ALLOWED = {"kernels": 1.02, "megabytes": 1.05, "temporaries": 1.1, "compilations": 1.0}
"""By how much a count may exceed the committed one; on a CPU, whose instructions differ from machine to machine, by a
tenth, but for compilations."""

Counts = dict[str, float]


def count(workload: Workload, num_members: int, devices: Sequence[Any]) -> tuple[Counts, str]:
    """Kernels and megabytes of a turn, megabytes of temporaries, and in words the loops in the turn."""
    case = workload.make(workload.settings, num_members, devices)
    compiled = trace(case)[1].lower().compile()
    cost = turn_cost(compiled.as_text() or "", counts_turns=case.turns_per_call > 0)
    memory = compiled.memory_analysis()
    loops = ", ".join(f"{loop.num_kernels:,} × {loop.num_rounds or '?'}" for loop in cost.loops if loop.depth == 0)
    temporaries = memory.temp_size_in_bytes / 1e6 if memory else 0
    counts = {"kernels": cost.num_kernels, "megabytes": cost.num_bytes / 1e6, "temporaries": temporaries}
    return {name: round(x, 3) for name, x in counts.items()}, loops


def count_compilations(agent: str) -> int:
    """Programs that XLA compiles for a short training, its evaluation included."""
    num_compiled = 0

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        nonlocal num_compiled
        num_compiled += event == "/jax/core/compile/backend_compile_duration"

    env = "gymnax/CartPole-v1" if AGENTS[agent].action_spaces == (Discrete,) else "gymnax/Pendulum-v1"
    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    jaxsoft.train(agent, env, num_seeds=2, total_timesteps=2_000, eval_every=1_000)
    jax.monitoring.unregister_event_duration_listener(listen)
    return num_compiled


def risen(name: str, counts: Counts, committed: Counts, chip: str) -> list[str]:
    """The counts that are higher than the committed ones, in words; those that none is committed of are not."""
    told = []
    for what, now in counts.items():
        before = committed.get(what, math.inf)
        allowed = 1.1 if chip == "cpu" and what != "compilations" else ALLOWED[what]
        if now > before * allowed + 1e-3:
            told.append(f"{name}: {what} {now:,g}, {before:,g} committed")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="by default all")
    parser.add_argument("--chip", help="h100, or TPUs, for example v5e:2x2; by default the present backend")
    parser.add_argument("--devices", type=int, default=1, help="over which members are sharded")
    parser.add_argument("--members", type=int, nargs="+", help="each is a line")
    parser.add_argument("--matmul-precision", default="default", choices=get_args(MatmulPrecision))
    parser.add_argument("--check", action="store_true", help="fail where a count has risen")
    parser.add_argument("--write", action="store_true", help="commit to the present counts")
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    all_devices = chips(options.chip) if options.chip else jax.local_devices()
    chip = options.chip or jax.default_backend()
    if options.devices > len(all_devices):
        parser.error(f"--devices is {options.devices}; there are {len(all_devices)}")
    devices = all_devices[: options.devices]
    key = chip if options.devices == 1 else f"{chip} × {options.devices}"
    key += f", {options.matmul_precision}" * (options.matmul_precision != "default")
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    ours: dict[str, Counts] = {}
    console, table = make_console(), Table(title=f"a turn, compiled for {key} (jax {jax.__version__})")
    columns = ("workload", "members", "kernels", "MB", "temporaries, MB", "loops: kernels × rounds", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column in ("workload", "loops: kernels × rounds") else "right")
    for workload in find_workloads(options.workloads):
        if "agent" in workload.settings:
            workload = workload._replace(settings={**workload.settings, "matmul_precision": options.matmul_precision})
        for num_members in options.members or MEMBERS.get(chip, (8,)):
            began = time.perf_counter()
            counts, loops = count(workload, num_members, devices)
            ours[f"{workload.name} × {num_members}"] = counts
            row = [workload.name, f"{num_members}", *(f"{x:,.6g}" for x in counts.values()), loops]
            table.add_row(*row, f"{time.perf_counter() - began:.0f}")
            console.print(" ".join(row))
            jax.clear_caches()
    if not options.chip and not options.workloads:
        for agent in sorted(AGENTS):
            ours[f"{agent}, a short training"] = {"compilations": count_compilations(agent)}
            console.print(f"{agent}: {ours[f'{agent}, a short training']['compilations']} compilations")
    console.print(table)
    if options.write:
        committed.setdefault("jax", {})[key] = jax.__version__
        committed[key] = dict(sorted((committed.get(key, {}) | ours).items()))
        COMMITTED.write_text(json.dumps(committed, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    if options.check:
        expected = committed.get(key, {})
        told = [line for name, x in ours.items() for line in risen(name, x, expected.get(name, {}), key)]
        told += [f"{name}: no count is committed for {key}" for name in ours if name not in expected]
        if (version := committed.get("jax", {}).get(key)) not in (None, jax.__version__):
            console.print(f"the committed counts are of jax {version}")
        console.print("\n".join(told) or f"no count has risen above those in {COMMITTED.name}")
        raise SystemExit(bool(told))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
