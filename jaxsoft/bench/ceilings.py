"""Ceilings of the devices, measured: products of matrices, copies, kernels that do nearly nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxsoft.bench.clock import Effort, Spread, measure_rate
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.cpu import compiler_options
from jaxsoft.fleet.devices import ALONG_SEEDS, on_each, seed_mesh

Arrays = tuple[jax.Array, ...]

CHAIN = 64
"""Small products in one round of the loop that times kernels."""


class Sizes(NamedTuple):
    """How much work is in one round, for each device.

    Attributes:
        product: n of products [n, n] × [n, n].
        copied: bytes that are read, and as many written.
    """

    product: int
    copied: int


def sizes_for(platform: str) -> Sizes:
    """Sizes that no cache holds, and that take a round a few milliseconds at least."""
    return Sizes(1024, 128 << 20) if platform == "cpu" else Sizes(8192, 1 << 30)


def default_product(platform: str) -> str:
    """The ceiling that products of float32 have at JAX's default precision."""
    return {"cpu": "float32", "tpu": "bfloat16"}.get(platform, "tf32")


def measure_ceilings(devices: Sequence[Any], effort: Effort, sizes: Sizes | None = None) -> dict[str, Spread]:
    """Ceilings of all devices together, which are of one kind, by name; `sizes` are by default those for the kind.

    Returns:
        `float32`, `bfloat16` and, on GPUs, `tf32`: floating-point operations per second of large products. `copy`:
        bytes per second, read and written. `kernels`: per second, one after the other, of one device.
    """
    size, copied = sizes or sizes_for(devices[0].platform)
    flops = len(devices) * 2 * size**3
    products = {"float32": (jnp.float32, "highest"), "bfloat16": (jnp.bfloat16, "default")}
    if default_product(devices[0].platform) == "tf32":
        products["tf32"] = (jnp.float32, "default")
    factor = np.random.default_rng(0).standard_normal((size, size), np.float32) / np.float32(size**0.5)
    ceilings = {}
    for name, (dtype, precision) in products.items():

        def multiply(factor: jax.Array, x: jax.Array, precision: str = precision) -> Arrays:
            return factor, jnp.matmul(factor, x, precision=precision)

        start = (factor.astype(dtype),) * 2
        ceilings[name] = _rounds_per_second(multiply, start, devices, effort)[0].times(flops)
    rate, _ = _rounds_per_second(lambda x: (x + 1,), (np.zeros(copied // 4, np.float32),), devices, effort)
    ceilings["copy"] = rate.times(len(devices) * 2 * copied)
    rate, hlo = _rounds_per_second(_small_products, (np.full(4, 0.5, np.float32),), devices[:1], effort)
    ceilings["kernels"] = rate.times(turn_cost(hlo).num_kernels)
    return ceilings


def _small_products(x: jax.Array) -> Arrays:
    """A chain of kernels that do nearly nothing; XLA fuses products on no CPU, and on no GPU across a barrier."""
    for _ in range(CHAIN):
        x = jax.lax.optimization_barrier(jnp.outer(x, x) @ x)  # x · x is 1: the numbers stay
    return (x,)


def _rounds_per_second(
    function: Callable[..., Arrays], start: tuple[np.ndarray, ...], devices: Sequence[Any], effort: Effort
) -> tuple[Spread, str]:
    """How often every device applies a function to its own arrays, each application to the last; and the program."""

    def loop(arrays: Arrays, num_rounds: jax.Array) -> Arrays:
        own = tuple(x[0] for x in arrays)
        return tuple(x[None] for x in jax.lax.fori_loop(0, num_rounds, lambda _, own: function(*own), own))

    sharding = NamedSharding(seed_mesh(devices), ALONG_SEEDS)
    arrays = jax.device_put([np.stack([x] * len(devices)) for x in start], sharding)
    loop = on_each(devices, loop, (ALONG_SEEDS, PartitionSpec()), ALONG_SEEDS)
    program = jax.jit(loop, donate_argnums=0, compiler_options=compiler_options(devices))
    compiled = program.lower(tuple(arrays), np.int32(1)).compile()

    def call(num_rounds: int) -> None:
        nonlocal arrays
        arrays = jax.block_until_ready(compiled(tuple(arrays), np.int32(num_rounds)))

    rate, _ = measure_rate(call, effort)
    return rate, compiled.as_text() or ""
