"""CPUs only: cores as devices, compiler options, and blocks of members that fit a core's cache.

Nothing here acts where JAX computes on another backend: `use_all_cores` makes CPU devices, `compiler_options` are empty
for others, and `jaxsoft train` cuts members into blocks on CPUs alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
from jax import lax

from jaxsoft.trees import map_leaves


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


def map_blocks(function: Callable[..., Any], block: int, axes: Any = 0) -> Callable[..., Any]:
    """Applies a function of many rows to one block of rows at a time, which stays in the cache.

    Thousands of small agents are several times faster so. The rows are replaced in place; a block is copied out and
    back, so it is not for agents with a replay.

    Args:
        function: `(rows, *shared) -> rows`, of trees of any number n of rows, leaves [n, ...].
        block: how many rows fit the cache.
        axes: 0 for such leaves and None for those that all rows share and that every block gives anew: a tree prefix.
    """

    def over_blocks(rows: Any, *shared: Any) -> Any:
        num_rows = jax.tree.leaves(map_leaves(lambda axis, x: None if axis is None else x, axes, rows))[0].shape[0]
        if num_rows <= block:
            return function(rows, *shared)
        size = block_size(num_rows, block)

        def replace_block(first: jax.Array | int, done: Any, size: int) -> Any:
            def take(axis: int | None, now: jax.Array, before: jax.Array) -> jax.Array:
                return before if axis is None else lax.dynamic_slice_in_dim(now, first, size)

            def put(axis: int | None, now: jax.Array, new: jax.Array) -> jax.Array:
                return new if axis is None else lax.dynamic_update_slice_in_dim(now, new, first, axis=0)

            return map_leaves(put, axes, done, function(map_leaves(take, axes, done, rows), *shared))

        done = lax.fori_loop(0, num_rows // size, lambda i, done: replace_block(i * size, done, size), rows)
        rest = num_rows % size
        return replace_block(num_rows - rest, done, rest) if rest else done

    return over_blocks


def block_size(num_rows: int, block: int) -> int:
    """How many rows a block has: at most `block`, and down to half as many if then all are equal.

    A rest is a program of its own, which takes as long to compile again.

    >>> [block_size(num_rows, 100) for num_rows in (128, 251, 4096)]
    [64, 100, 64]
    """
    return next((size for size in range(block, block // 2, -1) if num_rows % size == 0), block)
