"""Kernels of an environment's step, compiled for a chip: `python benchmarks/env_kernels.py mjx/Hopper-v5 brax/hopper`.

A step of `--num-envs` environments at once, without the restart. Loops count as often as they go round, those whose
rounds the compiler does not know once. Needs the chip's compiler, not the chip: see `jaxsoft/bench/chips.py`. With
`--here` the step is compiled for the present device, and timed there.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

import jaxsoft
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import program_cost

NUM_STEPS = 20
"""Of which the median is told."""


def step_arguments(env: jaxsoft.Env, num_envs: int) -> tuple[Any, Any, Any]:
    """Keys, states and actions of one step, as shapes."""
    keys = jax.eval_shape(jax.vmap(jax.random.key), np.arange(num_envs))
    space = env.spec.action_space
    actions = jax.ShapeDtypeStruct((num_envs, *space.shape), space.dtype)
    return keys, jax.eval_shape(jax.vmap(env.reset), keys)[0], actions


def in_words(env_id: str, num_envs: int, chip: str) -> str:
    """Kernels of a step compiled for a chip."""
    env, place = jaxsoft.make_env(env_id), SingleDeviceSharding(chips(chip)[0])
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), step_arguments(env, num_envs)
    )
    cost = program_cost(jax.jit(jax.vmap(env.step)).lower(*placed).compile().as_text() or "")
    unknown = sum(loop.num_rounds is None for loop in cost.loops)
    return f"{cost.num_kernels:7} kernels, {unknown} loops of unknown length"


def in_seconds(env_id: str, num_envs: int) -> str:
    """How long the present device takes to compile a step, and for a step of each environment."""
    env = jaxsoft.make_env(env_id)
    arguments = step_arguments(env, num_envs)
    began = time.perf_counter()
    step = jax.jit(jax.vmap(env.step)).lower(*arguments).compile()
    compiled, times = time.perf_counter() - began, []
    keys = jax.vmap(jax.random.key)(np.arange(num_envs))
    state, actions = jax.vmap(env.reset)(keys)[0], np.zeros(arguments[2].shape, arguments[2].dtype)
    for _ in range(NUM_STEPS):
        began = time.perf_counter()
        state = jax.block_until_ready(step(keys, state, actions))[0]
        times.append(time.perf_counter() - began)
    return f"{compiled:6.0f} s to compile, {1e3 * np.median(times) / num_envs:.2f} ms a step of one environment"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--chip", default=H100)
    parser.add_argument("--here", action="store_true", help="on the present device")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    place = jax.devices()[0].device_kind if arguments.here else arguments.chip
    print(f"jax {jax.__version__}, {arguments.num_envs} environments, {place}")
    for env_id in arguments.envs:
        if arguments.here:
            told = in_seconds(env_id, arguments.num_envs)
        else:
            told = in_words(env_id, arguments.num_envs, arguments.chip)
        print(f"{env_id:32}{told}", flush=True)


if __name__ == "__main__":
    main()
