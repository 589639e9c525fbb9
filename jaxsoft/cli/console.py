"""The console of all commands."""

from __future__ import annotations

import codecs
import io
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jaxsoft.errors import printable


class PlainConsole(Console):
    """A console without markup that escapes unprintable characters."""

    def render_str(self, text: str, **how: Any) -> Text:
        """A string that was printed, or is in a table."""
        return super().render_str(printable(text), **how)

    def on_broken_pipe(self) -> None:
        """Nobody reads standard output any more: `main` ends."""
        raise BrokenPipeError


def make_console() -> Console:
    """Standard output; where it is no terminal, wide enough for every table."""
    width = None if sys.stdout.isatty() else 120
    return PlainConsole(highlight=False, markup=False, emoji=False, width=width)


def print_line(console: Console, line: str, style: str | None = None) -> None:
    """Prints a line; on a terminal that is too narrow it is broken between words."""
    for part in wrap(line, console.width) if console.is_terminal else [line]:
        console.print(part, style=style, soft_wrap=True)


def wrap(line: str, width: int) -> list[str]:
    """Breaks a line between words to parts of `width`; all but the first are indented, by 12 if the words fit."""
    indent = " " * min(12, max(0, width - max(map(len, line.split()), default=0)))
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


class FittingTable(NamedTuple):
    """A table, and the same in lines, which are shown instead where the table would have to cut a cell or a word."""

    table: Table
    lines: list[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        unlimited = options.update(max_width=10_000)
        for column in self.table.columns:
            if column.no_wrap:  # rich takes the longest word for its minimum, and cuts the rest
                cells = (column.header, *column.cells)
                column.min_width = max(Measurement.get(console, unlimited, cell).maximum for cell in cells)
        if Measurement.get(console, unlimited, self.table).minimum <= options.max_width:
            yield self.table
        else:
            yield from (part for line in self.lines for part in wrap(line, options.max_width))


SPELLINGS = {"×": "x", "−": "-", "…": "...", "≤": "<=", "∞": "inf", "π": "pi", "λ": "lambda", "τ": "tau", "γ": "gamma"}
"""Spellings of characters for encodings that lack them; other characters are escaped."""


def prepare_streams() -> None:
    """Makes standard output and error take any text, in any encoding; where they are closed, they go nowhere."""
    codecs.register_error("jaxsoft.spelt", _spell)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the process ends)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="jaxsoft.spelt")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SPELLINGS.get(x, ascii(x)[1:-1]) for x in error.object[error.start : error.end]), error.end


def takes_text(stream: TextIO) -> bool:
    """Whether a stream can be written to, tried with an empty line."""
    try:
        print(file=stream, flush=True)
    except OSError:
        return False
    return True


def close_output() -> OSError | None:
    """Writes what standard output still holds; where that fails, returns the error and drops the rest.

    Otherwise Python would try again when the process ends, and report the error in its own words.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
        return error
    return None


def print_end(console: Console, conclusion: str, took: str, picture: Path) -> None:
    """The last lines about a folder of results: what was found, how long it took, and where the folder is."""
    where = f"figure      {picture}", f"run folder  {picture.parent}"
    for line in (conclusion, f"{took}, compilation included", *where):
        console.print(line, soft_wrap=True)
