"""Runs the console commands and Python examples of the README and of the guides, as they stand there.

The README has an empty folder of its own; the guides share one, in this order: later ones use runs of earlier ones.
Blocks marked `console` and `python` are run, those marked `sh` and `py` are not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = """
start training metrics logging resuming agents environments reference_policies functional offline benchmarking
""".split()


def main() -> None:
    """Runs all pages, or those whose names are given."""
    groups = [[ROOT / "README.md"], [ROOT / "docs" / f"{guide}.md" for guide in GUIDES]]
    for page in sorted(set((ROOT / "docs").glob("*.md")) - set(groups[1])):
        if read_commands(page):
            print(f"{page.name} is not among GUIDES: its examples are not run")
    if sys.argv[1:]:
        groups = [[Path(name).resolve() for name in sys.argv[1:]]]
    print(f"{sum(run_pages(pages) for pages in groups)} examples ran")


def run_pages(pages: Sequence[Path]) -> int:
    """Runs the examples of some pages in one empty folder; how many there were."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            commands = read_commands(page)
            if not commands:
                raise SystemExit(f"{page.name} has no examples")
            for command in commands:
                start = time.perf_counter()
                title = " ".join(command[1:]) if command[1] == "-m" else "python example"
                print(f"--- {page.name}: {title}", flush=True)
                done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
                if done.returncode:
                    raise SystemExit(f"failed with status {done.returncode}:\n{' '.join(command)}")
                print(f"    {time.perf_counter() - start:.0f} s", flush=True)
            count += len(commands)
    return count


def read_commands(page: Path) -> list[list[str]]:
    """The commands of a page, as arguments of a process each."""
    commands = []
    for language, text in re.findall(r"^```(console|python)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if language == "python":
            commands.append([sys.executable, "-c", text])
        else:
            lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            commands += [[sys.executable, "-m", *line.split()] for line in lines]
    return commands


if __name__ == "__main__":
    main()
