"""The benchmark: programs are compiled some at a time, then measured alone, one after the other."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from typing import Any

import jax

from jaxsoft.bench.ceilings import Sizes, measure_ceilings
from jaxsoft.bench.clock import Effort, Spread
from jaxsoft.bench.measure import Built, OutOfMemory, build, is_out_of_memory, measure
from jaxsoft.bench.results import new_results
from jaxsoft.bench.workloads import Workload
from jaxsoft.errors import InputError, printable

STEP = 4
"""By how much the number of members grows."""

GAIN = 1.1
"""More members must raise throughput by this factor, or the ladder ends."""

RESERVE = 10.0
"""Seconds of a budget that are kept for what was begun, the tables and the figure."""

FEW = (16, 1)
"""Numbers of members that are measured on a CPU when time is short."""

Results = dict[str, Any]


class Ladder:
    """One workload at several numbers of members.

    Attributes:
        workload: what is measured.
        entry: its part of the results.
        programs: those that are compiled or being compiled, by number of members.
        was_stopped: whether time ended before its last number of members.
    """

    was_stopped = False

    def __init__(self, workload: Workload, members: Sequence[int] = ()) -> None:
        """Starts at the bottom; numbers of members are by default 1, 4, 16, … until throughput stops rising."""
        self.workload, self._left, self._climbs, self._best = workload, list(members) or [1], not members, 0.0
        self.programs: dict[int, Future[Built]] = {}
        self.entry: dict[str, Any] = {
            "name": workload.name,
            "summary": workload.summary,
            "unit": workload.unit,
            "settings": dict(workload.settings),
            "results": [],
            "notes": [],
            "failed": False,
        }

    @property
    def has_ended(self) -> bool:
        """Whether no number of members is left."""
        return not self._left

    @property
    def members(self) -> int:
        """The next number of members."""
        return self._left[0]

    @property
    def known(self) -> tuple[int, ...]:
        """All numbers of members that are known to come."""
        return tuple(self._left)

    def add(self, built: Built, row: dict[str, Any]) -> None:
        """Takes the results at this number of members, and goes on to the next."""
        self.entry["settings"] = dict(built.case.settings)
        if beside := row.get("compiling_beside"):
            self.entry["notes"].append(f"{self.members:,} members: measured while {beside} programs were compiled")
        self.entry["results"] = sorted([*self.entry["results"], row], key=lambda row: row["members"])
        members, rate = self._left.pop(0), row["steps_per_second"]["median"]
        if self._climbs and rate >= GAIN * self._best:
            self._left = [members * STEP]
        elif self._climbs:
            self.entry["notes"].append(f"{members:,} members: throughput no longer rises")
        self._best = max(self._best, rate)

    def fail(self, error: Exception) -> None:
        """Goes on to fewer members where memory has ended; ends at any other error."""
        message, members = printable(str(error).partition("\n")[0]), self.members
        if is_out_of_memory(error):
            self._left = [fewer for fewer in self._left if fewer < members]
            message = message if isinstance(error, OutOfMemory) else "memory ends"
        else:
            self.entry["failed"] = not isinstance(error, InputError)
            message = f"{type(error).__name__}: {message}" if self.entry["failed"] else message
            self._left = []
        self.entry["notes"].append(f"{members:,} members: {message}")
        for number in set(self.programs).difference(self._left):
            self.programs.pop(number).cancel()

    def stop(self) -> None:
        """Ends because time has."""
        self.was_stopped = True
        self.entry["notes"].append(f"{self.members:,} members: time ends before")
        self._left = []


class Suite:
    """A benchmark of some workloads; `results` are all so far, for JSON."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        devices: Sequence[Any],
        *,
        members: Sequence[int] = (),
        short: bool = False,
        effort: Effort,
        num_threads: int,
        budget: float | None = None,
        compiles_ahead: bool = False,
        sizes: Sizes | None = None,
    ) -> None:
        """Plans it.

        Args:
            workloads: in the order of their worth.
            devices: all of one kind.
            members: numbers of members to measure; by default until throughput stops rising.
            short: without `members`, those that each workload names, on a CPU a few.
            effort: how long each program is measured.
            num_threads: programs that are compiled at once.
            budget: seconds after which nothing more is begun.
            compiles_ahead: compile all programs that are known to come before the first is measured, and not only as
                many as there are threads: for accelerators, whose host has nothing else to do.
            sizes: of the work by which ceilings are measured.
        """
        self._ends = time.monotonic() + budget - RESERVE if budget else float("inf")
        self._compiles_ahead, self._has_compiled = compiles_ahead, False
        self._devices, self._effort, self._num_threads, self._sizes = devices, effort, num_threads, sizes
        how = {"seconds": effort.seconds, "repeats": effort.repeats, "compile_threads": num_threads, "budget": budget}
        few = FEW if devices[0].platform == "cpu" else ()
        self._ladders = [Ladder(one, members or (few or one.members if short else ())) for one in workloads]
        self.results = new_results(devices, how)
        self.results["workloads"] = [ladder.entry for ladder in self._ladders]

    @property
    def is_compiling(self) -> bool:
        """Whether programs are being compiled: no thread that does can be stopped."""
        return self._num_compiling > 0

    @property
    def _num_compiling(self) -> int:
        return sum(program.running() for ladder in self._ladders for program in ladder.programs.values())

    def run(self, save: Callable[[Results], None], tell: Callable[[str, dict[str, Any]], None]) -> Results:
        """Measures; nothing is taken from the cache of compiled programs, nor put there.

        `save` is given the results after each number, `tell` the name of each workload with each new row.
        """
        is_cached = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_enable_compilation_cache", False)
        try:
            save(self.results)
            ceilings = measure_ceilings(self._devices, self._effort, self._sizes)
            self.results["ceilings"] = {name: spread._asdict() for name, spread in ceilings.items()}
            save(self.results)
            self._climb(ceilings, save, tell)
            self.results["complete"] = not any(ladder.was_stopped for ladder in self._ladders)
            save(self.results)
        finally:
            jax.config.update("jax_enable_compilation_cache", is_cached)
        return self.results

    def _climb(
        self,
        ceilings: dict[str, Spread],
        save: Callable[[Results], None],
        tell: Callable[[str, dict[str, Any]], None],
    ) -> None:
        waiting = deque(self._ladders)
        pool = ThreadPoolExecutor(self._num_threads)
        try:
            while waiting and not self._is_late():
                size = len(waiting) if self._compiles_ahead else min(self._num_threads, len(waiting))
                batch = [waiting.popleft() for _ in range(size)]
                self._compile(batch, pool)
                for ladder in batch:
                    if not self._is_late() and (row := self._measure(ladder, ceilings)):
                        tell(ladder.workload.name, row)
                    save(self.results)
                    if not ladder.has_ended:
                        waiting.append(ladder)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        for ladder in waiting:
            ladder.stop()

    def _is_late(self) -> bool:
        return time.monotonic() >= self._ends

    def _compile(self, batch: Sequence[Ladder], pool: ThreadPoolExecutor) -> None:
        """Compiles the next program of each ladder, all at once; waits no longer than half of the time that is left.

        Those that are compiled ahead are waited for once, the first of each ladder first; then, for any of the next.
        """
        wanted = [ladder.known if self._compiles_ahead else ladder.known[:1] for ladder in batch]
        for members in zip_longest(*wanted):
            for ladder, number in zip(batch, members, strict=True):
                if number is not None and number not in ladder.programs:
                    ladder.programs[number] = pool.submit(build, ladder.workload, number, self._devices)
        left = self._ends - time.monotonic()
        timeout = None if left == float("inf") else max(0.0, left / 2)
        if self._compiles_ahead and self._has_compiled:
            wait([ladder.programs[ladder.members] for ladder in batch], timeout, FIRST_COMPLETED)
        else:
            wait([program for ladder in batch for program in ladder.programs.values()], timeout)
        self._has_compiled = True

    def _measure(self, ladder: Ladder, ceilings: dict[str, Spread]) -> dict[str, Any] | None:
        """Measures a ladder's next program; None where it is not ready, or cannot be measured."""
        if not ladder.programs[ladder.members].done():
            return None
        program = ladder.programs.pop(ladder.members)
        try:
            built, num_compiling = program.result(), self._num_compiling
            row = measure(built, ceilings, self._effort, len(self._devices)) | {"compiling_beside": num_compiling}
        except Exception as error:  # of one workload: the others go on
            ladder.fail(error)
            gc.collect()  # arrays that the error's frames hold
            return None
        ladder.add(built, row)
        return row
