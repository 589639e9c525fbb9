"""The command line: `jaxsoft train | extend | eval | plot | tabular | list`, one module for each command."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

import jax

import jaxsoft
from jaxsoft.cli.eval import eval_command
from jaxsoft.cli.list import list_command
from jaxsoft.cli.plot import plot_command
from jaxsoft.cli.tabular import tabular_command
from jaxsoft.cli.train import extend_command, train_command
from jaxsoft.devices import use_all_cores
from jaxsoft.errors import InputError, Stopped, nearest

USAGE = """\
usage: jaxsoft COMMAND ...

  train AGENT ENV [options]   train many seeds at once; writes a run directory
  train --resume RUN          go on with a run that was cut short
  extend RUN --total-timesteps N
                              train a run further
  eval RUN [options]          play episodes with a run's trained policies
  plot RUN [RUN ...]          draw the learning curves of one or more runs
  tabular METHOD ENV ...      solve a finite MDP, or learn it with many seeds; writes a run folder
  list                        agents and environments

`jaxsoft COMMAND --help` shows a command's options.
"""


COMMANDS = {
    "train": train_command,
    "extend": extend_command,
    "eval": eval_command,
    "plot": plot_command,
    "tabular": tabular_command,
    "list": list_command,
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 2 after one line about what was wrong with the input."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if argv[0] == "--version":
            print(f"jaxsoft {jaxsoft.__version__}")
            return 0
        if argv[0] not in COMMANDS:
            raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)} ({', '.join(COMMANDS)})")
        _cache_compiled_programs()
        use_all_cores()
        COMMANDS[argv[0]](argv[1:])
    except InputError as error:
        print(f"jaxsoft: error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"jaxsoft: {stopped}", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print("jaxsoft: interrupted", file=sys.stderr)
        return 130
    return 0


def script() -> NoReturn:
    """The `jaxsoft` script."""
    gc.freeze()  # what the imports made stays: not looked at again whenever garbage is collected, as tracing does often
    sys.exit(main())


def _cache_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that the same command starts at once the next time."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxsoft"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
