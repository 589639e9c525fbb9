"""A command's options from its arguments; what is wrong with them is told in one line."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from jaxsoft.errors import InputError

Options = TypeVar("Options")


def parse_options(options: type[Options], prog: str, argv: list[str], **how: Any) -> Options:
    """What `tyro.cli` reads; `how` is handed on to it.

    Raises:
        InputError: an option that does not exist, a value of the wrong kind, or one that is missing.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(options, prog=prog, args=argv, **how)
    except SystemExit as end:
        if not end.code:  # help was asked for, and printed
            raise
    raise InputError(f"{in_one_line(told.getvalue())} (`{prog} --help` shows the options)") from None


def in_one_line(box: str) -> str:
    r"""What tyro's box says in its first part, and the options that it takes to be meant.

    >>> told = ["╭────╮", "│ No option │", "│ --x │", "│ ──── │", "│ Perhaps you meant: │", "│  --y INT │", "╰──╯"]
    >>> in_one_line("\n".join(told))
    'No option --x; did you mean --y?'
    """
    lines = [line.strip("│ ") for line in box.strip().splitlines() if not line.startswith(("╭", "╰"))]
    parts = re.split(r"\n[─-]+\n", "\n".join(lines))
    if "╭" not in box:  # without Unicode there are rules only, and the title is a part
        parts = parts[1:] or parts
    near = [part for part in parts[1:] if part.startswith(("Perhaps", "Arguments similar"))]
    meant = re.findall(r"^--[\w.-]+", "\n".join(near), re.MULTILINE)
    return " ".join(parts[0].split()) + (f"; did you mean {' or '.join(meant)}?" if meant else "")
