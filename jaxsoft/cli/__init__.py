"""The command line: `jaxsoft COMMAND ...`, one module for each command."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax

import jaxsoft
from jaxsoft.cli.bench import bench_command
from jaxsoft.cli.compare import compare_command
from jaxsoft.cli.console import close_output, prepare_streams, takes_text
from jaxsoft.cli.eval import eval_command
from jaxsoft.cli.export import export_command
from jaxsoft.cli.imports import import_all, split_imports
from jaxsoft.cli.list import list_command
from jaxsoft.cli.plot import plot_command
from jaxsoft.cli.tabular import tabular_command
from jaxsoft.cli.train import extend_command, train_command
from jaxsoft.cpu import use_all_cores
from jaxsoft.errors import InputError, Stopped, nearest, printable, where_raised

USAGE = """\
usage: jaxsoft COMMAND ...

  train AGENT ENV [options]   train many seeds at once; writes a run directory
  train --resume RUN          go on with a run that was cut short
  extend RUN --total-timesteps N
                              train a run further
  eval RUN [RUN ...]          play episodes with a run's trained policies
  plot RUN [RUN ...]          draw the learning curves of one or more runs
  compare RUN RUN ...         compare algorithms over tasks and seeds, with intervals
  export RUN [options]        write a trained policy to a file that needs no jaxsoft
  tabular METHOD ENV ...      solve a finite MDP, or learn it with many seeds; writes a run folder
  bench [options]             measure speed on the devices here, beside what these can do at most
  list                        agents and environments

`jaxsoft COMMAND --help` shows a command's options. With any command, `--import FILE_OR_MODULE` first imports code of
your own, which registers environments or agents; it may be given several times.
"""


NO_MEMORY = ("failed to map segment", "annot allocate memory")
"""The dynamic linker's message where a library does not fit into the address space."""


COMMANDS = {
    "train": train_command,
    "extend": extend_command,
    "eval": eval_command,
    "plot": plot_command,
    "compare": compare_command,
    "export": export_command,
    "tabular": tabular_command,
    "bench": bench_command,
    "list": list_command,
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0; 2 after one line about what was wrong with the input; 1 after one about a file that the system refuses, standard
    output among them, or about memory; 141, as after SIGPIPE, where nobody reads standard output any more; 130 or 143
    where the command was asked to stop.
    """
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        status = _tell(f"error: {error}", 2)
    except jax.errors.UnexpectedTracerError as error:
        where = where_raised(error)
        if not where:  # no code of the user's
            raise
        kept = "an array of an earlier trace, which was kept outside of a state: all that is remembered must be in it"
        status = _tell(f"error: {where} reads {kept}", 2)
    except Stopped as stopped:
        status = _tell(stopped, stopped.status)
    except KeyboardInterrupt:
        status = _tell("interrupted", 130)
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        status = _tell("error: the system gives this process no more memory", 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (error.filename is None and not takes_text(sys.stdout)):
            close_output()
            return _not_written(error)
        if error.filename is None:
            raise
        status = _tell(f"error: {error.filename}: {error.strerror}", 1)
    unwritten = close_output()
    return _not_written(unwritten) if unwritten else status


def _run(argv: list[str]) -> int:
    argv, own_code = split_imports(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if argv[0] == "--version":
        print(f"jaxsoft {jaxsoft.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)} ({', '.join(COMMANDS)})")
    for text in (*argv, *own_code, _working_directory()):
        if not text.isascii() and any("\udc80" <= char <= "\udcff" for char in text):  # undecodable bytes
            raise InputError(f"{text!r} is not UTF-8; the names of files and folders must be")
    _cache_compiled_programs()
    use_all_cores()
    try:
        with warnings.catch_warnings():  # which puts `showwarning` back
            warnings.showwarning = _make_showwarning(warnings.showwarning)
            import_all(own_code)
            COMMANDS[argv[0]](argv[1:])
    except SystemExit as end:  # help was printed, or a child process has ended
        return int(end.code or 0)
    return 0


def _make_showwarning(show_other: Callable[..., None]) -> Callable[..., None]:
    """Shows warnings of this package as notes, without the line of source that Python adds; others as before."""

    def show(message: Warning | str, category: type[Warning], filename: str, *where: Any) -> None:
        if Path(filename).is_relative_to(Path(jaxsoft.__file__).parent):
            _tell(f"note: {message}", 0)
        else:
            show_other(message, category, filename, *where)

    return show


def _working_directory() -> str:
    """Empty, where it was removed."""
    with contextlib.suppress(FileNotFoundError):
        return os.getcwd()
    return ""


def _tell(line: object, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"jaxsoft: {printable(line)}", file=sys.stderr)
    return status


def _not_written(error: OSError) -> int:
    """Says that standard output takes no more; where that is because nobody reads it, in silence."""
    if isinstance(error, BrokenPipeError):
        return 141
    return _tell(f"error: standard output cannot be written: {error.strerror}", 1)


def script() -> NoReturn:
    """The `jaxsoft` script."""
    gc.freeze()  # what the imports made stays: not looked at again whenever garbage is collected, as tracing does often
    sys.exit(main())


def _cache_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that the same command starts at once the next time.

    They are in `jaxsoft` in $XDG_CACHE_HOME, by default ~/.cache; where that cannot be written, nowhere.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
        cache = (folder if folder.is_absolute() else Path.home() / ".cache") / "jaxsoft"
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(cache))
