"""What do the presets reach? The table of returns in docs/results.md: trains them and judges the final policies.

    python benchmarks/learning.py runs/learning                 # an hour on 2 cores; what is there is not redone
    python benchmarks/learning.py runs/learning --long          # Brax's hopper and MinAtar, too: three hours
    python benchmarks/learning.py runs/learning --only ppo      # rows whose agent or environment has this in its name

Prints the table's rows as they are made: IQM of the final policies' mean returns over 100 episodes each from starts of
their own, with its 95 % interval, or with minimum and maximum of fewer than 5 seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One row: what is trained, and how it is judged."""

    agent: str
    env: str
    num_seeds: int = 8
    train: str = ""
    eval: str = ""
    is_long: bool = False


FIXED = "--agent.temperature 0.2 --agent.learn-temperature false"

ROWS = [
    Row("sac", "gymnax/Pendulum-v1"),
    Row("sac_v1", "gymnax/Pendulum-v1", train="--agent.temperature 0.2"),
    Row("sac", "gymnax/Pendulum-v1", train=FIXED),
    Row("td3", "gymnax/Pendulum-v1"),
    Row("ddpg", "gymnax/Pendulum-v1"),
    Row("ppo", "gymnax/Pendulum-v1"),
    Row("sac", "gymnax/MountainCarContinuous-v0"),
    Row("sac_v1", "gymnax/MountainCarContinuous-v0"),
    Row("td3", "gymnax/MountainCarContinuous-v0"),
    Row("ddpg", "gymnax/MountainCarContinuous-v0"),
    Row("ppo", "gymnax/MountainCarContinuous-v0"),
    Row("ppo", "gymnax/CartPole-v1"),
    Row("sac_discrete", "gymnax/CartPole-v1"),
    Row("sac_discrete", "gymnax/Acrobot-v1"),
    Row("soft_q", "gymnax/CartPole-v1", 16),
    Row("soft_q", "gymnax/Acrobot-v1", 16),
    Row("soft_q", "gymnax/MountainCar-v0", 16),
    Row("soft_q_replay", "gymnax/CartPole-v1"),
    Row("soft_q_stream", "gymnax/CartPole-v1", 32),
    Row("sac_stream", "gymnax/Pendulum-v1"),
    Row("sac", "brax/inverted_pendulum"),
    Row("sac", "mjx/Hopper-v5", 4, eval="--num-episodes 20"),
    Row("sac", "mjx/Hopper-v5", 4, eval="--num-episodes 20 --env gymnasium/Hopper-v5"),
    Row("soft_q", "gymnax/SpaceInvaders-MinAtar", is_long=True),
    Row("soft_q", "gymnax/Freeway-MinAtar", is_long=True),
    Row("soft_q", "gymnax/Breakout-MinAtar", is_long=True),
    Row("soft_q", "gymnax/Asterix-MinAtar", is_long=True),
    Row("sac", "brax/hopper", is_long=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--long", action="store_true", help="the rows that take long, too")
    parser.add_argument("--only", default="", help="part of the names of an agent or an environment")
    options = parser.parse_args()
    for row in ROWS:
        if options.only in f"{row.agent} {row.env}" and (options.long or not row.is_long):
            print(measure(row, options.folder), flush=True)


def measure(row: Row, folder: Path) -> str:
    """Trains a row's agents, if that has not been done, and judges them."""
    run = folder / f"{row.agent}-{row.env.split('/')[-1]}{'-fixed' if row.train == FIXED else ''}"
    if not (run / "learning_curve.png").exists():
        is_begun = (run / "config.json").exists()
        new = f"{row.agent} {row.env} --num-seeds {row.num_seeds} {row.train} --out {run}"
        jaxsoft(f"train --resume {run}" if is_begun else f"train {new}")
    answer = json.loads(jaxsoft(f"eval {run} --json {row.eval}"))
    ends = "({} – {})" if "min_max" in answer else "[{}, {}]"
    numbers = [number(x) for x in (answer["iqm"], *answer.get("min_max", answer.get("iqm_interval")))]
    failed = f", {len(answer['failed'])} failed" if answer["failed"] else ""
    told = " ".join(part for part in (row.train, row.eval) if part)
    steps = f"{max(answer['timestep']):,}"
    return (
        f"| `{row.agent}`{f', `{told}`' if told else ''} | `{row.env}` | {row.num_seeds}{failed} | {steps} | "
        f"{numbers[0]} {ends.format(*numbers[1:])} |"
    )


def number(x: float | None) -> str:
    return "−∞" if x is None else f"{x:.1f}".replace("-", "−")


def jaxsoft(command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jaxsoft", *command.split()], check=True, stdout=subprocess.PIPE
    ).stdout.decode()


if __name__ == "__main__":
    main()
