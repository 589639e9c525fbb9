"""Runs the README's console commands and Python examples in an empty folder, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def main() -> None:
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    commands = []
    for language, text in blocks:
        if language == "python":
            commands.append([sys.executable, "-c", text])
        else:
            lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            commands += [[sys.executable, "-m", *line.split()] for line in lines]
    if not commands:
        raise SystemExit("the README has no examples")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            start = time.perf_counter()
            title = command[2] if command[1] == "-m" else "python"
            print(f"--- {' '.join(command[1:]) if title != 'python' else 'python example'}", flush=True)
            done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
            if done.returncode:
                raise SystemExit(f"failed with status {done.returncode}:\n{' '.join(command)}")
            print(f"    {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{len(commands)} README examples ran")


if __name__ == "__main__":
    main()
