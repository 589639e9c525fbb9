"""What the experiments on finite MDPs share: rows of numbers in a file, medians with their intervals, plain axes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

Record = TypeVar("Record")


def write_rows(file: Path, rows: Sequence[Any]) -> None:
    """Writes named tuples as text, numbers with four digits."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(rows[0]._fields)
        writer.writerows([f"{value:.4g}" if isinstance(value, float) else value for value in row] for row in rows)


def read_rows(file: Path, kind: type[Record]) -> list[Record]:
    """Reads named tuples as they were written."""
    kinds = get_type_hints(kind)
    with file.open() as stream:
        return [kind(**{name: kinds[name](text) for name, text in line.items()}) for line in csv.DictReader(stream)]


def median(values: np.ndarray) -> tuple[float, float, float]:
    """The median of values [n] and the order statistics that hold that of the population with 95 % confidence."""
    from scipy.stats import binom

    ordered = np.sort(values)
    below = int(binom.ppf(0.025, len(values), 0.5))
    return float(np.median(values)), float(ordered[below - 1]), float(ordered[len(values) - below])


def tidy(axes: Any) -> None:
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
