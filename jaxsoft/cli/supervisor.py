"""A parent process for each process of a distributed run, which says in one line why its child ended.

Where another process of the run dies, JAX ends the child from outside of Python, with a page of C++; the child itself
cannot say what to do then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from jaxsoft.cli import imports
from jaxsoft.errors import Stopped
from jaxsoft.fleet.hosts import HostOptions, Hosts, join

CHILD = "JAXSOFT_SUPERVISED"
"""Set in the environment of the process that does the work."""


@contextlib.contextmanager
def supervise(argv: list[str], options: HostOptions) -> Iterator[Hosts]:
    """Runs the same command in a child process, which joins the other processes of the run.

    Raises:
        Stopped: in the parent, when the child was ended.
    """
    if options.distributed and CHILD not in os.environ:
        _run_child(argv)
    yield join(options)


def _run_child(argv: list[str]) -> None:
    own_code = [f"{imports.OPTION}={name}" for name in imports.given]
    child = subprocess.Popen([sys.executable, "-m", "jaxsoft", *own_code, *argv], env=os.environ | {CHILD: "1"})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: child.send_signal(number))
    status = child.wait()
    if status == -signal.SIGABRT:
        raise Stopped(
            "another process of this run has ended, and so this one was ended, too. When all have, go on from the "
            "newest checkpoints, with any number of processes: jaxsoft train --resume RUN --distributed",
            1,
        )
    sys.exit(status if status >= 0 else 128 - status)
