"""One workload with so many members: compiled, counted, timed, and held against the ceilings."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxsoft.bench.cases import Case
from jaxsoft.bench.ceilings import default_product
from jaxsoft.bench.clock import Effort, Spread, measure_rate
from jaxsoft.bench.compiled import Cost, product_flops, turn_cost
from jaxsoft.bench.workloads import Workload
from jaxsoft.errors import InputError
from jaxsoft.fleet.devices import ALONG_SEEDS, seed_mesh
from jaxsoft.fleet.memory import USABLE, bytes_in_words, capacity_of
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.trees import map_leaves

NEAR = 1 / 3
"""The share of a ceiling from which on it is said to bind."""

OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")
"""How XLA says it."""


ONE_AT_A_TIME = threading.Lock()
"""Held while an environment is made: what some packages print at import is muted, which only one thread can do."""


class OutOfMemory(InputError):  # noqa: N818 (a limit that is looked for)
    """So many members do not fit the devices."""


class Built(NamedTuple):
    """A compiled case.

    Attributes:
        case: what it was.
        init: compiled, `(keys, settings) -> state`.
        advance: compiled; see `Case`.
        flops: of the products of one turn, of one device.
        trace_seconds: from Python to a program.
        compile_seconds: from the program to machine code, wall clock.
    """

    case: Case
    init: jax.stages.Compiled
    advance: jax.stages.Compiled
    flops: int
    trace_seconds: float
    compile_seconds: float


def require_memory(case: Case, devices: Sequence[Any]) -> None:
    """Refuses members that cannot fit, before anything is compiled.

    Raises:
        OutOfMemory: the members need more than the devices have.
    """
    capacity = capacity_of(devices)
    if capacity.num_seeds(case.need) < case.num_members:
        size, each = bytes_in_words(capacity.size), bytes_in_words(case.need.total)
        raise OutOfMemory(f"memory ends: {each} for each member, {USABLE:.0%} of {size} on each device")


def build(workload: Workload, num_members: int, devices: Sequence[Any]) -> Built:
    """Traces and compiles; runs nothing.

    Raises:
        OutOfMemory: the members cannot fit.
        InputError: a package is missing that the environment needs.
    """
    with ONE_AT_A_TIME:
        case = workload.make(workload.settings, num_members, devices)
    require_memory(case, devices)
    began = time.perf_counter()
    init, advance = trace(case)
    lowered = init.lower(), advance.lower()
    traced = time.perf_counter()
    compiled = lowered[0].compile(), lowered[1].compile()
    ended = time.perf_counter()
    return Built(case, *compiled, product_flops(advance.jaxpr), traced - began, ended - traced)


def trace(case: Case) -> tuple[jax.stages.Traced, jax.stages.Traced]:
    """The case's `init` and `advance`, traced for its members and devices, which need not be there."""
    seeds, members = _seeds(case)
    keys = jax.eval_shape(seed_keys, seeds)
    keys = jax.ShapeDtypeStruct(keys.shape, keys.dtype, sharding=members)
    init = case.init.trace(keys, {})
    state = map_leaves(
        lambda sharding, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), case.shardings, init.out_info
    )
    return init, case.advance.trace(state, {}, *_num_turns(case, 1))


def _seeds(case: Case) -> tuple[np.ndarray, NamedSharding]:
    """Seeds of the members, as many as the devices divide, and how they are placed."""
    num_rows = -(-case.num_members // len(case.devices)) * len(case.devices)
    return np.arange(num_rows, dtype=np.int32), NamedSharding(seed_mesh(case.devices), ALONG_SEEDS)


def _num_turns(case: Case, num_turns: int) -> tuple[np.int32, ...]:
    return () if case.turns_per_call else (np.int32(num_turns),)


def measure(built: Built, ceilings: Mapping[str, Spread], effort: Effort, num_devices: int) -> dict[str, Any]:
    """Times a compiled case; the ceilings are of `num_devices`. `docs/benchmarking.md` explains what it returns."""
    case = built.case
    seeds, members = _seeds(case)
    state = built.init(jax.device_put(seed_keys(seeds), members), {})

    def call(num_rounds: int) -> None:
        nonlocal state
        if case.turns_per_call:
            for _ in range(num_rounds):
                state, _metrics = built.advance(state, {})
        else:
            state = built.advance(state, {}, np.int32(num_rounds))
        jax.block_until_ready(state)

    rate, num_rounds = measure_rate(call, effort)
    turns_per_round = max(1, case.turns_per_call)
    turns = rate.times(turns_per_round)
    cost = turn_cost(built.advance.as_text() or "", counts_turns=case.turns_per_call > 0)
    fractions = _fractions(cost, built.flops, turns.median, case.devices, num_devices, ceilings)
    return {
        "members": case.num_members,
        "devices": len(case.devices),
        "turns": num_rounds * turns_per_round,
        "repeats": effort.repeats,
        "steps_per_second": turns.times(case.steps)._asdict(),
        "updates_per_second": turns.times(case.updates)._asdict() if case.updates else None,
        "turn_seconds": 1 / turns.median,
        "trace_seconds": built.trace_seconds,
        "compile_seconds": built.compile_seconds,
        "memory_bytes": _program_memory(built.advance),
        "kernels": cost.num_kernels,
        "bytes": cost.num_bytes,
        "open_loops": sum(loop.num_rounds is None for loop in cost.loops),
        "flops": built.flops,
        "flops_per_second": built.flops * len(case.devices) * turns.median,
        "fractions": fractions,
        "binds": nearest_ceiling(fractions),
    }


def _fractions(
    cost: Cost, flops: int, rate: float, devices: Sequence[Any], num_measured: int, ceilings: Mapping[str, Spread]
) -> dict[str, float]:
    """The shares of the ceilings that are reached at `rate` turns per second, with the cost and products of one device.

    The ceilings are those of `num_measured` devices, but for that of kernels. On a CPU one device's program may use the
    cores of the others; elsewhere it has what is its own.
    """
    platform, num_devices = devices[0].platform, len(devices)
    own = 1.0 if platform == "cpu" else num_devices / num_measured
    return {
        "arithmetic": flops * num_devices * rate / (own * ceilings[default_product(platform)].median),
        "bytes": cost.num_bytes * num_devices * rate / (own * ceilings["copy"].median),
        "kernels": cost.num_kernels * rate / ceilings["kernels"].median,
    }


def nearest_ceiling(fractions: Mapping[str, float]) -> str | None:
    """The ceiling that binds; None where none is near."""
    name = max(fractions, key=lambda name: fractions[name])
    return name if fractions[name] >= NEAR else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ended."""
    return isinstance(error, MemoryError | OutOfMemory) or any(words in str(error) for words in OUT_OF_MEMORY)


def _program_memory(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a program's arguments, results and temporaries on a device; None where XLA does not say."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes
