"""Trains every agent for a moment, through the command line: `python tests/support/train_each_agent.py`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from jaxsoft.agents import AGENTS
from jaxsoft.cli import main
from jaxsoft.training.config import setting_types
from jaxsoft.types import Box

STEPS = 2_000


def train_each_agent(folder: Path) -> None:
    """Trains and evaluates two seeds of every agent."""
    for name, agent in AGENTS.items():
        env_id = "gymnax/Pendulum-v1" if Box in agent.action_spaces else "gymnax/CartPole-v1"
        small = {"hidden_sizes": "16", "batch_size": "32", "learning_starts": "100", "replay_capacity": "1000"}
        settings = {setting: value for setting, value in small.items() if setting in setting_types(agent)}
        options = [text for setting, value in settings.items() for text in (f"--agent.{setting}", value)]
        steps = ["--total-timesteps", str(STEPS), "--eval-every", str(STEPS), "--num-seeds", "2"]
        run = str(folder / name)
        for command in (["train", name, env_id, *steps, *options, "--out", run], ["eval", run, "--num-episodes", "2"]):
            status = main(command)
            if status:
                sys.exit(f"jaxsoft {' '.join(command)} ended with status {status}")
    print(f"{len(AGENTS)} agents trained")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train_each_agent(Path(folder))
