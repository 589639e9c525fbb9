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
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from fused_kernel import NUM_WARPS, fused_update
from rich.table import Table
from rounds import alternate, in_words, make_console, make_parser

from jaxsoft.agents import sac
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.measure import trace
from jaxsoft.bench.workloads import find_workloads
from jaxsoft.fleet.programs import seed_keys

(SMALL,) = find_workloads(["sac-small"])
"""The workload of `jaxsoft bench`."""

SECONDS = 0.3
"""That a timed call takes, about."""

FEW_TURNS, MANY_TURNS = 10, 100


@contextlib.contextmanager
def updates(num_warps: int) -> Iterator[None]:
    """Lets SAC update by the one kernel, of so many warps; 0: as it does."""

    def update(key: Any, state: Any, batch: Any, config: Any, networks: Any, target_entropy: Any) -> Any:
        own: Any = {"config": config, "target_entropy": target_entropy, "num_warps": num_warps}
        return fused_update(key, state, batch, interpret=False, **own)

    with mock.patch.object(sac, "_update", update) if num_warps else contextlib.nullcontext():
        yield


class Lowered(NamedTuple):
    """The two programs of a training, before they are compiled."""

    init: jax.stages.Lowered
    advance: jax.stages.Lowered


def lower(num_members: int, num_warps: int, devices: Any) -> Lowered:
    with updates(num_warps):
        init, advance = trace(SMALL.make(SMALL.settings, num_members, devices))
        return Lowered(init.lower(), advance.lower())


def compile_all(cases: Sequence[tuple[int, int]], devices: Any) -> dict[tuple[int, int], list[jax.stages.Compiled]]:
    """The programs of cases of (members, warps), compiled side by side; nothing comes from the cache on disk."""
    jax.config.update("jax_enable_compilation_cache", False)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {case: [pool.submit(program.compile) for program in lower(*case, devices)] for case in cases}
        return {case: [program.result() for program in programs] for case, programs in waiting.items()}


def counted(turn: jax.stages.Compiled) -> list[str]:
    """Kernels and megabytes of a turn."""
    cost = turn_cost(turn.as_text() or "")
    return [f"{cost.num_kernels:,}", f"{cost.num_bytes / 1e6:,.1f}"]


def resources(num_warps: int, devices: Any, ptxas: Path) -> list[str]:
    """What NVIDIA's assembler says of the one kernel: registers, shared memory, stack and spills of a thread."""
    with tempfile.TemporaryDirectory() as folder:
        lower(1, num_warps, devices).advance.compile(
            compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        )
        (ptx,) = (path for path in Path(folder).glob("*.ptx") if ".entry kernel(" in path.read_text())
        command = [str(ptxas), "-v", "-arch=sm_90a", str(ptx), "-o", f"{folder}/kernel.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        launches = "\n".join(path.read_text() for path in Path(folder).glob("*thunk_sequence.txt"))
    lines = report.partition("entry function 'kernel'")[2].splitlines()[1:4]
    return [*lines, *re.findall(r"\bkernel grid: .*", launches)[:1]]


class Timed:
    """A compiled training that takes turns.

    Attributes:
        first: the learned state after a few turns.
    """

    def __init__(self, num_members: int, init: jax.stages.Compiled, advance: jax.stages.Compiled) -> None:
        """Finds how many turns a timed call needs."""
        self._advance, self._num_turns = advance, FEW_TURNS
        self._state = init(seed_keys(np.arange(num_members, dtype=np.int32)), {})
        self()
        self.first = jax.device_get(self._state.agent_state.actor_params)
        self._num_turns = MANY_TURNS
        self._num_turns = max(MANY_TURNS, int(SECONDS / self()))

    def __call__(self) -> float:
        """Takes turns; the seconds of one."""
        began = time.perf_counter()
        self._state = jax.block_until_ready(self._advance(self._state, {}, np.int32(self._num_turns)))
        return (time.perf_counter() - began) / self._num_turns


def apart(ours: Timed, theirs: Timed) -> str:
    """How far two policies are from each other after a few turns: ‖x − y‖ / ‖y‖."""
    x, y = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one.first)]) for one in (ours, theirs))
    return f"{np.linalg.norm(x - y) / np.linalg.norm(y):.1e}"


def main() -> None:
    parser = make_parser(__doc__, 5)
    parser.add_argument("--chip", choices=[H100], help="only count, as compiled for a card that need not be here")
    parser.add_argument("--ptxas", type=Path, help="print what this assembler says of the kernel")
    parser.add_argument("--members", type=int, nargs="+", help="by default 1 and 64; with a GPU also 256 and 1,024")
    parser.add_argument("--warps", type=int, nargs="+", default=[NUM_WARPS], help="of the one kernel")
    options = parser.parse_args()
    if not options.chip and jax.default_backend() != "gpu":
        raise SystemExit("error: there is no GPU here; --chip h100 counts without one")
    devices = chips(options.chip) if options.chip else jax.devices()[:1]
    sizes = options.members or ((1, 64) if options.chip else (1, 64, 256, 1_024))
    compiled = compile_all(list(product(sizes, (0, *options.warps))), devices)
    table = Table(title=f"a turn of SAC (64, 64), {options.chip or devices[0].device_kind}, jax {jax.__version__}")
    for name in ("members", "warps", "kernels", "MB", *(() if options.chip else ("turn, µs", "XLA / this", "apart"))):
        table.add_column(name, justify="right")
    for num_members in sizes:
        ways = {num_warps: compiled.pop((num_members, num_warps)) for num_warps in (0, *options.warps)}
        rows = {num_warps: counted(programs[-1]) for num_warps, programs in ways.items()}
        if not options.chip:
            calls = {num_warps: Timed(num_members, *programs) for num_warps, programs in ways.items()}
            times = alternate({str(num_warps): call for num_warps, call in calls.items()}, options.rounds)
            for num_warps, row in rows.items():
                seconds = times[str(num_warps)]
                row += [
                    in_words(1e6 * seconds, ".0f"),
                    in_words(times["0"] / seconds),
                    apart(calls[num_warps], calls[0]),
                ]
        for num_warps, row in rows.items():
            table.add_row(f"{num_members:,}", str(num_warps or "XLA"), *row)
    make_console().print(table)
    if options.ptxas:
        for num_warps in options.warps:
            print(f"{num_warps} warps", *resources(num_warps, devices, options.ptxas), sep="\n")


if __name__ == "__main__":
    main()
