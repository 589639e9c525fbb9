"""From the start of the process to the first training step of 8 SAC seeds; one JSON line."""

import gc
import json
import time

process_start = time.perf_counter()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from jaxsoft.config import make_config  # noqa: E402
from jaxsoft.envs import make_env  # noqa: E402
from jaxsoft.sweep import make_sweep, seed_keys  # noqa: E402
from jaxsoft.training import make_trainer  # noqa: E402


def main() -> None:
    gc.freeze()  # as the command does
    imported = time.perf_counter()
    env = make_env("gymnax/Pendulum-v1")
    sweep = make_sweep(make_trainer("sac", env, make_config("sac", env.spec.id, {})))
    state = sweep.init(seed_keys(np.arange(8, dtype=np.int32)))
    jax.block_until_ready(sweep.advance(state, np.int32(1)))
    now = time.perf_counter()
    print(json.dumps({"import": imported - process_start, "first_step": now - process_start}))


if __name__ == "__main__":
    main()
