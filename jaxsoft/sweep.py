"""Many seeds in one program, driven from the host.

`make_train` under a `vmap` is one program from start to end. Here the same functions are compiled once per
purpose and called in a loop, so that the host can show progress, write metrics and stop between calls.
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


def run(sweep: Sweep, seeds: np.ndarray, segments: np.ndarray) -> Iterator[tuple[TrainState, Metrics | None]]:
    """Trains all seeds, a slice at a time.

    Args:
        sweep: from `make_sweep`.
        seeds: [num_seeds], int32.
        segments: [num_reports], turns between reports.

    Yields:
        The state after every slice, with None; after a report, with its metrics, NumPy [num_seeds]. A
        state is only valid until the next one is asked for.
    """
    state = sweep.init(seed_keys(jnp.asarray(seeds)))
    slice_length = 1
    for num_turns in segments:
        while num_turns > 0:
            start = time.perf_counter()
            state = jax.block_until_ready(sweep.advance(state, np.int32(min(slice_length, num_turns))))
            num_turns -= min(slice_length, num_turns)
            pace = SECONDS_PER_SLICE / (time.perf_counter() - start)
            slice_length = max(1, int(slice_length * min(pace, 8)))
            yield state, None
        state, metrics = sweep.report(state)
        yield state, jax.device_get(metrics)
