"""SAC on Pendulum-v1 with jaxsoft: compiles, trains twice, prints one JSON line."""

import json
import sys
import time

import jax
import jax.numpy as jnp

import jaxsoft


def main(num_seeds: int, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    env = jaxsoft.make_env("gymnax/Pendulum-v1")
    train = jaxsoft.make_train(
        "sac",
        env,
        total_timesteps=500 + num_updates,
        learning_starts=500,
        learning_rate=1e-3,
        hidden_sizes=(hidden, hidden),
        batch_size=batch_size,
        replay_capacity=replay_capacity,
        eval_every=0,
    )
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    start = time.perf_counter()
    lowered = jax.jit(jax.vmap(train)).lower(keys)
    traced = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - traced
    speeds = []
    for _ in range(2):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(keys))
        speeds.append(num_seeds * num_updates / (time.perf_counter() - begin))
    print(json.dumps({"trace": traced - start, "compile": compile_seconds, "steps_per_second": max(speeds)}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
