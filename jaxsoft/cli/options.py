"""A command's options from its arguments; what is wrong with them is told in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args, get_origin

import tyro

from jaxsoft.errors import InputError
from jaxsoft.references import Reference

Options = TypeVar("Options")

MOST_DIGITS = 18
"""Of an integer on the command line."""


def parse_options(
    options: type[Options], prog: str, argv: Sequence[str], default: Options | None = None, **how: Any
) -> Options:
    """What `tyro.cli` reads; `how` is handed on to it.

    Integers may be written 1e4, sizes 64x64, and a flag may be given a value: `--json true`, `--json=false`.

    Raises:
        InputError: an option that does not exist, a value of the wrong kind, or one that is missing.
    """
    told = io.StringIO()
    argv = _as_flags(
        argv, set(_flags(default or options)), paired=tyro.conf.FlagCreatePairsOff not in how.get("config", ())
    )
    given = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(options, prog=prog, args=argv, registry=_registry(), **given, **how)
    except SystemExit as end:
        if not end.code:  # help was asked for, and printed
            raise
    raise InputError(f"{in_one_line(told.getvalue())} (`{prog} --help` shows the options)") from None


def _flags(options: Any) -> Iterator[str]:
    """The names of the options that are true or false, without prefix."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name, None)
        if isinstance(value, bool):
            yield field.name.replace("_", "-")
        elif dataclasses.is_dataclass(value):
            yield from _flags(value)


def _as_flags(argv: Sequence[str], flags: set[str], *, paired: bool = True) -> list[str]:
    """Writes `--x true` and `--x=true` as `--x`, and with false as `--no-x`, or, where flags have no pair, not at all.

    >>> _as_flags(["--json", "false", "--agent.x=True", "--y", "true"], {"json", "x"})
    ['--no-json', '--agent.x', '--y', 'true']
    """
    written, rest = [], list(argv)
    while rest:
        arg = rest.pop(0)
        option, equals, value = arg.partition("=")
        prefix, dot, name = option.removeprefix("--").rpartition(".")
        if option.startswith("--") and name.replace("_", "-") in flags:
            if not equals and rest and rest[0].lower() in ("true", "false"):
                equals, value = "=", rest.pop(0)
            if equals and value.lower() not in ("true", "false"):
                raise InputError(f"{name.replace('-', '_')} is {value!r}; it must be true or false")
            if value.lower() == "false" and not paired:
                continue
            arg = f"--{prefix}{dot}{'no-' * (value.lower() == 'false')}{name}"
        written.append(arg)
    return written


def whole_number(text: str) -> int:
    """An integer, also one written like 1e4 or 2.0.

    Raises:
        ValueError: the text is none, or one of more than 18 digits.

    >>> whole_number("1e4")
    10000
    """
    try:
        number = decimal.Decimal(text)
        if number.is_finite() and number.adjusted() < MOST_DIGITS and number == number.to_integral_value():
            return int(number)
    except decimal.InvalidOperation:
        pass
    raise ValueError(f"{text!r} is no whole number of {MOST_DIGITS} digits at most")


def _sizes(texts: list[str]) -> tuple[int, ...]:
    """`64 64` or `64x64`; `none` are none."""
    if [text.lower() for text in texts] == ["none"]:
        return ()
    return tuple(whole_number(size) for text in texts for size in text.split("x"))


def _none(texts: list[str]) -> None:
    if texts[0].lower() != "none":
        raise ValueError(f"{texts[0]!r} is not none")


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How options are read that tyro would read in another way, or not at all."""
    registry = tyro.constructors.ConstructorRegistry()

    def add(kind: Any, nargs: Any, metavar: str, read: Callable[[list[str]], Any], write: Callable[[Any], list[str]]):
        @registry.primitive_rule
        def rule(
            type_info: tyro.constructors.PrimitiveTypeInfo,
        ) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
            given = type_info.type
            if given != kind and (get_origin(given), get_args(given)) != (tuple, get_args(kind)):  # perhaps as Tuple
                return None
            return tyro.constructors.PrimitiveConstructorSpec(nargs, metavar, read, lambda value: True, write)

    add(int, 1, "INT", lambda texts: whole_number(texts[0]), lambda value: [str(value)])
    add(tuple[int, ...], "*", "INT INT ...", _sizes, lambda sizes: list(map(str, sizes)))
    add(type(None), 1, "none", _none, lambda value: ["none"])
    add(Reference, 1, "POLICY", lambda texts: texts[0], lambda value: [str(value)])
    return registry


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
