"""Bad input, told to people: one line that names the field, its value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong. The command line prints its one line and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """What `name` may have been meant to be, as the tail of an error message; empty where nothing is near.

    >>> nearest("sca", ["sac", "soft_q"])
    '; did you mean sac?'
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(lowered[match] for match in matches)}?" if matches else ""
