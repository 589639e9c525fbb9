"""Results of a benchmark as tables of text: for the terminal, and in Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxsoft.bench.clock import Spread
from jaxsoft.bench.results import Ratio
from jaxsoft.fleet.memory import bytes_in_words

FRACTIONS = ("arithmetic", "bytes", "kernels")
"""The ceilings, in the order of their columns."""

CEILINGS = {
    "float32": ("products, float32", "FLOP/s"),
    "tf32": ("products, TF32", "FLOP/s"),
    "bfloat16": ("products, bfloat16", "FLOP/s"),
    "copy": ("copy, read + written", "B/s"),
    "kernels": ("kernels, one after the other", ""),
}


class TextTable(NamedTuple):
    """A table, whose first `num_words` columns are words, not numbers."""

    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]
    num_words: int = 1

    def markdown(self) -> str:
        """The table in Markdown."""
        rule = ["---"] * self.num_words + ["--:"] * (len(self.headers) - self.num_words)
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.headers, rule, *self.rows))


def describe_in_words(results: Mapping[str, Any]) -> str:
    """One line: the devices, the versions, the day."""
    device, versions = results["device"], results["versions"]
    cores = f", {device['cores']} cores" if device["platform"] == "cpu" else ""
    count = f"{device['count']} × " if device["count"] > 1 and not cores else ""
    runtime = f" ({device['runtime']})" if device["runtime"] not in ("cpu", "") else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{count}{device['name']}{cores}{runtime}; {packages}; {results['date'][:10]}"


def ceilings_table(results: Mapping[str, Any]) -> TextTable:
    """The ceilings of the devices."""
    rows = []
    for name, (words, unit) in CEILINGS.items():
        if name in results["ceilings"]:
            spread = Spread(**results["ceilings"][name])
            measured = (
                f"{in_digits(spread.median, ' ')}{unit}" if unit else f"{seconds_in_words(1 / spread.median)} each"
            )
            rows.append((words, measured, range_in_words(spread)))
    return TextTable(("ceiling", "median", "range"), rows)


def speed_table(results: Mapping[str, Any]) -> TextTable:
    """How fast each workload is with each number of members, and what that takes."""
    headers = ("workload", "members", "steps/s", "range", "updates/s", "turn", "memory", "compile")
    return TextTable(headers, list(_rows(results, _speed_cells)))


def limits_table(results: Mapping[str, Any]) -> TextTable:
    """The cost of a turn, and its shares of the ceilings, of which the one that binds is marked."""
    headers = ("workload", "members", "kernels", "moved", "FLOP", *(f"{name}, share" for name in FRACTIONS))
    return TextTable(headers, list(_rows(results, _limit_cells)))


def _rows(results: Mapping[str, Any], cells: Callable[[Mapping[str, Any]], Iterator[str]]) -> Iterator[tuple[str, ...]]:
    for workload in results["workloads"]:
        for i, row in enumerate(workload["results"]):
            yield (workload["name"] if i == 0 else "", f"{row['members']:,}", *cells(row))


def _speed_cells(row: Mapping[str, Any]) -> Iterator[str]:
    steps, updates = Spread(**row["steps_per_second"]), row["updates_per_second"]
    yield in_digits(steps.median)
    yield range_in_words(steps)
    yield in_digits(updates["median"]) if updates else "–"
    yield seconds_in_words(row["turn_seconds"])
    yield bytes_in_words(row["memory_bytes"]) if row["memory_bytes"] is not None else "?"
    yield f"{row['trace_seconds'] + row['compile_seconds']:.1f} s"


def _limit_cells(row: Mapping[str, Any]) -> Iterator[str]:
    at_least = "≥ " * bool(row["open_loops"])
    yield f"{at_least}{row['kernels']:,}"
    yield f"{at_least}{bytes_in_words(row['bytes'])}"
    yield at_least + in_digits(row["flops"]) if row["flops"] else "–"
    for name in FRACTIONS:
        yield "* " * (row["binds"] == name) + f"{row['fractions'][name]:.0%}"


def ratios_table(ratios: Sequence[Ratio]) -> TextTable:
    """A row for each ratio; where the two ranges overlap it is marked, and so are other settings."""
    rows = []
    for i, one in enumerate(ratios):
        is_first = i == 0 or ratios[i - 1].workload != one.workload
        remark = ["ranges overlap"] * (not one.is_clear) + ["other settings"] * (not one.same_settings)
        rows.append(
            (
                one.workload if is_first else "",
                f"{one.members:,}",
                f"{one.ratio.median:.2f}",
                f"{one.ratio.low:.2f}–{one.ratio.high:.2f}",
                " → ".join(f"{n:,}" for n in one.kernels),
                " → ".join(bytes_in_words(n) for n in one.num_bytes),
                ", ".join(remark),
            )
        )
    return TextTable(("workload", "members", "B / A", "range", "kernels", "moved", "remark"), rows)


def in_digits(x: float, space: str = "") -> str:
    """Three digits, and a letter for the magnitude, perhaps after a space.

    >>> in_digits(31_271_206), in_digits(8_533), in_digits(4.98), in_digits(0.0712), in_digits(3.0e12, " ")
    ('31.3M', '8.53k', '4.98', '0.0712', '3 T')
    """
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= 0.9995 * limit:
            return (f"{x / limit:.3g}" if x < 999.5 * limit else f"{x / limit:,.0f}") + space + unit
    return f"{x:.3g}{space}"


def range_in_words(spread: Spread) -> str:
    """How far the lowest and the highest are from the median.

    >>> range_in_words(Spread(100.0, 98.0, 105.0))
    '−2 % +5 %'
    """
    low, high = (100 * (x / spread.median - 1) for x in (spread.low, spread.high))
    return f"−{abs(low):.0f} % +{high:.0f} %"


def seconds_in_words(seconds: float) -> str:
    """A time, three digits.

    >>> seconds_in_words(2e-8), seconds_in_words(0.000117), seconds_in_words(0.05), seconds_in_words(2.5)
    ('20 ns', '117 µs', '50 ms', '2.5 s')
    """
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
