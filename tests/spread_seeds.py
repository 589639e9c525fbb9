"""Trains seeds on a device for each core and prints, as JSON, how they were divided; `test_devices` starts it.

Usage: `python spread_seeds.py NUM_SEEDS`.
"""

import json
import sys

import jax
import numpy as np

import jaxsoft


def main(num_seeds: int) -> None:
    jaxsoft.use_all_cores()
    train = jaxsoft.make_train(
        "soft_q_stream",
        jaxsoft.make_env("finite/Chain-5"),
        total_timesteps=80,
        hidden_sizes=(8,),
        eval_every=40,
        eval_episodes=2,
    )
    keys = jax.random.split(jax.random.key(0), num_seeds)
    states, metrics = jaxsoft.spread(train)(keys)
    devices = len(jax.tree.leaves(states)[0].sharding.device_set)
    _, alone = jax.jit(jax.vmap(train))(keys)
    errors = [np.max(np.abs(metrics[name] - alone[name]) / (1 + np.abs(alone[name]))) for name in alone]
    print(json.dumps({"local_devices": len(jax.local_devices()), "devices": devices, "error": float(max(errors))}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
