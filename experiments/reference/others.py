"""Stable-Baselines3 on the same tasks with the same settings: seeds side by side, one on each core."""

from __future__ import annotations

import json
import subprocess
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.reference.tasks import Entry
from jaxsoft.cpu import num_cores
from jaxsoft.training.config import settings_of

REQUIREMENTS = ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium[mujoco]==1.3.0")
SCRIPT = Path(__file__).with_name("stable_baselines3_sac.py")
SHARED = ("learning_rate", "discount", "polyak", "batch_size", "replay_capacity", "learning_starts", "hidden_sizes")


def install(folder: Path) -> Path:
    """Makes the library's own environment, if it is not there; its interpreter."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {', '.join(REQUIREMENTS)}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (folder / "installed").touch()
    return python


def train(entry: Entry, folder: Path, should_stop: Callable[[], bool], num_episodes: int) -> bool:
    """Trains the seeds that are missing; whether all came to their end before `should_stop` was true.

    A seed that is cut short goes on from its last evaluation the next time, with other random numbers.

    Raises:
        SystemExit: a seed was trained with other settings, or failed.
    """
    path = folder / entry.name
    path.mkdir(parents=True, exist_ok=True)
    python = install(folder / "stable_baselines3")
    waiting = [seed for seed in range(entry.num_seeds) if not _is_done(entry, path, seed, num_episodes)]
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while (waiting or running) and not should_stop():
            while waiting and len(running) < num_cores():
                seed = waiting.pop(0)
                arguments = json.dumps(_arguments(entry, seed, num_episodes))
                command = [python, SCRIPT, arguments, _file(path, seed)]
                running[seed] = subprocess.Popen(command, start_new_session=True)  # signals are for this process
            time.sleep(1)
            for seed, process in list(running.items()):
                if process.poll() is not None:
                    del running[seed]
                    if process.returncode:
                        raise SystemExit(f"{entry.library}, seed {seed}, ended with status {process.returncode}")
                    print(f"  seed {seed} is done", flush=True)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    if waiting or running:
        print(f"  stopped, {entry.num_seeds - len(waiting) - len(running)} seeds are done", flush=True)
    return not (waiting or running)


def _file(path: Path, seed: int) -> Path:
    return path / f"seed_{seed}.json"


def _is_done(entry: Entry, path: Path, seed: int, num_episodes: int) -> bool:
    file = _file(path, seed)
    if not file.exists():
        return False
    if json.loads(file.read_text())["arguments"] != _arguments(entry, seed, num_episodes):
        raise SystemExit(f"{file} was trained with other settings: remove it")
    return True


def _arguments(entry: Entry, seed: int, num_episodes: int) -> dict[str, Any]:
    config = entry.config.train
    settings = {name: x for name, x in settings_of(config).items() if name in SHARED}
    return json.loads(json.dumps(settings)) | {  # as they are read again
        "env_id": entry.env_id.partition("/")[2],
        "seed": seed,
        "total_timesteps": config.total_timesteps,
        "eval_every": config.eval_every,
        "eval_episodes": config.eval_episodes,
        "final_episodes": num_episodes,
    }


def read(entry: Entry, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """What each seed has written."""
    for seed in range(entry.num_seeds):
        yield seed, json.loads(_file(folder / entry.name, seed).read_text())
