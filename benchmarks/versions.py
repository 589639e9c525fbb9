"""Is this version of the project faster than another one? `python benchmarks/versions.py OTHER_TREE`.

OTHER_TREE is a checkout, for example of `git worktree add OTHER_TREE REVISION`. A few programs are compiled and trained
with either tree, each in a process of its own that has the tree on its path; the trees take turns, so that a machine
whose speed drifts drifts for both. Only public names and the command line are used, so that the trees may be laid out
differently. Prints medians over rounds with their spread, and those of the ratio this / other within a round. About
three minutes a round on 2 cores; `--only` measures the programs that have this in their name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rounds import ROOT, alternate, in_words, make_console, make_parser, run_contestant

PENDULUM, CARTPOLE = "gymnax/Pendulum-v1", "gymnax/CartPole-v1"
SMALL = {"hidden_sizes": (64, 64)}
ROLLOUTS = {"num_envs": 16, "rollout_length": 32, "num_epochs": 4, "num_minibatches": 4}


def program(agent: str, env_id: str, num_seeds: int, num_turns: int, per_turn: int = 1, **settings: Any) -> str:
    """One training as the child takes it; a turn is `per_turn` environment steps of a seed, and their updates."""
    num_steps = settings.get("learning_starts", 0) + num_turns * per_turn
    settings = SMALL | settings | {"total_timesteps": num_steps}
    return json.dumps(
        {"agent": agent, "env_id": env_id, "num_seeds": num_seeds, "num_turns": num_turns, "settings": settings}
    )


IMPORT, COMMAND = "import jaxsoft", "jaxsoft train, to its first report"
PROGRAMS = {
    "sac, Pendulum × 8": program("sac", PENDULUM, 8, 4_000, learning_starts=500, batch_size=64, replay_capacity=10_000),
    "soft_q, CartPole × 8": program("soft_q", CARTPOLE, 8, 40, 512, **ROLLOUTS),
    "ppo, Pendulum × 8": program("ppo", PENDULUM, 8, 40, 512, **ROLLOUTS),
    "soft_q_stream, CartPole × 4": program("soft_q_stream", CARTPOLE, 4, 40_000),
    "soft_q_stream, CartPole × 256": program("soft_q_stream", CARTPOLE, 256, 2_000),
    IMPORT: "",
}
PARTS = {IMPORT: ("import, s",), COMMAND: ("first report, s",)}
TRAIN = f"train sac {PENDULUM} --num-seeds 8 --total-timesteps 20000 --eval-every 1000 --out"


def child(name: str, tree: Path) -> list[float]:
    """The times of a program, see `PARTS`, in a process with one of the trees."""
    if name == COMMAND:
        return [start_command(tree)]
    environment = {"PYTHONPATH": str(tree), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    times = run_contestant("jaxsoft_version.py", str(tree), PROGRAMS[name], **environment)
    return list(times.values())


def start_command(tree: Path) -> float:
    """Seconds from the start of `jaxsoft train` to its first report, without a compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        environment = os.environ | {"PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        command = [sys.executable, "-m", "jaxsoft", *TRAIN.split(), str(run)]
        start = time.perf_counter()
        with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL) as process:
            while not (run / "metrics.parquet").exists() and process.poll() is None:
                time.sleep(0.005)
            seconds, is_done = time.perf_counter() - start, process.poll() is not None
            process.kill()
    if is_done:
        raise SystemExit(f"{' '.join(command)} ended before its first report")
    return seconds


def main() -> None:
    parser = make_parser(__doc__, 5)
    parser.add_argument("other", type=Path, help="a checkout of another version")
    parser.add_argument("--only", default="", help="part of a program's name")
    options = parser.parse_args()
    trees = {"this": ROOT, "other": options.other.resolve()}
    console, table = make_console(), Table(title=f"this tree and {options.other}, rounds: {options.rounds}")
    for column in ("program", "time", *trees, "this / other"):
        table.add_column(column, justify="left" if column in ("program", "time") else "right")
    for name in [name for name in (*PROGRAMS, COMMAND) if options.only in name]:
        children = {tree: partial(child, name, path) for tree, path in trees.items()}
        this, other = alternate(children, options.rounds).values()
        for i, part in enumerate(PARTS.get(name, ("compilation, s", "a turn, ms"))):
            row = (in_words(this[:, i], ".3g"), in_words(other[:, i], ".3g"), in_words(this[:, i] / other[:, i]))
            table.add_row(name if i == 0 else "", part, *row)
            console.print(f"{name}, {part}: {', '.join(row)}")
    console.print(table)


if __name__ == "__main__":
    main()
