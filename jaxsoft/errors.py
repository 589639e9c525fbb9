"""Bad input, told to people: one line that names the field, its value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jax.core import Tracer


class InputError(ValueError):
    """Something the user gave is wrong. The command line prints its one line and exits with status 2."""


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """A command was asked to stop, and did. The command line prints its one line and exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def nearest(name: str, known: Iterable[str]) -> str:
    """What `name` may have been meant to be, as the tail of an error message; empty where nothing is near.

    >>> nearest("sca", ["sac", "soft_q"])
    '; did you mean sac?'
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(lowered[match] for match in matches)}?" if matches else ""


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
        of_array = f" in one of its {entries.size} entries" if entries.size > 1 else ""
        raise InputError(f"{name} is {wrong.flat[0]:g}{of_array}; it must be {allowed}")


def positive_integer(name: str, value: Any) -> int:
    """Checks a size on the host.

    Raises:
        InputError: for example «action_repeat is 0; it must be a positive integer below 2^31».
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value < 2**31:
        raise InputError(f"{name} is {value!r}; it must be a positive integer below 2^31")
    return int(value)
