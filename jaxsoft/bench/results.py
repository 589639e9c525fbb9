"""The results of a benchmark as a file: what is in it, how it is written and read, how two of them compare."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxlib.version import __version__ as jaxlib_version

import jaxsoft
from jaxsoft.bench.clock import Spread
from jaxsoft.cpu import num_cores
from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import capacity_of
from jaxsoft.runs.files import read_regular, tell_errors, write_atomically

SCHEMA = "jaxsoft-bench/1"
"""Names the format; another number is another format."""

LONGEST = 64 << 20
"""Bytes of the largest file that is read."""


class Ratio(NamedTuple):
    """How two benchmarks differ in one workload with so many members.

    The ratio is the second's rate in units of the first's, with the range that both ranges allow; kernels and bytes are
    those of a turn, of both.
    """

    workload: str
    members: int
    ratio: Spread
    kernels: tuple[int, int]
    num_bytes: tuple[int, int]
    same_settings: bool

    @property
    def is_clear(self) -> bool:
        """Whether the two ranges do not overlap."""
        return not self.ratio.low <= 1 <= self.ratio.high


def describe_machine(devices: Sequence[Any]) -> dict[str, Any]:
    """The devices and versions that numbers were measured with."""
    first, capacity = devices[0], capacity_of(devices)
    return {
        "device": {
            "name": _processor() if first.platform == "cpu" else first.device_kind,
            "platform": first.platform,
            "count": len(devices),
            "memory_bytes": capacity.size,
            "runtime": " ".join(first.client.platform_version.split()),
            "cores": num_cores(),
        },
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxlib": jaxlib_version,
            "jaxsoft": jaxsoft.__version__,
        },
    }


def _processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "CPU"


def new_results(devices: Sequence[Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """Results without a number yet; `how` says how they will be measured."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    results = {"schema": SCHEMA, "date": now, **describe_machine(devices), "how": dict(how)}
    return results | {"complete": False, "ceilings": {}, "workloads": []}


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Writes results whole or not at all.

    Raises:
        InputError: they cannot be written.
    """
    with tell_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(results, indent=1, default=str) + "\n").encode())


def read_results(path: Path) -> dict[str, Any]:
    """Reads results.

    Raises:
        InputError: the file is missing, or holds no results of this format.
    """
    try:
        results = json.loads(read_regular(path, LONGEST))
        found = results.get("schema")
    except (ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} holds no results of jaxsoft bench: it is not JSON, or no object") from None
    if found != SCHEMA:
        raise InputError(f"{path} has the schema {found!r}; it must be {SCHEMA!r}")
    missing = [name for name in ("date", "device", "versions", "how", "ceilings", "workloads") if name not in results]
    if missing:
        raise InputError(f"{path} holds no results of jaxsoft bench: {', '.join(missing)} is missing")
    return results


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Ratio]:
    """Ratios of the rates of what both have measured, second to first."""
    ratios = []
    firsts = {workload["name"]: workload for workload in before["workloads"]}
    for workload in after["workloads"]:
        first = firsts.get(workload["name"], {"results": [], "settings": None})
        rows = {row["members"]: row for row in first["results"]}
        for new in workload["results"]:
            if (old := rows.get(new["members"])) is None:
                continue
            a, b = (Spread(**row["steps_per_second"]) for row in (old, new))
            ratios.append(
                Ratio(
                    workload=workload["name"],
                    members=new["members"],
                    ratio=Spread(b.median / a.median, b.low / a.high, b.high / a.low),
                    kernels=(old["kernels"], new["kernels"]),
                    num_bytes=(old["bytes"], new["bytes"]),
                    same_settings=first["settings"] == workload["settings"],
                )
            )
    return ratios
