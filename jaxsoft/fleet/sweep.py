"""Many seeds, perhaps of several settings, in one program, driven from the host.

`make_train` under a `vmap` is one program from start to end. Here the same functions are compiled once per
purpose and called in a loop, so that the host can show progress, write metrics, save, and stop between calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxsoft.cpu import compiler_options, map_blocks
from jaxsoft.fleet.devices import ALONG_SEEDS, seed_mesh
from jaxsoft.random import make_key
from jaxsoft.training.loop import NO_SETTINGS, Trainer, TrainState, over_seeds
from jaxsoft.types import Metrics

SECONDS_PER_SLICE = 0.5
"""How long one call of `advance` may keep the host from showing progress."""


class Sweep(NamedTuple):
    """A `Trainer`'s functions over seeds, jitted, on one device or several: whole programs, with options of their own.

    Attributes:
        trainer: of one seed.
        init: `(keys [num_seeds], settings={}) -> TrainState`, leaves [num_seeds, ...] but for those all seeds share;
            settings by name, each [num_seeds]: see `Trainer.init`.
        advance: `(state, num_turns) -> TrainState`; takes the old state's memory.
        report: `(state) -> (TrainState, Metrics)`; takes the old state's memory.
        num_devices: among which the seeds are divided: `num_seeds` must be a multiple.
        shardings: of the state's leaves, as a tree prefix.
    """

    trainer: Trainer
    init: jax.stages.Wrapped
    advance: jax.stages.Wrapped
    report: jax.stages.Wrapped
    num_devices: int
    shardings: Any


def make_sweep(trainer: Trainer, devices: Sequence[Any] | None = None, block: int | None = None) -> Sweep:
    """Vmaps a trainer over seeds; the number of turns is an argument, so one program serves every length.

    On several devices each runs the program of its own seeds, and no numbers go between them.

    Args:
        trainer: of one seed.
        devices: of this process; by default the first.
        block: of how many seeds a device trains at a time, see `map_blocks`; by default all of them.
    """
    devices = jax.local_devices()[:1] if devices is None else devices
    axes, mesh = trainer.seed_axes, seed_mesh(devices)
    specs = jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else ALONG_SEEDS, axes, is_leaf=lambda x: x is None
    )
    many = over_seeds(trainer)
    init, advance, report = many.init, many.advance, many.report
    if block:
        advance = map_blocks(advance, block, axes)
    if len(devices) > 1:
        on_each = partial(jax.shard_map, mesh=mesh, check_vma=False)
        init = on_each(init, in_specs=ALONG_SEEDS, out_specs=specs)
        advance = on_each(advance, in_specs=(specs, PartitionSpec()), out_specs=specs)
        report = on_each(report, in_specs=(specs,), out_specs=(specs, ALONG_SEEDS))
    jit = partial(jax.jit, compiler_options=compiler_options(devices))
    return Sweep(
        trainer=trainer,
        init=jit(init),
        advance=jit(advance, donate_argnums=0),
        report=jit(report, donate_argnums=0),
        num_devices=len(devices),
        shardings=jax.tree.map(partial(NamedSharding, mesh), specs),
    )


def forget_programs(sweep: Sweep) -> None:
    """Gives back the memory of a sweep's compiled programs, tens of MB; they are compiled anew if they are called."""
    for function in (sweep.init, sweep.advance, sweep.report):
        cast(Any, function).clear_cache()


@jax.jit
def seed_keys(seeds: jax.Array) -> jax.Array:
    """One key per seed, `jax.random.key(seed)`: a seed's run is the same whichever others run beside it.

    Whatever generator JAX is set to: of all others a seed's numbers depend on its neighbours.
    """
    return jax.vmap(make_key)(seeds)


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


def start(sweep: Sweep, seeds: np.ndarray, settings: Mapping[str, np.ndarray] = NO_SETTINGS) -> TrainState:
    """The state before the first turn, and of more of the last seed to fill the devices.

    The program of the turns is compiled meanwhile, or read from the cache, which Python does not have to wait for.

    Args:
        sweep: from `make_sweep`.
        seeds: [num_seeds], int32.
        settings: the agent's numbers that are not the same for all, by name, each [num_seeds], float32.
    """
    filled = fill(seeds, sweep), {name: fill(values, sweep) for name, values in settings.items()}
    placed, arguments = jax.device_put(filled, (sweep.shardings.key, sweep.shardings.settings))
    keys = seed_keys(placed)
    state = jax.tree.map(
        lambda sharding, part: jax.tree.map(partial(_to_be_placed, sharding=sharding), part),
        sweep.shardings,
        sweep.init.trace(keys, arguments).out_info,
        is_leaf=lambda x: isinstance(x, NamedSharding),
    )
    turns = sweep.advance.lower(state, np.int32(1))
    with ThreadPoolExecutor(max_workers=1) as meanwhile:
        compilation = meanwhile.submit(turns.compile)
        state = sweep.init(keys, arguments)
        compilation.result()
    return state


def _to_be_placed(x: jax.ShapeDtypeStruct, *, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def fill(x: np.ndarray, sweep: Sweep) -> np.ndarray:
    """Repeats the last of [num_seeds, ...] until the devices can share them equally."""
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % sweep.num_devices, axis=0)])


def place(state: TrainState, sweep: Sweep) -> TrainState:
    """Puts a state from the host on the devices; leaves [num_seeds, ...] but for those all seeds share."""
    filled = jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(lambda x: _fill(x, sweep), part),
        sweep.trainer.seed_axes,
        state,
        is_leaf=lambda x: x is None,
    )
    return jax.device_put(filled, sweep.shardings)


def _fill(x: Any, sweep: Sweep) -> Any:
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return fill(x, sweep)
    words = fill(np.asarray(jax.random.key_data(x)), sweep)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(x))


def run(
    sweep: Sweep, state: TrainState, *, turn: int = 0, pauses: np.ndarray | tuple[int, ...] = ()
) -> Iterator[Slice]:
    """Trains all seeds from where they stand to the end, a slice at a time.

    How long slices are depends on the clock; what comes out does not.

    Args:
        sweep: from `make_sweep`.
        state: from `start`, or of an earlier slice. Its memory is taken.
        turn: the turn at which `state` is; if a report falls on it, that has been made.
        pauses: turns at which a slice is to end, besides those of the reports.

    Yields:
        Every slice. One that ends where a report falls comes after the report.
    """
    reports = np.cumsum(sweep.trainer.segments)
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
