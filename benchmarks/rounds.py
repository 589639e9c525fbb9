"""What the benchmarks share: contestants that take turns, so that a machine whose speed drifts drifts for all."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = ROOT / "benchmarks" / "contestants"
"""Scripts that run in processes of their own."""


def make_parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A script's command line with `--rounds`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def alternate(contestants: Mapping[str, Callable[[], float | list[float]]], rounds: int) -> dict[str, np.ndarray]:
    """Calls every contestant once a round; what each gave, [rounds] or, of lists, [rounds, length]."""
    measured = np.array([[contestant() for contestant in contestants.values()] for _ in range(rounds)])
    return dict(zip(contestants, np.moveaxis(measured, 1, 0), strict=True))


def in_words(values: Any, spec: str = ".2f") -> str:
    """Median and spread: `2.00 (1.00 – 3.00)`."""
    return f"{np.median(values):{spec}} ({np.min(values):{spec}} – {np.max(values):{spec}})"


def make_console() -> Console:
    """Standard output; where it is no terminal, wide enough for the tables."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def run_contestant(script: str, *arguments: str, **environment: str) -> dict[str, float]:
    """Runs a script of `CONTESTANTS` with this tree, or with the PYTHONPATH that is given; the JSON it prints last."""
    command = [sys.executable, str(CONTESTANTS / script), *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=CONTESTANTS, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """`jax 0.10.2, cpu, 2 cores`."""
    return f"jax {jax.__version__}, {jax.default_backend()}, {os.cpu_count()} cores"


def timed(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Seconds of a call until its result is there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return time.perf_counter() - start, result


class Slices:
    """Steps per second of a program that goes on from where it stopped; each call measures one slice.

    Args:
        advance: `(state, num_steps) -> state`, compiled at its first call.
        state: where it begins.
        seconds: that a slice takes at least.
    """

    def __init__(self, advance: Callable[[Any, np.int32], Any], state: Any, seconds: float) -> None:
        self._advance, self._state, self._num_steps = advance, state, 1
        self()
        while self._num_steps / self() < seconds:
            self._num_steps *= 2

    def __call__(self) -> float:
        taken, self._state = timed(self._advance, self._state, np.int32(self._num_steps))
        return self._num_steps / taken
