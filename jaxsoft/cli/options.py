"""A command's options from its arguments; what is wrong with them is told in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import io
import itertools
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from jaxsoft.agents.references import Reference
from jaxsoft.agents.soft_q_config import Trace
from jaxsoft.errors import InputError
from jaxsoft.nn.networks import Network
from jaxsoft.ops.traces import TRACES
from jaxsoft.types import AgentKind

Options = TypeVar("Options")

MOST_DIGITS = 18
"""Most digits of an integer on the command line."""


def parse_options(
    options: type[Options], prog: str, argv: Sequence[str], default: Options | None = None, **how: Any
) -> Options:
    """What `tyro.cli` reads; `how` is handed on to it.

    Integers may be written 1e4, sizes 64x64, and a flag may be given a value: `--json true`, `--json=false`.

    Raises:
        InputError: an option that does not exist, a value of the wrong kind, or one that is missing.
    """
    printed = io.StringIO()
    kinds = _kinds(default or options)
    flags, sizes = ({name for name, kind in kinds.items() if kind == one} for one in (bool, tuple[int, ...]))
    argv = _rewrite(argv, flags, sizes, paired=tyro.conf.FlagCreatePairsOff not in how.get("config", ()))
    given = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(options, prog=prog, args=argv, registry=_registry(), **given, **how)
    except SystemExit as end:
        if not end.code:  # help was asked for, and printed
            raise
    _check_flags(argv, flags, line := read_box(printed.getvalue()))
    raise InputError(f"{line} (`{prog} --help` shows the options)") from None


def new_folder(name: str) -> Path:
    """The default output: a path in runs/ with this moment in its name."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _kinds(options: Any) -> dict[str, Any]:
    """The types of the options, by name without prefix."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(options if isinstance(options, type) else type(options)).items():
        value = getattr(options, name, None)
        kinds |= _kinds(value) if dataclasses.is_dataclass(value) else {name.replace("_", "-"): kind}
    return kinds


def option_name(option: str) -> str:
    """The name of an option without its prefix; of a word that is no option, empty."""
    return option.rpartition(".")[2].removeprefix("--").replace("_", "-") if option.startswith("--") else ""


def _rewrite(argv: Sequence[str], flags: set[str], sizes: set[str], *, paired: bool = True) -> list[str]:
    """Options as tyro reads them: flags without values, and sizes as one word.

    `--x true` becomes `--x`, and with false `--no-x`, or, where flags have no pair, nothing. `--x 8 4` becomes
    `--x=8x4`: sizes end before an environment's id, and are one word where that has all of them.

    >>> _rewrite(["--json", "false", "--agent.x=True", "--y", "true"], {"json", "x"}, set())
    ['--no-json', '--agent.x', '--y', 'true']
    >>> _rewrite(["--x", "8", "4", "gymnax/CartPole-v1", "--agent.x", "8x4", "CartPole"], set(), {"x"})
    ['--x=8x4', 'gymnax/CartPole-v1', '--agent.x=8x4', 'CartPole']
    """
    words, rest = [], list(argv)
    while rest:
        arg = rest.pop(0)
        option, equals, value = arg.partition("=")
        if option_name(option) in flags:
            prefix, dot, name = option.removeprefix("--").rpartition(".")
            if not equals and rest and rest[0].lower() in ("true", "false"):
                equals, value = "=", rest.pop(0)
            if equals and value.lower() not in ("true", "false"):
                raise InputError(f"{name.replace('-', '_')} is {value!r}; it must be true or false")
            is_off = value.lower() == "false"
            if is_off and not paired:
                continue
            arg = f"--{prefix}{dot}{'no-' * is_off}{name}"
        elif option_name(option) in sizes:
            parts = [value] if equals else []
            while rest and not rest[0].startswith("--") and "/" not in rest[0]:
                if parts and ("x" in parts[0] or parts[0].lower() == "none"):
                    break
                parts.append(rest.pop(0))
            arg = f"{option}={'x'.join(parts)}" if parts else option
        words.append(arg)
    return words


NO_VALUES = ("0", "1", "yes", "no", "on", "off")
"""Words for true and false that other programs take."""


def _check_flags(argv: Sequence[str], flags: set[str], message: str) -> None:
    """Refuses a word after a flag if tyro has told that it reads no such word, or took it for something else."""
    unread = re.match("Unrecognized options: (?!--)([^,;]*)", message)
    for option, value in itertools.pairwise(part for arg in argv for part in arg.split("=", 1)):
        name = option_name(option)
        if unread and name.removeprefix("no-") in flags and (value == unread[1] or value.lower() in NO_VALUES):
            if name not in flags:
                flag = option.replace("no-", "", 1)
                raise InputError(f"{option} is followed by {value!r}; write {flag} true or {flag} false")
            raise InputError(f"{name.replace('-', '_')} is {value!r}; it must be true or false")


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


def _sizes(text: str) -> tuple[int, ...]:
    """`64x64`; `none` are none."""
    return () if text.lower() == "none" else tuple(map(whole_number, text.split("x")))


def _trace(text: str) -> str:
    if text not in TRACES:
        in_python = "a function of your own is given in Python: jaxsoft.make_train(…, trace=…)"
        raise ValueError(f"{text!r} is none of {', '.join(TRACES)}; {in_python}")
    return text


def _none(text: str, instead: str = "") -> None:
    if text.lower() != "none":
        raise ValueError(instead or f"{text!r} is not none")


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How options are read that tyro would read in another way, or not at all."""
    registry = tyro.constructors.ConstructorRegistry()

    def add(kind: Any, metavar: str, read: Callable[[str], Any], write: Callable[[Any], str] = str):
        @registry.primitive_rule
        def rule(
            type_info: tyro.constructors.PrimitiveTypeInfo,
        ) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
            given = type_info.type
            if given != kind and (get_origin(given), get_args(given)) != (tuple, get_args(kind)):  # perhaps as Tuple
                return None
            return tyro.constructors.PrimitiveConstructorSpec(
                1, metavar, lambda texts: read(texts[0]), lambda value: True, lambda value: [write(value)]
            )

    @registry.struct_rule
    def no_options(type_info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
        """Which agent it is stands before the options."""
        if type_info.type is not AgentKind:
            return None
        return tyro.constructors.StructConstructorSpec(instantiate=lambda: type_info.default, fields=())

    add(int, "INT", whole_number)
    add(tuple[int, ...], "INT INT ...", _sizes, lambda sizes: "x".join(map(str, sizes)) or "none")
    add(type(None), "none", _none, lambda value: "none")
    in_python = "a network is a Flax module: give it in Python, jaxsoft.make_train(…, network=…)"
    add(Network, "MODULE", partial(_none, instead=in_python), lambda value: "none")
    add(Trace, "{" + ",".join(TRACES) + "}", _trace)
    add(Reference, "POLICY", str)
    return registry


def read_box(box: str) -> str:
    r"""What tyro's box says in its first part, and the options that it takes to be meant.

    >>> box = ["╭────╮", "│ No option │", "│ --x │", "│ ──── │", "│ Perhaps you meant: │", "│  --y INT │", "╰──╯"]
    >>> read_box("\n".join(box))
    'No option --x; did you mean --y?'
    """
    lines = [line.strip("│ ") for line in box.strip().splitlines() if not line.startswith(("╭", "╰"))]
    parts = re.split(r"\n[─-]+\n", "\n".join(lines))
    if "╭" not in box:  # without Unicode there are rules only, and the title is a part
        parts = parts[1:] or parts
    near = [part for part in parts[1:] if part.startswith(("Perhaps", "Arguments similar"))]
    meant = re.findall(r"^--[\w.-]+", "\n".join(near), re.MULTILINE)
    return " ".join(parts[0].split()) + (f"; did you mean {' or '.join(meant)}?" if meant else "")
