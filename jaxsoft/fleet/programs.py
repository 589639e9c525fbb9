"""Programs of many members, compiled once and called in a loop by the host.

`make_train` under a `vmap` is one program from start to end. Here the same functions are three programs, `init`,
`advance` and `report`, so that the host can show progress, write metrics, save and stop between calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxsoft.cpu import compiler_options, map_blocks
from jaxsoft.fleet.devices import ALONG_SEEDS, on_each, seed_mesh, specs_of
from jaxsoft.random import make_key
from jaxsoft.training import loop as loops
from jaxsoft.training.config import TrainConfig
from jaxsoft.training.packing import MemberPacking, packs_members, take_turns, wants_few_kernels
from jaxsoft.training.report import make_report
from jaxsoft.training.schedule import num_prefill_steps, segments
from jaxsoft.training.state import Loop, TrainState, seed_axes
from jaxsoft.training.turns import random_step, take_turn
from jaxsoft.trees import map_leaves
from jaxsoft.types import Env, Metrics

SECONDS_PER_SLICE = 0.5
"""How long one call of `advance` may keep the host from showing progress."""

Settings = Mapping[str, Any]
"""Numbers of the agent that are arguments of a program, by name, each [num_members], float32."""


class Program(NamedTuple):
    """The compiled functions of many members, on one device or sharded over several.

    Attributes:
        loop: of one member, at the settings that all have in common.
        axes: of a `TrainState`'s leaves over members, see `seed_axes`.
        segments: numbers of turns between reports, [num_reports], NumPy.
        begin: `(keys [num_members], settings) -> (action_keys, state)`, not compiled; the state without experience.
        init: `(keys [num_members], settings) -> state`, leaves [num_members, ...] but for those all members share.
        advance: `(state, settings, num_turns) -> state`; takes the old state's memory.
        report: `(state, settings) -> (state, metrics)`; takes the old state's memory.
        num_devices: among which the members are divided: their number must be a multiple.
        shardings: of the state's leaves, a tree prefix.
    """

    loop: Loop
    axes: Any
    segments: np.ndarray
    begin: Callable[[jax.Array, Settings], tuple[jax.Array, TrainState]]
    init: jax.stages.Wrapped
    advance: jax.stages.Wrapped
    report: jax.stages.Wrapped
    num_devices: int
    shardings: Any


def over_members(
    function: Callable[..., Any], env: Env, config: TrainConfig, in_axes: tuple[Any, ...], out_axes: Any
) -> Callable[..., Any]:
    """Vmaps a function of the loop, `(*args, loop)`, over members: `(*args, settings)`; `in_axes` are of `args`."""

    def one_member(settings: Settings, *args: Any) -> Any:
        return function(*args, loop=loops.make_loop(env, config, settings))

    mapped = jax.vmap(one_member, (0, *in_axes), out_axes)
    return lambda *args: mapped(args[-1], *args[:-1])


def make_program(
    env: Env, config: TrainConfig, devices: Sequence[Any] | None = None, block: int | None = None
) -> Program:
    """Builds the program of some members; JAX compiles it at the first call.

    The number of turns is an argument, so one program serves every length. The loops over turns are outside of the
    vmap, which would batch the body of a loop inside it once more. Members are sharded over devices, without
    communication.

    Args:
        env: unwrapped, as `make_env` gives it.
        config: the settings that all members have in common.
        devices: of this process; by default the first.
        block: of how many members a device trains at a time, see `map_blocks`; by default all of them.

    Raises:
        InputError: the settings do not fit each other or the environment.
    """
    loop, axes = loops.make_loop(env, config), seed_axes(config.experience)
    moving, num_random_steps = replace(axes, failure=None), num_prefill_steps(config)
    begin = over_members(loops.begin, env, config, (0,), (0, axes))
    fill_replay = over_members(random_step, env, config, (0, None, axes), axes)
    devices = jax.local_devices()[:1] if devices is None else devices
    few_kernels = wants_few_kernels(devices[0].platform)
    packs = packs_members(config.experience, devices[0].platform)
    turn = over_members(partial(take_turn, few_kernels=few_kernels), env, config, (moving,), moving)
    report = over_members(make_report, env, config, (axes,), (axes, 0))

    def init(keys: jax.Array, settings: Settings) -> TrainState:
        action_keys, state = begin(keys, settings)
        if num_random_steps:
            step = lambda i, state: fill_replay(action_keys, i, state, settings)  # noqa: E731
            state = jax.lax.fori_loop(0, num_random_steps, step, state)
        return state

    def advance(state: TrainState, settings: Settings, num_turns: jax.Array) -> TrainState:
        start = replace(state, failure=None)
        packing = MemberPacking(start, moving, len(start.key)) if packs else None
        moved = take_turns(num_turns, lambda state: turn(state, settings), start, packing)
        return replace(moved, failure=state.failure)

    specs = specs_of(axes)

    def advance_blocks(state: TrainState, settings: Settings, num_turns: jax.Array) -> TrainState:
        def advance_block(rows: tuple[TrainState, Settings], num_turns: jax.Array) -> tuple[TrainState, Settings]:
            return advance(rows[0], rows[1], num_turns), rows[1]

        return map_blocks(advance_block, block or 1, (axes, 0))((state, settings), num_turns)[0]

    init = on_each(devices, init, ALONG_SEEDS, specs)
    advance_all = on_each(devices, advance_blocks if block else advance, (specs, ALONG_SEEDS, PartitionSpec()), specs)
    report = on_each(devices, report, (specs, ALONG_SEEDS), (specs, ALONG_SEEDS))
    jit = partial(jax.jit, compiler_options=compiler_options(devices))
    return Program(
        loop=loop,
        axes=axes,
        segments=segments(config),
        begin=begin,
        init=jit(init),
        advance=jit(advance_all, donate_argnums=0),
        report=jit(report, donate_argnums=0),
        num_devices=len(devices),
        shardings=jax.tree.map(partial(NamedSharding, seed_mesh(devices)), specs),
    )


def forget_compiled(program: Program) -> None:
    """Frees a program's machine code, tens of MB; a later call compiles it again."""
    for function in (program.init, program.advance, program.report):
        cast(Any, function).clear_cache()


@jax.jit
def seed_keys(seeds: jax.Array) -> jax.Array:
    """One key per seed, `jax.random.key(seed)` of Threefry: a seed's run is the same whichever others run beside it."""
    return jax.vmap(make_key)(seeds)


class Slice(NamedTuple):
    """Where the members of a program stand after some turns.

    Attributes:
        state: at the end and where it was asked for, else None; only valid until the next slice is asked for.
        turn: turns taken since the prefill.
        timestep: environment steps that each member has taken.
        metrics: of the report that falls on this turn, NumPy [num_members]; None where none does.
        ended: when the devices had finished it and its report, of `time.perf_counter`, seconds.
        is_last: whether it is the last slice, because of the end or of a stop.
    """

    state: TrainState | None
    turn: int
    timestep: int
    metrics: Metrics | None
    ended: float
    is_last: bool


def init_members(program: Program, seeds: np.ndarray, settings: Settings = loops.NO_SETTINGS) -> TrainState:
    """The state before the first turn, padded with the last member to fill the devices.

    `advance` is compiled, or read from the cache, at the same time in another thread. Seeds [num_members] are int32.
    """
    settings = place_settings(settings, program)
    keys = seed_keys(jax.device_put(pad_members(seeds, program), program.shardings.key))
    state = map_leaves(
        lambda sharding, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        program.shardings,
        program.init.trace(keys, settings).out_info,
    )
    turns = program.advance.lower(state, settings, np.int32(1))
    with ThreadPoolExecutor(max_workers=1) as meanwhile:
        compilation = meanwhile.submit(turns.compile)
        state = program.init(keys, settings)
        compilation.result()
    return state


def pad_members(x: np.ndarray, program: Program) -> np.ndarray:
    """Repeats the last of [num_members, ...] until the number of devices divides them."""
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % program.num_devices, axis=0)])


def place_settings(settings: Settings, program: Program) -> Settings:
    """Puts settings, each [num_members], on the devices."""
    padded = {name: pad_members(np.asarray(values), program) for name, values in settings.items()}
    return jax.device_put(padded, program.shardings.key)


def place_state(state: TrainState, program: Program) -> TrainState:
    """Puts a state from the host on the devices; leaves [num_members, ...] but for those all members share."""

    def padded(axis: int | None, x: Any) -> Any:
        if axis is None:
            return x
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return pad_members(x, program)
        words = pad_members(np.asarray(jax.random.key_data(x)), program)
        return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(x))

    return jax.device_put(map_leaves(padded, program.axes, state), program.shardings)


@jax.jit
def copy_on_device(tree: Any) -> Any:
    """Copies arrays, sharded as they are; the originals' memory can then be taken."""
    return jax.tree.map(jnp.copy, tree)


class _Running(NamedTuple):
    """A slice that has been dispatched: its state where that was asked for, and what `_Watch` will tell."""

    state: TrainState | None
    turn: int
    num_turns: int
    outcome: Future[tuple[int, Metrics | None, float, float]]


class _Watch:
    """Waits for slices in the order of their dispatch, in a thread of its own: the host may be busy when one ends."""

    def __init__(self) -> None:
        self._ended = 0.0

    def __call__(
        self, dispatched: float, timestep: jax.Array, metrics: Metrics | None
    ) -> tuple[int, Metrics | None, float, float]:
        """Returns the timestep and the metrics on the host, the seconds that the turns took, and when all ended."""
        reached = int(timestep)
        began, self._ended = max(dispatched, self._ended), time.perf_counter()
        seconds = self._ended - began
        if metrics is not None:
            metrics = jax.device_get(metrics)
            self._ended = time.perf_counter()
        return reached, metrics, seconds, self._ended


def run(
    program: Program,
    state: TrainState,
    settings: Settings = loops.NO_SETTINGS,
    *,
    turn: int = 0,
    pauses: np.ndarray | tuple[int, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Slice]:
    """Trains all members from where they stand to the end, a slice at a time.

    The next slice is dispatched before one is yielded, so the device works while the caller does. How long slices are
    depends on the clock; what comes out does not.

    Args:
        program: from `make_program`.
        state: from `init_members`, or of an earlier slice. Its memory is taken.
        settings: of the members.
        turn: the turn at which `state` is; if a report falls on it, that has been made.
        pauses: turns at which a slice is to end, with its state. That is a copy, of which there is one at a time; a
            replay is too large to copy, so with one nothing is dispatched until the next slice is asked for.
        should_stop: called while a slice runs, but for the last; after True that one is the last.

    Yields:
        Every slice. One that ends where a report falls comes after the report.
    """
    settings, reports = place_settings(settings, program), np.cumsum(program.segments)
    pauses, last = np.asarray(pauses, reports.dtype), int(reports[-1])
    ends, length, watch = np.union1d(reports, pauses), 1, _Watch()
    now: _Running | None = None
    is_first, stops = True, False
    with ThreadPoolExecutor(max_workers=1) as watcher:
        while now or (turn < last and not stops):
            following, stops = None, stops or (now is not None and turn < last and should_stop())
            if turn < last and not stops and not (now and is_first):  # the first one tells how long they may be
                num_turns = min(length, int(ends[ends > turn][0]) - turn)
                end = turn + num_turns
                is_wanted, is_copied = end in pauses and end < last, state.replay_state is None
                if not (now and now.state is not None and (is_wanted or not is_copied)):
                    dispatched, metrics = time.perf_counter(), None
                    state = program.advance(state, settings, np.int32(num_turns))
                    timestep = copy_on_device(state.timestep)
                    if end in reports:
                        state, metrics = program.report(state, settings)
                    following = _Running(
                        (copy_on_device(state) if is_copied else state) if is_wanted else None,
                        end,
                        num_turns,
                        watcher.submit(watch, dispatched, timestep, metrics),
                    )
                    turn = end
            if now:
                timestep, metrics, seconds, ended = now.outcome.result()
                length = max(1, int(min(now.num_turns * SECONDS_PER_SLICE / max(seconds, 1e-9), 8 * length)))
                is_first, is_last = False, following is None and (stops or turn == last)
                yield Slice(state if is_last else now.state, now.turn, timestep, metrics, ended, is_last)
            now = following
