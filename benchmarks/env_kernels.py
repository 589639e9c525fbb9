"""Kernels of an environment's step, compiled for a chip: `python benchmarks/env_kernels.py mjx/Hopper-v5 brax/hopper`.

A step of `--num-envs` environments at once, without the restart. Loops count as often as they go round, those whose
rounds the compiler does not know once. Needs the chip's compiler, not the chip: see `jaxsoft/bench/chips.py`.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

import jaxsoft
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import Cost, program_cost


def step_cost(env_id: str, num_envs: int, chip: str) -> Cost:
    """The cost of one step of `num_envs` environments."""
    env, place = jaxsoft.make_env(env_id), SingleDeviceSharding(chips(chip)[0])
    keys = jax.eval_shape(jax.vmap(jax.random.key), np.arange(num_envs))
    space = env.spec.action_space
    actions = jax.ShapeDtypeStruct((num_envs, *space.shape), space.dtype)
    arguments = keys, jax.eval_shape(jax.vmap(env.reset), keys)[0], actions
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments)
    return program_cost(jax.jit(jax.vmap(env.step)).lower(*placed).compile().as_text() or "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--chip", default=H100)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {arguments.num_envs} environments, {arguments.chip}")
    for env_id in arguments.envs:
        cost = step_cost(env_id, arguments.num_envs, arguments.chip)
        unknown = sum(loop.num_rounds is None for loop in cost.loops)
        print(f"{env_id:32}{cost.kernels.total():7} kernels, {unknown} loops of unknown length", flush=True)


if __name__ == "__main__":
    main()
