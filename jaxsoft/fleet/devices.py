"""Seeds divided among devices; on a CPU, whose cores share one program badly, a device for each core."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jax.sharding import Mesh, PartitionSpec

ALONG_SEEDS = PartitionSpec("seeds")
"""Leaves [num_seeds, ...], divided among the devices."""


def use_all_cores() -> None:
    """Makes every core of the CPU a device of its own, for programs that divide their seeds among devices.

    XLA splits each operation of a program among the cores, which for the small networks of reinforcement learning is
    hardly faster than one core. Seeds do not wait for each other: each core trains some of them.

    It must come before the first computation: later nothing changes, and one line on standard error says so. Where
    JAX_NUM_CPU_DEVICES or XLA_FLAGS say how many devices there are, they are left at that.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:  # the devices have been made
        if jax.default_backend() == "cpu" and jax.local_device_count() < num_cores():
            logging.getLogger("jaxsoft").warning(
                f"note: JAX has been used before use_all_cores: {jax.local_device_count()} of {num_cores()} cores "
                "train seeds (is there an array among the constants of a module?)"
            )


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    function: Callable[..., Any], devices: Sequence[Any] | None = None, *, block: int | None = None
) -> jax.stages.Wrapped:
    """`jit(vmap(function))`, with what is mapped over divided among devices: no numbers go between them.

    `spread(jaxsoft.make_train(...))(keys)` trains a seed for each key; see `use_all_cores`. On CPUs the program is
    compiled with `compiler_options`, where it is no part of another one.

    Args:
        function: of arguments without the leading axis.
        devices: by default all local ones. Of them as many are used as divide the leading axis into equal parts.
        block: how many a device works on at a time; by default all of its own. Hundreds of small agents without a
            replay learn faster on a CPU if a block of them fits its cache; `jaxsoft train` does so by itself.

    Returns:
        A function of arguments with a leading axis [num_seeds, ...], like its outputs; jitted, with `lower` and
        `trace`.
    """
    return _Spread(_in_blocks(function, block) if block else jax.vmap(function), devices)


class _Spread:
    """A jitted function for each number of devices, since the options depend on it."""

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
        divided = self._mapped
        if len(used) > 1:
            mesh = seed_mesh(used)
            divided = jax.shard_map(divided, mesh=mesh, in_specs=ALONG_SEEDS, out_specs=ALONG_SEEDS, check_vma=False)
        return jax.jit(divided, compiler_options={} if is_part else compiler_options(used))


def _is_part_of_another_program() -> bool:
    """Whether something is being traced or transformed: only the outermost program can have options."""
    return get_opaque_trace_state() != _NOTHING_TRACED


_NOTHING_TRACED = get_opaque_trace_state()


LIBRARY_FUSIONS, ONLY_PRODUCTS = "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def compiler_options(devices: Sequence[Any]) -> dict[str, str]:
    """XLA's options for a program of this library on these devices; for all but CPUs there are none.

    XLA leaves products of matrices and large sums to the library YNNPACK. The threads of one device share a product
    better without it, and a single seed of SAC or Soft Q(λ) trains faster. Where each core is a device of its own its
    products are good, and only its sums are not.

    An option that is set in XLA_FLAGS, or that this version of XLA does not have, is left alone.
    """
    if devices[0].platform != "cpu" or LIBRARY_FUSIONS in os.environ.get("XLA_FLAGS", "") or not knows_fusions():
        return {}
    return {LIBRARY_FUSIONS: "" if len(devices) == 1 else ONLY_PRODUCTS}


@cache
def knows_fusions() -> bool:
    """Whether this version of XLA has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={LIBRARY_FUSIONS: ONLY_PRODUCTS}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _in_blocks(function: Callable[..., Any], block: int) -> Callable[..., Any]:
    return lambda *args: jax.lax.map(lambda one: function(*one), args, batch_size=block)


def seed_mesh(devices: Sequence[Any]) -> Mesh:
    """Devices in a row, along which seeds are divided."""
    return Mesh(np.asarray(devices), ("seeds",))


def fewest_devices(num_seeds: int, devices: Sequence[Any]) -> Sequence[Any]:
    """The fewest of some devices on which each has as few of the seeds as on all of them."""
    each = -(-num_seeds // len(devices))
    return devices[: -(-num_seeds // each)]
