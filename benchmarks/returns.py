"""Are λ-returns faster as a sequential or as an associative scan, over lengths and batch sizes?

    python benchmarks/returns.py    # a minute; prints the table; writes returns.md and returns.png beside this file

Milliseconds per call, the median of repeated calls after compilation.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from rounds import machine, timed

from jaxsoft.ops import soft_lambda_returns
from jaxsoft.reports.plots import COLOURS, tidy

LENGTHS = (16, 64, 256, 1024, 4096)
BATCHES = (1, 16, 256, 4096)
SECONDS = 0.5
"""Measuring time of one entry."""

Measured = dict[tuple[int, int], list[float]]
"""Milliseconds of the sequential and of the associative scan, by length and batch."""


def main() -> None:
    measured = {}
    for length, batch in itertools.product(LENGTHS, BATCHES):
        measured[length, batch] = both(length, batch)
        print(f"T {length}, batch {batch}: {both_in_words(measured[length, batch])}", flush=True)
    write(measured, machine())
    draw(measured, machine())


def both_in_words(milliseconds: list[float]) -> str:
    return " / ".join(f"{x:.3g}" for x in milliseconds)


def write(measured: Measured, where: str) -> None:
    lines = [
        f"Milliseconds per λ-return, sequential / associative, {where}. Made by `python benchmarks/returns.py`.",
        "",
        "| T | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |",
        "|--:|" + "--:|" * len(BATCHES),
    ]
    for length in LENGTHS:
        cells = [both_in_words(measured[length, batch]) for batch in BATCHES]
        lines.append(f"| {length} | " + " | ".join(cells) + " |")
    lines += ["", "![the same as a figure](returns.png)"]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


def draw(measured: Measured, where: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for batch, colour in zip(BATCHES, COLOURS, strict=False):
        for i, style in enumerate(("o-", "s--")):
            times = [measured[length, batch][i] for length in LENGTHS]
            axes.plot(LENGTHS, times, style, color=colour, markersize=4, label=f"batch {batch}" if i == 0 else None)
    axes.plot([], [], "o-", color="0.4", markersize=4, label="sequential")
    axes.plot([], [], "s--", color="0.4", markersize=4, label="associative")
    axes.set(xscale="log", yscale="log", xlabel="length T", ylabel="milliseconds per call", title=where)
    axes.set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS])
    axes.minorticks_off()
    tidy(axes)
    axes.legend(frameon=False, ncols=2)
    figure.savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None})


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
        times.append(timed(function, *inputs)[0])
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    jnp.zeros(()).block_until_ready()
    main()
