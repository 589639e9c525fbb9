"""Seeds divided among devices; on a CPU, whose cores share one program badly, a device for each core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

ALONG_SEEDS = PartitionSpec("seeds")
"""Leaves [num_seeds, ...], divided among the devices."""


def use_all_cores() -> None:
    """Makes every core of the CPU a device of its own, for programs that divide their seeds among devices.

    XLA splits each operation of a program among the cores, which for the small networks of reinforcement learning is
    hardly faster than one core. Seeds do not wait for each other: each core trains some of them.

    It must come before the first computation; later, or where JAX_NUM_CPU_DEVICES or XLA_FLAGS say how many devices
    there are, nothing changes.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:  # the devices have been made
        return


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    function: Callable[..., Any], devices: Sequence[Any] | None = None, *, block: int | None = None
) -> jax.stages.Wrapped:
    """`jit(vmap(function))`, with what is mapped over divided among devices: no numbers go between them.

    `spread(jaxsoft.make_train(...))(keys)` trains a seed for each key; see `use_all_cores`.

    Args:
        function: of arguments without the leading axis.
        devices: by default all local ones. Of them as many are used as divide the leading axis into equal parts.
        block: how many a device works on at a time; by default all of its own. Hundreds of small agents without a
            replay learn faster on a CPU if a block of them fits its cache; `jaxsoft train` does so by itself.

    Returns:
        A jitted function of arguments with a leading axis [num_seeds, ...], like its outputs.
    """

    @jax.jit
    def over_seeds(*args: Any) -> Any:
        available = jax.local_devices() if devices is None else devices
        num_seeds = jax.tree.leaves(args)[0].shape[0]
        used = max(n for n in range(1, len(available) + 1) if num_seeds % n == 0)
        mapped = _in_blocks(function, block) if block else jax.vmap(function)
        if used == 1:
            return mapped(*args)
        mesh = seed_mesh(available[:used])
        return jax.shard_map(mapped, mesh=mesh, in_specs=ALONG_SEEDS, out_specs=ALONG_SEEDS, check_vma=False)(*args)

    return over_seeds


def _in_blocks(function: Callable[..., Any], block: int) -> Callable[..., Any]:
    return lambda *args: jax.lax.map(lambda one: function(*one), args, batch_size=block)


def seed_mesh(devices: Sequence[Any]) -> Mesh:
    """Devices in a row, along which seeds are divided."""
    return Mesh(np.asarray(devices), ("seeds",))


def enough_for(num_seeds: int, devices: Sequence[Any]) -> Sequence[Any]:
    """The fewest of some devices on which each has as few of the seeds as on all of them."""
    each = -(-num_seeds // len(devices))
    return devices[: -(-num_seeds // each)]
