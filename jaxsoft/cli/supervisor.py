"""What stands over a process of a distributed run, to say in one line why it ended.

Where another process of the run dies, JAX ends this one from outside of Python, with a page of C++: nothing in the
process itself could say what to do now.
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
def supervised(argv: list[str], options: HostOptions) -> Iterator[Hosts]:
    """Joins the other processes of a distributed run, in a child of this process that runs the same command.

    Raises:
        Stopped: in the parent, when the child has ended.
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
