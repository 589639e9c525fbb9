"""Errors for invalid user input: one line with the field, its value and what is allowed."""

from __future__ import annotations

import difflib
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import Tracer


class InputError(ValueError):
    """Invalid user input. The command line prints its one line and exits with status 2."""


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """A command was asked to stop, and did. The command line prints its one line and exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def printable(text: object) -> str:
    r"""Foreign text as one line for a terminal; unprintable characters are escaped as in Python.

    >>> printable("e\x1b[31m\n")
    'e\\x1b[31m\\n'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def where_raised(error: BaseException) -> str:
    """The line of a user's code that an error came from, as `line 12 of own.py`; empty where there is none.

    That is the last one outside of this package and of what is installed, or else outside of this package and of JAX.
    """
    packages = ("site-packages", "dist-packages")
    others = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, str(jax.__file__)))
    library = f"{sysconfig.get_path('stdlib')}{os.sep}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", *others))
    ]
    users = [
        frame
        for frame in frames
        if not frame.filename.startswith(library) and not any(part in packages for part in Path(frame.filename).parts)
    ]
    frame = next(iter((users or frames)[::-1]), None)
    return f"line {frame.lineno} of {Path(frame.filename).name}" if frame else ""


def in_one_line(error: BaseException) -> str:
    """An error of a user's code: its kind, what it says, and the line that it came from."""
    message, where = " ".join(f"{type(error).__name__}: {error}".split())[:200], where_raised(error)
    return printable(f"{message} ({where})" if where else message)


def nearest(name: str, known: Iterable[str], stem: Callable[[str], str] = str.lower) -> str:
    """Suggestions for a misspelt name, as the tail of an error message; empty where nothing is near.

    Names are compared by their `stem`.

    >>> nearest("sca", ["sac", "soft_q"])
    '; did you mean sac?'
    """
    names = {candidate: _likeness(stem(name), stem(candidate)) for candidate in known}
    enough = max(0.5, max(names.values(), default=0) - 0.15)
    near = [candidate for candidate, likeness in names.items() if likeness >= enough]
    near.sort(key=lambda candidate: (-names[candidate], -_likeness(name, candidate)))
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def _likeness(one: str, other: str) -> float:
    begins = len(one) >= 3 and other.startswith(one)
    return max(0.8 * begins, difflib.SequenceMatcher(None, one, other).ratio())


def is_defined_anew(before: Any, now: Any) -> bool:
    """Whether two functions are the same one of the same module: that was imported, or a cell that was run, again.

    Functions without a name of their own, as every `lambda`, also need the same code, and no values around it.
    """
    names = [(getattr(x, "__module__", None), getattr(x, "__qualname__", None)) for x in (before, now)]
    if before is now or names[0] != names[1] or None in names[0]:
        return False
    if "<" not in str(names[0][1]):
        return True
    codes = [(x.__code__.co_code, x.__code__.co_consts, x.__code__.co_names) for x in (before, now)]
    return codes[0] == codes[1] and before.__closure__ is None


def load_entry(entry: EntryPoint) -> Any:
    """Imports what an installed package names in an entry point.

    Raises:
        InputError: it cannot be imported; whatever the package raised is told in one line.
    """
    try:
        return entry.load()
    except Exception as error:
        message = f"{entry.name} cannot be imported from {entry.value} ({type(error).__name__}: {error})"
        raise InputError(printable(message)) from error


def require(name: str, value: Any, test: Callable[[np.ndarray], Any], allowed: str) -> None:
    """Checks a number or an array on the host; a traced one cannot be looked at and is taken as it is.

    Args:
        name: what the user calls it.
        value: anything NumPy can hold.
        test: true, entry by entry, of what is allowed.
        allowed: the end of «it must be …».

    Raises:
        InputError: some entry is not allowed; for example «temperature is 0; it must be a positive number».
    """
    if isinstance(value, Tracer):
        return
    entries = np.asarray(value)
    if entries.dtype.kind not in "biuf":
        raise InputError(f"{name} is {value!r}; it must be {allowed}")
    wrong = entries[~np.broadcast_to(np.asarray(test(entries), bool), entries.shape)]
    if wrong.size:
        among = f" in one of its {entries.size} entries" if entries.size > 1 else ""
        raise InputError(f"{name} is {wrong.flat[0]:g}{among}; it must be {allowed}")


def positive_integer(name: str, value: Any) -> int:
    """Checks a size on the host.

    Raises:
        InputError: for example «action_repeat is 0; it must be a positive integer below 2^31».
    """
    whole = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value % 1 == 0
    if not (whole and 0 < value < 2**31):
        raise InputError(f"{name} is {value!r}; it must be a positive integer below 2^31")
    return int(value)
