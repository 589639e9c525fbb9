"""Environments of one's own by name: `register_env`, and the entry points `jaxsoft.envs` of installed packages."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from jaxsoft.envs.check import require_env
from jaxsoft.envs.suites import SUITES, Suite, require_free
from jaxsoft.errors import InputError, in_one_line, is_defined_anew, load_entry, nearest, printable
from jaxsoft.types import Env

GROUP = "jaxsoft.envs"
"""Group of entry points: `"own/PointMass" = "package.module:make"` below a package's
`[project.entry-points."jaxsoft.envs"]`."""

_MAKES: dict[str, dict[str, Callable[..., Any] | EntryPoint]] = {}
"""Makers of environments: by the part of the id before the slash, then by the name after it."""


def register_env(env_id: str, make: Callable[..., Env]) -> None:
    """Gives an environment of one's own a name, which then goes wherever a name of jaxsoft's does.

    A run remembers the name and its parameters, never the code: whoever reads the run registers the name before. The
    same function of the same module, defined anew, takes the earlier one's place: a cell may be run twice.

    Args:
        env_id: two words with a slash between them, for example `own/PointMass`.
        make: `(**params) -> Env`. In `own/PointMass?mass=2` the number is its argument `mass`.

    Raises:
        InputError: the id is none, belongs to another suite, or was given to another function before.
    """
    suite_name, name = _split(env_id)
    if not callable(make):
        raise InputError(f"make is {make!r}; it must be a function that returns an Env")
    if suite_name in SUITES and suite_name not in _MAKES:
        raise InputError(f"{env_id} cannot be registered: {suite_name} was registered with register_suite")
    before = _MAKES.get(suite_name, {}).get(name)
    is_taken = before is not None and not isinstance(before, EntryPoint) and before != make
    if is_taken and not is_defined_anew(before, make):
        raise InputError(f"{env_id} is registered already, with another function; take another name for this one")
    _add(suite_name, name, make)


@cache
def find_installed() -> None:
    """Registers what installed packages name in their entry points, and imports none of them.

    A name that cannot be registered is passed over with a warning; one that was registered by a call stays as it is.
    """
    for entry in entry_points(group=GROUP):
        try:
            suite_name, name = _split(entry.name)
        except InputError as error:
            warnings.warn(printable(f"the entry point {entry.name!r} is passed over: {error}"), stacklevel=2)
            continue
        if name not in _MAKES.get(suite_name, {}) and (suite_name in _MAKES or suite_name not in SUITES):
            _add(suite_name, name, entry)


def _split(env_id: str) -> tuple[str, str]:
    suite_name, _, name = env_id.partition("/") if isinstance(env_id, str) else ("", "", "")
    if not suite_name or not name or any(char in name for char in "/?#&= "):
        raise InputError(f"the id is {env_id!r}; it must be two words with one slash between them, like own/PointMass")
    require_free(suite_name)
    return suite_name, name


def _add(suite_name: str, name: str, make: Callable[..., Any] | EntryPoint) -> None:
    makes = _MAKES.setdefault(suite_name, {})
    makes[name] = make
    suite = Suite(
        suite_name, lambda: list(makes), lambda name, **params: _make(f"{suite_name}/{name}", makes[name], params)
    )
    SUITES.setdefault(suite_name, lambda: suite)


def _make(env_id: str, make: Callable[..., Any] | EntryPoint, params: dict[str, Any]) -> Env:
    function = load_entry(make) if isinstance(make, EntryPoint) else make
    _check_params(env_id, function, params)
    try:
        env = function(**params)
    except InputError:
        raise
    except Exception as error:  # whatever somebody's code raises
        raise InputError(f"{env_id} cannot be made: {in_one_line(error)}") from error
    try:
        require_env(env)
    except InputError as error:
        raise InputError(f"what makes {env_id} must return an Env; its {error}") from None
    return env


def _check_params(env_id: str, make: Callable[..., Any], params: dict[str, Any]) -> None:
    """Whether `make` takes these parameters, by name: their values are its own affair."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return  # a callable without one
    try:
        signature.bind(**params)
    except TypeError as error:
        known = list(signature.parameters)
        unknown = next((name for name in params if name not in known), None)
        if unknown is None:
            raise InputError(f"{env_id} cannot be made: {error}") from None
        has = f"it has: {', '.join(known)}{nearest(unknown, known)}" if known else "it has none"
        raise InputError(f"{env_id} has no parameter {unknown!r}; {has}") from None
