"""SAC on Pendulum-v1 with rejax 0.1.3 and gymnax 0.0.9: compiles, trains twice, prints one JSON line."""

import json
import sys
import time

import jax
from rejax import SAC  # type: ignore[import-not-found]


def main(num_seeds: int, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    total = 500 + num_updates
    algorithm = SAC.create(
        env="Pendulum-v1",
        hidden_layer_sizes=(hidden, hidden),
        learning_rate=1e-3,
        num_envs=1,
        num_epochs=1,
        batch_size=batch_size,
        buffer_size=replay_capacity,
        fill_buffer=500,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
    ).replace(eval_callback=lambda *_: ())
    keys = jax.random.split(jax.random.PRNGKey(0), num_seeds)
    start = time.perf_counter()
    lowered = jax.jit(jax.vmap(algorithm.train)).lower(keys)
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
