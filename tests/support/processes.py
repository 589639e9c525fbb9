"""Real processes of the command line, for tests that kill them or run several."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from jaxsoft.runs import directory

KILL_AT = Path(__file__).with_name("kill_at.py")


class Shell:
    """Starts the command line in processes of its own, in this one's environment and what is given."""

    def __init__(self, **environment: str) -> None:
        self.environment = os.environ | environment
        self.environment["PYTHONPATH"] = os.pathsep.join([str(KILL_AT.parents[2]), os.environ.get("PYTHONPATH", "")])

    def start(self, *arguments: str, kill_at: tuple[str, int] | None = None) -> subprocess.Popen:
        program = [str(KILL_AT), kill_at[0], str(kill_at[1])] if kill_at else ["-m", "jaxsoft"]
        return subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, kill_at: tuple[str, int] | None = None) -> tuple[int, str]:
        """Its exit status, and what it said was wrong."""
        process = self.start(*arguments, kill_at=kill_at)
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors


def wait_for_writing(process: subprocess.Popen, path: Path) -> None:
    """Until the process begins to write another checkpoint, or ends."""
    folder = path / directory.CHECKPOINTS
    before = set(folder.glob("*/*0*"))
    while process.poll() is None and not set(folder.glob("*/*0*")) - before:
        time.sleep(0.01)
