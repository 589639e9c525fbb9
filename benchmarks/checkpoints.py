"""What do checkpoints cost? `python benchmarks/checkpoints.py`, about three minutes a round on 2 cores.

SAC on Pendulum, 8 seeds, one every 10,000 steps or none: the same compiled program, trained in turns.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
from rounds import alternate, make_parser

import jaxsoft
from jaxsoft.runs import directory
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import train_run
from jaxsoft.runs.plan import plan_run
from jaxsoft.training.config import make_config

ENV = "gymnax/Pendulum-v1"
STEPS = 30_000


def main() -> None:
    rounds = make_parser(__doc__, 5).parse_args().rounds
    settings = {"total_timesteps": STEPS, "eval_every": 0, "replay_capacity": 100_000}
    config = RunConfig(ENV, make_config("sac", ENV, settings), num_seeds=8, checkpoint_every=0)
    plan = plan_run(config, jaxsoft.make_env(ENV), config.train)
    programs = plan.programs()

    def seconds(checkpoint_every: int) -> float:
        this = dataclasses.replace(plan.config, checkpoint_every=checkpoint_every)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            directory.create(path, this)
            slices = train_run(path, plan._replace(config=this), programs)
            next(slices)  # the first compiles
            began = time.perf_counter()
            for _ in slices:
                pass
            return time.perf_counter() - began

    seconds(0)
    without, saving = alternate({"without": lambda: seconds(0), "with": lambda: seconds(10_000)}, rounds).values()
    cost = np.median(saving) / np.median(without) - 1
    print(f"without checkpoints      {np.median(without):.1f} s (median of {rounds})")
    print(f"one every 10,000 steps   {np.median(saving):.1f} s, {cost:+.1%} (wanted: below 3 %)")
    print("each round               " + ", ".join(f"{x:+.1%}" for x in saving / without - 1))


if __name__ == "__main__":
    main()
