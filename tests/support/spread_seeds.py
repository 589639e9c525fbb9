"""Divides seeds among devices, one for each core, and prints, as JSON, how; `test_devices` starts it.

Usage: `python spread_seeds.py {train,draw} NUM_SEEDS`: the seeds train an agent, or draw some numbers.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxsoft


def trained(key: jax.Array) -> dict[str, jax.Array]:
    env = jaxsoft.make_env("finite/Chain-5")
    settings: dict[str, Any] = {"total_timesteps": 80, "hidden_sizes": (8,), "eval_every": 40, "eval_episodes": 2}
    return jaxsoft.make_train("soft_q_stream", env, **settings)(key)[1]


def drawn(key: jax.Array) -> dict[str, jax.Array]:
    return {"drawn": jax.random.normal(key, (3,))}


def main(of_key: Callable[[jax.Array], dict[str, jax.Array]], num_seeds: int) -> None:
    jaxsoft.use_all_cores()
    keys = jax.random.split(jax.random.key(0), num_seeds)
    found, alone = jaxsoft.spread(of_key)(keys), jax.jit(jax.vmap(of_key))(keys)
    devices = len(jax.tree.leaves(found)[0].sharding.device_set)
    numbers, others = ({name: np.asarray(x, np.float64) for name, x in some.items()} for some in (found, alone))
    errors = [np.max(np.abs(numbers[name] - x) / (1 + np.abs(x))) for name, x in others.items()]
    print(json.dumps({"local_devices": len(jax.local_devices()), "devices": devices, "error": float(max(errors))}))


if __name__ == "__main__":
    main({"train": trained, "draw": drawn}[sys.argv[1]], int(sys.argv[2]))
