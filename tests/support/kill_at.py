"""The command line in a process that kills itself: `python kill_at.py WHEN N ARGUMENTS...`.

WHEN is `before` or `after` the N-th renaming of a file or folder, or `half`-way through the N-th file written. At these
moments something half done could be left behind: metrics, manifests, checkpoints coming and going.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jaxsoft.cli import main
from jaxsoft.reports import plots
from jaxsoft.runs import files, manifest, results, tables


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(when: str, number: int) -> None:
    """Replaces what writes by what dies at the given moment."""
    counter = itertools.count(1)

    def replace(source: Any, target: Any) -> None:
        is_it = next(counter) == number
        if is_it and when == "before":
            die()
        os.replace(source, target)
        if is_it and when == "after":
            die()

    def write(path: Path, content: bytes) -> None:
        if next(counter) == number:
            path.with_name(files.PARTIAL + path.name).write_bytes(content[: len(content) // 2])
            die()
        files.write_atomically(path, content)

    modules: tuple[Any, ...] = (manifest, results, tables, plots)
    if when == "half":
        for module in modules:
            module.write_atomically = write
    else:
        patched: Any = files
        patched.os = SimpleNamespace(**{**vars(os), "replace": replace})


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
