"""`--import FILE_OR_MODULE`: code of one's own that registers environments or agents, imported before a command."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shlex
import sys
from pathlib import Path

from jaxsoft.errors import InputError, where_raised

OPTION = "--import"

given: list[str] = []
"""The files and modules named to this process, for a child process that runs the same command."""


def repeat_imports() -> str:
    """The end of a command that needs the same code: ` --import own.py`; empty where none was named."""
    return "".join(f" {OPTION} {shlex.quote(name)}" for name in given)


def split_imports(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--import X` and `--import=X`, wherever they stand, and what those name.

    Raises:
        InputError: nothing follows it.

    >>> split_imports(["--import", "own.py", "list", "--import=more"])
    (['list'], ['own.py', 'more'])
    """
    rest, named, args = [], [], iter(argv)
    for arg in args:
        option, equals, name = arg.partition("=")
        if option != OPTION:
            rest.append(arg)
            continue
        name = name if equals else next(args, "")
        if not name or name.startswith("-"):
            raise InputError(f"{OPTION} is followed by {name!r}; it must be a Python file or a module's name")
        named.append(name)
    return rest, named


def import_all(names: list[str]) -> None:
    """Imports each Python file or module, once.

    Raises:
        InputError: there is none, or an error in it, with its line.
    """
    given[:] = names
    for name in names:
        is_file = name.endswith(".py") or os.sep in name
        path = Path(name).resolve() if is_file else None
        if path and not path.is_file():
            raise InputError(f"{OPTION} {name}: there is no such file")
        folder = str(path.parent if path else Path.cwd())
        if folder not in sys.path:
            sys.path.append(folder)  # code can import what lies beside it; what is installed goes first
        try:
            module = _module_name(path) if path else name
            if not path and importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and not path and name.startswith(f"{error.name}"):
                raise InputError(f"{OPTION} {name}: there is no such module; a file's name ends with .py") from None
            raise InputError(f"{OPTION} {name}: {_in_one_line(error)}") from error


def _module_name(path: Path) -> str:
    """The name that a file is imported by: its own, unless another module has that."""
    try:
        spec = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        spec = None
    if spec and spec.origin and Path(spec.origin).resolve() == path:
        return path.stem
    name = f"imported_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        _load(name, path)
    return name


def _load(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} of {Path(error.filename or '?').name} is not Python ({error.msg})"
    what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return ": ".join(filter(None, (where_raised(error), " ".join(what.split()))))
