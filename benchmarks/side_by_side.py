"""Contestants side by side, in one run: what the comparisons with peers share.

Every contestant is a process of its own, in a virtual environment of its own (made in `.peers/`), and the contestants
take turns, so that a machine whose speed drifts drifts for all. The table shows the median over rounds, the spread, and
the ratio ours / theirs round by round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rounds import alternate, in_words

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = Path(__file__).resolve().parent / "contestants"
PEERS = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9"],
    "stable": ["torch==2.13.0", "stable-baselines3", "sbx-rl"],
    "brax": ["brax==0.14.2", "jax==0.7.2", "jaxlib==0.7.2"],
}


class Contestant(NamedTuple):
    """One way to do a setting: a script of `contestants/`, in a peer's virtual environment.

    Attributes:
        peer: `jaxsoft`, or a name of `PEERS`.
        script: prints one JSON line, in it `steps_per_second`.
        arguments: of the script.
        wanted: the ratio ours / theirs that is aimed at; None for ours.
    """

    peer: str
    script: str
    arguments: tuple[str | int, ...]
    wanted: float | None = None


class Setting(NamedTuple):
    """One row of a comparison: contestants by name, among them `jaxsoft`."""

    name: str
    contestants: dict[str, Contestant]


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


def run_contestant(contestant: Contestant, **environment: str) -> dict[str, float]:
    """Runs one contestant once; the JSON it prints."""
    command = [str(python_of(contestant.peer)), str(CONTESTANTS / contestant.script), *map(str, contestant.arguments)]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | environment, cwd=CONTESTANTS)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(title: str, settings: list[Setting], rounds: int, console: Console) -> dict[str, np.ndarray]:
    """Measures all settings and prints the table; our speeds by setting, [rounds]."""
    table = Table(title=f"{title}, environment steps per second of all seeds, {rounds} rounds")
    for column in ("setting", "contestant", "median", "min – max", "ours / theirs", "wanted"):
        table.add_column(column, justify="left" if column in ("setting", "contestant") else "right")
    ours: dict[str, np.ndarray] = {}
    for setting in settings:

        def speed(name: str, setting: Setting = setting) -> float:
            measured = run_contestant(setting.contestants[name])["steps_per_second"]
            console.print(f"{setting.name}: {name} {measured:,.0f}")
            return measured

        speeds = alternate({name: partial(speed, name) for name in setting.contestants}, rounds)
        ours[setting.name] = speeds["jaxsoft"]
        for name, measured in speeds.items():
            wanted = setting.contestants[name].wanted
            table.add_row(
                setting.name if name == "jaxsoft" else "",
                name,
                f"{np.median(measured):,.0f}",
                f"{min(measured):,.0f} – {max(measured):,.0f}",
                "" if wanted is None else in_words(speeds["jaxsoft"] / measured),
                "" if wanted is None else f"≥ {wanted:g}",
            )
    console.print(table)
    return ours


def make_console() -> Console:
    """Standard output; where it is no terminal, wide enough for the tables."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 130)
