"""SAC side by side with its peers, in one run: `python benchmarks/sac.py`.

Every contestant is a process of its own, in a virtual environment of its own (made in `.peers/`), and the
contestants take turns, so that a machine whose speed drifts drifts for all. A process compiles, then trains
twice and reports the faster; the table shows the median over rounds, the spread, and the ratio ours / theirs
round by round. Needs about 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = Path(__file__).resolve().parent / "contestants"
PEERS = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9"],
    "stable": ["torch==2.13.0", "stable-baselines3", "sbx-rl"],
}


class Setting(NamedTuple):
    """One row of the comparison; `updates` per contestant keep each measurement at a few seconds."""

    name: str
    arguments: tuple[int, ...]  # num_seeds, hidden, batch_size, replay_capacity
    updates: dict[str, int]
    wanted: dict[str, float]


SETTINGS = [
    Setting(
        "1 seed, hidden (256, 256), batch 256, replay 100k",
        (1, 256, 256, 100_000),
        {"jaxsoft": 1500, "rejax": 1500, "sbx": 1000, "sb3": 700},
        {"rejax": 1.4, "sbx": 1.15, "sb3": 2.5},
    ),
    Setting(
        "8 seeds, hidden (64, 64), batch 64, replay 10k",
        (8, 64, 64, 10_000),
        {"jaxsoft": 5000, "rejax": 5000},
        {"rejax": 1.5},
    ),
    Setting(
        "8 seeds, hidden (64, 64), batch 64, replay 1M",
        (8, 64, 64, 1_000_000),
        {"jaxsoft": 5000, "rejax": 250},
        {"rejax": 25.0},
    ),
]


def python_of(peer: str) -> Path:
    """The interpreter of a peer's virtual environment, which is made if it is not there."""
    if peer == "jaxsoft":
        return Path(sys.executable)
    folder = ROOT / ".peers" / peer
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {', '.join(PEERS[peer])} …", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
        (folder / "installed").touch()
    return python


def measure(contestant: str, setting: Setting) -> dict[str, float]:
    """Runs one contestant once."""
    updates = str(setting.updates[contestant])
    if contestant in ("sbx", "sb3"):
        script, peer, arguments = "stable_sac.py", "stable", [contestant, *map(str, setting.arguments[1:]), updates]
    else:
        script, peer, arguments = f"{contestant}_sac.py", contestant, [*map(str, setting.arguments), updates]
    return run_script(peer, script, arguments)


def run_script(peer: str, script: str, arguments: list[str], **environment: str) -> dict[str, float]:
    command = [str(python_of(peer)), str(CONTESTANTS / script), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | environment, cwd=CONTESTANTS)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(settings: list[Setting], rounds: int, console: Console) -> None:
    """Measures all settings and prints the table."""
    table = Table(title=f"SAC on Pendulum-v1, environment steps per second of all seeds, {rounds} rounds")
    for column in ("setting", "contestant", "median", "min – max", "ours / theirs", "wanted"):
        table.add_column(column, justify="left" if column in ("setting", "contestant") else "right")
    ours: dict[str, np.ndarray] = {}
    for setting in settings:
        speeds = {name: [] for name in setting.updates}
        for i in range(rounds):
            for name, measured in speeds.items():
                measured.append(measure(name, setting)["steps_per_second"])
                console.print(f"{setting.name}, round {i + 1}: {name} {measured[-1]:,.0f}")
        ours[setting.name] = np.array(speeds["jaxsoft"])
        for name, measured in speeds.items():
            ratios = ours[setting.name] / np.array(measured)
            theirs = name != "jaxsoft"
            table.add_row(
                "" if theirs else setting.name,
                name,
                f"{np.median(measured):,.0f}",
                f"{min(measured):,.0f} – {max(measured):,.0f}",
                f"{np.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})" if theirs else "",
                f"≥ {setting.wanted[name]:g}" if theirs else "",
            )
    console.print(table)
    if len(settings) == len(SETTINGS):
        small, large = (np.median(ours[setting.name]) for setting in settings[1:])
        console.print(f"our speed with a replay of 1M over that with 10k: {large / small:.2f} (wanted ≥ 0.8)")


def starts(rounds: int, console: Console) -> None:
    """Measures compilation and the time to the first step, without and with the persistent cache."""
    compiled = [measure("jaxsoft", SETTINGS[1]._replace(updates={"jaxsoft": 100}))["compile"] for _ in range(rounds)]
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            environment = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
            cold.append(run_script("jaxsoft", "jaxsoft_start.py", [], **environment)["first_step"])
            warm.append(run_script("jaxsoft", "jaxsoft_start.py", [], **environment)["first_step"])
    table = Table(title=f"starting, seconds, {rounds} rounds, 8 seeds")
    for column in ("what", "median", "min – max", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = [
        ("XLA compilation of the whole program", compiled, "≤ 8"),
        ("process start to first step, cold", cold, ""),
        ("process start to first step, from the cache", warm, "≤ 3"),
    ]
    for what, seconds, wanted in rows:
        table.add_row(what, f"{np.median(seconds):.1f}", f"{min(seconds):.1f} – {max(seconds):.1f}", wanted)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=int, choices=range(len(SETTINGS)), help="one setting by its number")
    parser.add_argument("--skip-starts", action="store_true")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    compare(SETTINGS if options.only is None else [SETTINGS[options.only]], options.rounds, console)
    if not options.skip_starts:
        starts(options.rounds, console)


if __name__ == "__main__":
    main()
