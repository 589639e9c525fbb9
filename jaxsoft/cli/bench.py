"""`jaxsoft bench`: how fast the workloads are on the devices that there are, and how near to what these can do."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jaxsoft.bench import clock
from jaxsoft.bench.clock import Effort, Spread
from jaxsoft.bench.figures import draw_results
from jaxsoft.bench.results import compare, read_results, write_results
from jaxsoft.bench.suite import Suite
from jaxsoft.bench.tables import (
    TextTable,
    ceilings_table,
    describe_in_words,
    in_digits,
    limits_table,
    range_in_words,
    ratios_table,
    speed_table,
)
from jaxsoft.bench.workloads import QUICK, QUICK_MEMBERS, find_workloads
from jaxsoft.cli.console import FittingTable, make_console, print_line
from jaxsoft.cli.options import new_folder, parse_options
from jaxsoft.cpu import num_cores
from jaxsoft.errors import InputError, printable

MOST_THREADS = 16
"""Programs that are compiled at once: each takes a few hundred MB meanwhile."""

FEWEST_SECONDS = 30
"""The smallest budget: less is gone before the first workload."""


@dataclass(frozen=True)
class BenchOptions:
    """Measure the speed of workloads on the devices that JAX sees, beside the devices' ceilings."""

    only: tuple[str, ...] = ()
    """Workloads to measure; by default all."""
    members: tuple[int, ...] = ()
    """Numbers of members to measure; by default 1, 4, 16, … until throughput stops rising or memory ends."""
    quick: bool = False
    """A few workloads, with 1 and 16 members, each for a second: less than two minutes on 2 CPU cores."""
    budget: float | None = None
    """Seconds after which nothing more is begun; the most telling workloads and numbers of members come first."""
    out: Path | None = None
    """Results to write, a .json file; the figure is written beside it. By default in runs/."""
    compare: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="A.json B.json")] = None
    """Two files of results to compare instead of measuring; ratios are B / A."""
    show: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """A file of results to show instead of measuring."""


def bench_command(argv: list[str]) -> None:
    """`jaxsoft bench [--only NAME ...] [--members N ...] [--quick] [--budget SECONDS] [--out FILE.json]`.

    Or `--compare A.json B.json`, or `--show FILE.json`.
    """
    options = parse_options(BenchOptions, "jaxsoft bench", argv)
    console, files = make_console(), options.compare or (options.show,)
    if files == (None,):
        _measure(console, options)
        return
    try:
        if options.compare:
            print_comparison(console, *options.compare)
        elif options.show:
            print_results(console, read_results(options.show))
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        names = " or ".join(str(path) for path in files)
        raise InputError(
            f"{names} holds no results of jaxsoft bench: {type(error).__name__} in a number or name"
        ) from error


def _measure(console: Console, options: BenchOptions) -> None:
    _check(options)
    out = options.out or new_folder("bench").with_suffix(".json")
    workloads = find_workloads(options.only or (QUICK if options.quick else ()))
    suite = Suite(
        workloads,
        jax.local_devices(),
        members=options.members or (QUICK_MEMBERS if options.quick else ()),
        short=options.budget is not None,
        effort=clock.QUICK if options.quick else clock.SHORT if options.budget else Effort(),
        num_threads=min(num_cores(), MOST_THREADS),
        budget=options.budget,
        compiles_ahead=options.budget is not None and jax.default_backend() != "cpu",
    )
    print_line(console, describe_in_words(suite.results))

    def tell(name: str, row: Mapping[str, Any]) -> None:
        steps = Spread(**row["steps_per_second"])
        print_line(console, f"{name} × {row['members']:,}: {in_digits(steps.median)}/s ({range_in_words(steps)})")

    try:
        results = suite.run(lambda results: write_results(out, results), tell)
    except KeyboardInterrupt:
        if suite.is_compiling:
            print("jaxsoft: interrupted", file=sys.stderr, flush=True)
        _end(suite, 130)
        raise
    print_results(console, results)
    for path in (out, draw_results(out.with_suffix(".png"), results)):
        print(printable(path))
    status = int(any(workload["failed"] for workload in results["workloads"]))
    _end(suite, status)
    if status:
        raise SystemExit(status)


def _check(options: BenchOptions) -> None:
    if any(number < 1 for number in options.members):
        raise InputError(f"members is {min(options.members)}; it must be positive integers")
    if options.budget is not None and not FEWEST_SECONDS <= options.budget < math.inf:
        raise InputError(f"budget is {options.budget:g}; it must be at least {FEWEST_SECONDS} seconds")
    if options.out is not None and options.out.suffix.lower() != ".json":
        raise InputError(f"out is {str(options.out)!r}; it must be a .json file")


def _end(suite: Suite, status: int) -> None:
    """Ends the process at once where Python would wait for minutes: until the compiler's threads are done."""
    if suite.is_compiling:
        sys.stdout.flush()
        os._exit(status)


def print_results(console: Console, results: Mapping[str, Any]) -> None:
    """The tables of a benchmark, and why workloads ended."""
    print_line(console, describe_in_words(results))
    for table in (ceilings_table, speed_table, limits_table):
        if (text := table(results)).rows:
            console.print(_fitting(text))
    for workload in results["workloads"]:
        for note in workload["notes"]:
            style = "bold red" if workload["failed"] else None
            print_line(console, f"{workload['name']}, {note}", style=style)


def print_comparison(console: Console, first: Path, second: Path) -> None:
    """The ratios of two benchmarks.

    Raises:
        InputError: one is no file of results, or they have nothing in common.
    """
    before, after = read_results(first), read_results(second)
    for letter, path, results in (("A", first, before), ("B", second, after)):
        print_line(console, f"{letter}: {path}: {describe_in_words(results)}")
    if before["device"]["name"] != after["device"]["name"]:
        print_line(console, "the devices differ", style="bold yellow")
    ratios = compare(before, after)
    if not ratios:
        raise InputError(f"{first} and {second} have no workload with the same number of members in common")
    console.print(_fitting(ratios_table(ratios)))


def _fitting(text: TextTable) -> FittingTable:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, header in enumerate(text.headers):
        table.add_column(header, justify="left" if i < text.num_words else "right", no_wrap=True)
    for row in text.rows:
        table.add_row(*row)
    return FittingTable(table, list(_lines(text)))


def _lines(text: TextTable) -> Iterator[str]:
    """A line for each row, each number with its header."""
    name = ""
    for first, *rest in text.rows:
        name = first or name
        words = (f"{header} {cell}" for header, cell in zip(text.headers[1:], rest, strict=True) if cell)
        yield f"{name}: {', '.join(words)}"
