"""Many seeds in one program, driven from the host.

`make_train` under a `vmap` is one program from start to end. Here the same functions are compiled once per
purpose and called in a loop, so that the host can show progress, write metrics, save, and stop between calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.training import Trainer, TrainState
from jaxsoft.types import Metrics

SECONDS_PER_SLICE = 0.5
"""How long one call of `advance` may keep the host from showing progress."""


class Sweep(NamedTuple):
    """A `Trainer`'s functions, vmapped over seeds and jitted.

    Attributes:
        init: `(keys [num_seeds]) -> TrainState`, leaves [num_seeds, ...] but for those all seeds share.
        advance: `(state, num_turns) -> TrainState`; takes the old state's memory.
        report: `(state) -> (TrainState, Metrics)`; takes the old state's memory.
    """

    init: Callable[[jax.Array], TrainState]
    advance: Callable[[TrainState, np.int32], TrainState]
    report: Callable[[TrainState], tuple[TrainState, Metrics]]


def make_sweep(trainer: Trainer) -> Sweep:
    """Vmaps a trainer over seeds; the number of turns is an argument, so one program serves every length."""
    axes = trainer.seed_axes
    return Sweep(
        init=jax.jit(jax.vmap(trainer.init, out_axes=axes)),
        advance=jax.jit(jax.vmap(trainer.advance, (axes, None), axes), donate_argnums=0),
        report=jax.jit(jax.vmap(trainer.report, (axes,), (axes, 0)), donate_argnums=0),
    )


@jax.jit
def seed_keys(seeds: jax.Array) -> jax.Array:
    """One key per seed, `jax.random.key(seed)`: a seed's run is the same whichever others run beside it."""
    return jax.vmap(jax.random.key)(seeds)


class Slice(NamedTuple):
    """Where a sweep stands after some turns.

    Attributes:
        state: only valid until the next slice is asked for.
        turn: turns taken since the prefill.
        metrics: of the report that falls on this turn, NumPy [num_seeds]; None where none does.
    """

    state: TrainState
    turn: int
    metrics: Metrics | None


def start(sweep: Sweep, seeds: np.ndarray) -> TrainState:
    """The state before the first turn, of `seeds` [num_seeds], int32."""
    return sweep.init(seed_keys(jnp.asarray(seeds)))


def run(
    sweep: Sweep, state: TrainState, segments: np.ndarray, *, turn: int = 0, pauses: np.ndarray | tuple[int, ...] = ()
) -> Iterator[Slice]:
    """Trains all seeds from where they stand to the end, a slice at a time.

    How long slices are depends on the clock; what comes out does not.

    Args:
        sweep: from `make_sweep`.
        state: from `start`, or of an earlier slice. Its memory is taken.
        segments: [num_reports], turns between reports.
        turn: the turn at which `state` is; if a report falls on it, that has been made.
        pauses: turns at which a slice is to end, besides those of the reports.

    Yields:
        Every slice. One that ends where a report falls comes after the report.
    """
    reports = np.cumsum(segments)
    length = 1
    for pause in np.union1d(reports, np.asarray(pauses, reports.dtype)):
        while turn < pause <= reports[-1]:
            num_turns = min(length, int(pause) - turn)
            began = time.perf_counter()
            state = jax.block_until_ready(sweep.advance(state, np.int32(num_turns)))
            pace = SECONDS_PER_SLICE / (time.perf_counter() - began)
            length = max(1, int(length * min(pace, 8)))
            turn += num_turns
            metrics = None
            if turn in reports:
                state, metrics = sweep.report(state)
                metrics = jax.device_get(metrics)
            yield Slice(state, turn, metrics)
