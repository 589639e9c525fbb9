"""What one kernel for SAC's whole update would save on a GPU; the kernel is `fused_kernel.py`.

    python benchmarks/fused_update.py --chip h100   # counts a turn's kernels with and without it; needs no GPU
    python benchmarks/fused_update.py               # on a GPU: counts, and the time of a turn with and without it
    python benchmarks/fused_update.py --chip h100 --ptxas PTXAS   # registers and spills, too

PTXAS is NVIDIA's assembler, in its package nvidia-cuda-nvcc.

It is no part of jaxsoft: no GPU has timed it yet. `tests/bench/test_fused_update.py` compares it with SAC's own update
in Pallas's interpreter. What XLA and ptxas make of it for an H100 stands in docs/gpu.md.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from fused_kernel import fused_update
from rich.table import Table
from rounds import alternate, in_words, make_console, make_parser

from jaxsoft.agents import sac
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.measure import Built, build, trace
from jaxsoft.bench.workloads import find_workloads
from jaxsoft.fleet.programs import seed_keys

(SMALL,) = find_workloads(["sac-small"])
"""The workload of `jaxsoft bench`."""


@contextlib.contextmanager
def updates(*, are_fused: bool) -> Iterator[None]:
    """Lets SAC update by the one kernel, or as it does."""

    def update(key: Any, state: Any, batch: Any, config: Any, networks: Any, target_entropy: Any) -> Any:
        return fused_update(key, state, batch, config=config, target_entropy=target_entropy, interpret=False)

    with mock.patch.object(sac, "_update", update) if are_fused else contextlib.nullcontext():
        yield


def count(num_members: int, devices: Any) -> list[str]:
    """Kernels and megabytes of a turn, as XLA makes it and with the one kernel."""
    costs = []
    for are_fused in (False, True):
        with updates(are_fused=are_fused):
            compiled = trace(SMALL.make(SMALL.settings, num_members, devices))[1].lower().compile()
        cost = turn_cost(compiled.as_text() or "")
        costs += [f"{cost.num_kernels:,}", f"{cost.num_bytes / 1e6:,.1f}"]
    return costs


def resources(devices: Any, ptxas: Path) -> list[str]:
    """What NVIDIA's assembler says of the one kernel: registers, shared memory, stack and spills of a thread."""
    with tempfile.TemporaryDirectory() as folder, updates(are_fused=True):
        turn = trace(SMALL.make(SMALL.settings, 1, devices))[1].lower()
        turn.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (ptx,) = (path for path in Path(folder).glob("*.ptx") if ".entry kernel(" in path.read_text())
        command = [str(ptxas), "-v", "-arch=sm_90a", str(ptx), "-o", f"{folder}/kernel.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        launches = "\n".join(path.read_text() for path in Path(folder).glob("*thunk_sequence.txt"))
    lines = report.partition("entry function 'kernel'")[2].splitlines()[1:4]
    return [*lines, *re.findall(r"\bkernel grid: .*", launches)[:1]]


def compare(num_members: int, devices: Any, rounds: int) -> list[str]:
    """Microseconds of a turn, without and with the one kernel in turns, and their ratio."""
    calls: dict[str, Callable[[], float]] = {}
    for name in ("XLA", "one kernel"):
        with updates(are_fused=name == "one kernel"):
            built = build(SMALL, num_members, devices)
        calls[name] = timed(built, num_turns=max(20_000 // num_members, 200))
    times = alternate(calls, rounds)
    ratio = times["XLA"] / times["one kernel"]
    return [in_words(1e6 * times["XLA"], ".0f"), in_words(1e6 * times["one kernel"], ".0f"), in_words(ratio)]


def timed(built: Built, num_turns: int) -> Callable[[], float]:
    """A function that takes turns and returns the seconds of one."""
    state = built.init(seed_keys(np.arange(built.case.num_members, dtype=np.int32)), {})

    def call() -> float:
        nonlocal state
        began = time.perf_counter()
        state = jax.block_until_ready(built.advance(state, {}, np.int32(num_turns)))
        return (time.perf_counter() - began) / num_turns

    call()
    return call


def main() -> None:
    parser = make_parser(__doc__, 5)
    parser.add_argument("--chip", choices=[H100], help="only count, as compiled for a card that need not be here")
    parser.add_argument("--ptxas", type=Path, help="print what this assembler says of the kernel")
    parser.add_argument("--members", type=int, nargs="+", help="by default 1 and 64; with a GPU also 256 and 1,024")
    options = parser.parse_args()
    if not options.chip and jax.default_backend() != "gpu":
        raise SystemExit("error: there is no GPU here; --chip h100 counts without one")
    devices = chips(options.chip) if options.chip else jax.devices()[:1]
    table = Table(title=f"a turn of SAC (64, 64), {options.chip or devices[0].device_kind}, jax {jax.__version__}")
    times = () if options.chip else ("XLA, µs", "one kernel, µs", "ratio")
    for name in ("members", "kernels", "MB", "fused: kernels", "MB", *times):
        table.add_column(name, justify="right")
    for num_members in options.members or ((1, 64) if options.chip else (1, 64, 256, 1_024)):
        measured = [] if options.chip else compare(num_members, devices, options.rounds)
        table.add_row(f"{num_members:,}", *count(num_members, devices), *measured)
    make_console().print(table)
    if options.ptxas:
        print(*resources(devices, options.ptxas), sep="\n")


if __name__ == "__main__":
    main()
