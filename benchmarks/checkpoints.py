"""What checkpoints cost: SAC on Pendulum, 8 seeds, one every 10,000 steps or none: `python benchmarks/checkpoints.py`.

Both are the same compiled program, trained in turns; about three minutes a round on 2 cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

import jaxsoft
from jaxsoft.runs import directory
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import train_run
from jaxsoft.runs.plan import plan_run
from jaxsoft.training.config import make_config

ENV = "gymnax/Pendulum-v1"
STEPS = 30_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
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
    times = np.array([[seconds(0), seconds(10_000)] for _ in range(rounds)])
    without, with_checkpoints = np.median(times, axis=0)
    print(f"without checkpoints      {without:.1f} s (median of {rounds})")
    print(
        f"one every 10,000 steps   {with_checkpoints:.1f} s, {with_checkpoints / without - 1:+.1%} (wanted: below 3 %)"
    )
    print("each round               " + ", ".join(f"{b / a - 1:+.1%}" for a, b in times))


if __name__ == "__main__":
    main()
