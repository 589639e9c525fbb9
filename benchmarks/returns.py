"""λ-returns as a sequential and as an associative scan, over lengths and batch sizes.

    python benchmarks/returns.py            # prints the table and writes returns.md beside this file

Milliseconds per call, the median of repeated calls after compilation.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxsoft.ops import soft_lambda_returns

LENGTHS = (16, 64, 256, 1024, 4096)
BATCHES = (1, 16, 256, 4096)
SECONDS = 0.5
"""Measuring time of one entry."""


def main() -> None:
    lines = [
        f"Milliseconds per λ-return, sequential / associative, jax {jax.__version__}, {jax.default_backend()}, "
        f"{os.cpu_count()} cores. Made by `python benchmarks/returns.py`.",
        "",
        "| T | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |",
        "|--:|" + "--:|" * len(BATCHES),
    ]
    for length in LENGTHS:
        cells = [" / ".join(f"{ms:.3g}" for ms in both(length, batch)) for batch in BATCHES]
        lines.append(f"| {length} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(table)
    Path(__file__).with_suffix(".md").write_text(table)


def both(length: int, batch: int) -> list[float]:
    keys = jax.random.split(jax.random.key(0), 5)
    inputs = [jax.random.uniform(key, (batch, length)) for key in keys]
    return [milliseconds(compiled(method), inputs) for method in ("sequential", "associative")]


def compiled(method: str) -> Callable[..., jax.Array]:
    return jax.jit(jax.vmap(lambda r, d, v, q, c: soft_lambda_returns(r, d, v, q, c, 0.9, method=method)))  # type: ignore[arg-type]


def milliseconds(function: Callable[..., jax.Array], inputs: list[jax.Array]) -> float:
    jax.block_until_ready(function(*inputs))
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 5:
        start = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    jnp.zeros(()).block_until_ready()
    main()
