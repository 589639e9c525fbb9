"""What the experiments on finite MDPs share: numbers in a file, medians with their intervals, errors of tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import jax
import jax.numpy as jnp
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


def error_weights(q_star: jax.Array, policy: jax.Array, reachable: jax.Array) -> jax.Array:
    """Weights w [..., S, A] of a table's error: those of the optimal soft policy where a state can be visited.

    They sum to 1 over Q*².
    """
    weights = reachable[:, None] * policy
    return weights / jnp.sum(weights * q_star**2, axis=(-2, -1), keepdims=True)


def weighted_error(q: jax.Array, q_star: jax.Array, weights: jax.Array) -> jax.Array:
    """E = sqrt(Σ w (Q − Q*)²) of tables [..., S, A]: 1 of Q = 0, and 0 of Q*."""
    return jnp.sqrt(jnp.sum(weights * (q - q_star) ** 2, axis=(-2, -1)))
