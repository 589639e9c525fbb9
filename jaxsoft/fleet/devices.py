"""Seeds sharded over the devices of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jax.sharding import Mesh, PartitionSpec

from jaxsoft.cpu import compiler_options, map_blocks

ALONG_SEEDS = PartitionSpec("seeds")
"""The sharding of leaves [num_seeds, ...]."""


def spread(
    function: Callable[..., Any], devices: Sequence[Any] | None = None, *, block: int | None = None
) -> jax.stages.Wrapped:
    """`jit(vmap(function))`, the mapped axis sharded over devices, without communication.

    `spread(jaxsoft.make_train(...))(keys)` trains one seed per key; see `use_all_cores`. The outermost program is
    compiled with `compiler_options`.

    Args:
        function: of arguments without the leading axis.
        devices: by default all local ones. The largest number of them that divides the leading axis is used.
        block: seeds that a device works on at a time; by default all of its own. On a CPU, hundreds of small agents
            without a replay learn faster if a block of them fits the cache; `jaxsoft train` chooses it.

    Returns:
        A function of arguments with a leading axis [num_seeds, ...], like its outputs; jitted, with `lower` and
        `trace`.
    """
    many = jax.vmap(function)
    if not block:
        return _Spread(many, devices)

    def mapped(*args: Any) -> Any:
        results = jax.tree.map(jax.numpy.zeros_like, jax.eval_shape(many, *args))
        return map_blocks(lambda rows: (rows[0], many(*rows[0])), block)((args, results))[1]

    return _Spread(mapped, devices)


class _Spread:
    """One jitted function per number of devices, since the compiler options depend on it."""

    def __init__(self, mapped: Callable[..., Any], devices: Sequence[Any] | None) -> None:
        self._mapped, self._devices = mapped, devices
        self._jit = cache(self._jitted)

    def __call__(self, *args: Any) -> Any:
        return self._program(args)(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        return self._program(args).lower(*args)

    def trace(self, *args: Any) -> jax.stages.Traced:
        return self._program(args).trace(*args)

    def _program(self, args: Any) -> jax.stages.Wrapped:
        available = jax.local_devices() if self._devices is None else self._devices
        num_seeds = jax.tree.leaves(args)[0].shape[0]
        used = max(n for n in range(1, len(available) + 1) if num_seeds % n == 0)
        return self._jit(tuple(available[:used]), _is_part_of_another_program())

    def _jitted(self, used: Sequence[Any], is_part: bool) -> jax.stages.Wrapped:
        divided = on_each(used, self._mapped, ALONG_SEEDS, ALONG_SEEDS)
        return jax.jit(divided, compiler_options={} if is_part else compiler_options(used))


def _is_part_of_another_program() -> bool:
    """Whether JAX is tracing: only the outermost program can have compiler options."""
    return get_opaque_trace_state() != _NOTHING_TRACED


_NOTHING_TRACED = get_opaque_trace_state()


def seed_mesh(devices: Sequence[Any]) -> Mesh:
    """The mesh over which seeds are sharded."""
    return Mesh(np.asarray(devices), ("seeds",))


def specs_of(axes: Any) -> Any:
    """Shardings of leaves whose axes over seeds are 0, or None where all seeds share them: tree prefixes."""
    return jax.tree.map(lambda axis: ALONG_SEEDS if axis == 0 else PartitionSpec(), axes, is_leaf=lambda x: x is None)


def on_each(devices: Sequence[Any], function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """The function of each device's part of the arguments, without communication; of one device the function itself."""
    if len(devices) == 1:
        return function
    mesh = seed_mesh(devices)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def fewest_devices(num_seeds: int, devices: Sequence[Any]) -> Sequence[Any]:
    """The fewest devices that keep the number of seeds per device as small as all of them would."""
    each = -(-num_seeds // len(devices))
    return devices[: -(-num_seeds // each)]
