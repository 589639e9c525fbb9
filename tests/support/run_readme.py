"""Runs the console commands and Python examples of the README and of the guides, as they stand there.

The README has an empty folder of its own; the guides share one, in this order: later ones use runs of earlier ones.
Lines of `console` blocks that begin with `$ ` (and go on with `> `) are run by bash, `python` blocks by Python; one
with a title is saved as the file of that name. Blocks marked `sh` and `py` are not run.
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
start training metrics logging resuming agents environments own_environments own_agents comparing exporting
reference_policies functional offline benchmarking
""".split()


def main() -> None:
    """Runs all pages, or those whose names are given."""
    groups = [[ROOT / "README.md"], [ROOT / "docs" / f"{guide}.md" for guide in GUIDES]]
    for page in sorted(set((ROOT / "docs").glob("*.md")) - set(groups[1])):
        if read_examples(page)[1]:
            print(f"{page.name} is not among GUIDES: its examples are not run")
    if sys.argv[1:]:
        groups = [[Path(name).resolve() for name in sys.argv[1:]]]
    print(f"{sum(run_pages(pages) for pages in groups)} examples ran")


def run_pages(pages: Sequence[Path]) -> int:
    """Runs the examples of some pages in one empty folder; how many there were."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            files, commands = read_examples(page)
            if not commands:
                raise SystemExit(f"{page.name} has no examples")
            for name, content in files.items():
                (Path(folder) / name).write_text(content)
            for command in commands:
                start = time.perf_counter()
                print(f"--- {page.name}: {command[-1] if command[0] == 'bash' else 'python example'}", flush=True)
                done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
                if done.returncode:
                    raise SystemExit(f"failed with status {done.returncode}:\n{' '.join(command)}")
                print(f"    {time.perf_counter() - start:.0f} s", flush=True)
            count += len(commands)
    return count


def read_examples(page: Path) -> tuple[dict[str, str], list[list[str]]]:
    """The files of a page, and its commands, as arguments of a process each."""
    files: dict[str, str] = {}
    commands = []
    for fence, text in re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        title = re.search(r'title="(.+?)"', fence)
        if title and "python" in fence:
            snippet = re.fullmatch(r'--8<-- "(.+)"\n', text)
            files[title[1]] = (ROOT / snippet[1]).read_text() if snippet else text
        elif fence == "python":
            commands.append([sys.executable, "-c", text])
        elif fence == "console":
            lines = re.findall(r"^\$ (.*(?:\n> .*)*)", text, re.MULTILINE)
            commands += [["bash", "-e", "-c", line.replace("\n> ", "\n")] for line in lines]
    return files, commands


if __name__ == "__main__":
    main()
