"""Suites of environments as values, and the registry that `make_env` looks names up in."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.types import Env, EnvSpec


class Film(NamedTuple):
    """How a suite's episodes become files that one can look at.

    Attributes:
        suffix: of the files, for example `.gif`.
        write: `(path, states, returns, name, **params)`; the states after the reset and after each step, the sum of
            rewards up to each, the environment's name and parameters as for `Suite.make`.
        check: `(name)`; raises an InputError where this environment cannot be filmed.
    """

    suffix: str
    write: Callable[..., None]
    check: Callable[[str], None] = lambda name: None


def write_gif(path: Path, frames: Sequence[np.ndarray], milliseconds: int = 50) -> None:
    """Writes frames, each uint8 [height, width, 3], as a GIF that repeats."""
    pictures = [importlib.import_module("PIL.Image").fromarray(frame).quantize(32) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)


class Suite(NamedTuple):
    """A family of environments with the ids `suite/name`.

    Attributes:
        name: of the suite.
        names: `() -> [name, ...]`, the environments that lists and suggestions show.
        make: `(name, **params) -> Env`; raises an InputError for a parameter that the environment does not have.
        has: `(name) -> bool`, whether there is such an environment; by default whether `names()` has it.
        spec: `(name) -> EnvSpec` of the default parameters; by default that of `make(name)`.
        film: for all its environments; None: those are filmed that have an `Env.render`.
        fused_keys: whether its functions take keys of `jaxsoft.random.fused`, which draw in one kernel; otherwise they
            get keys of JAX's own kind, which every function of `jax.random` takes.
        slow: whether building an environment takes so long that lists leave out what it looks like.
    """

    name: str
    names: Callable[[], Sequence[str]]
    make: Callable[..., Env]
    has: Callable[[str], bool] | None = None
    spec: Callable[[str], EnvSpec] | None = None
    film: Film | None = None
    fused_keys: bool = False
    slow: bool = False


BUILT_IN = ("gymnax", "finite", "brax", "mjx")
"""Each has an adapter module of this package, which is imported when the suite is first asked for."""

OPTIONAL = {
    "playground": "mujoco_playground",
    "craftax": "craftax",
    "xminigrid": "xminigrid",
    "pgx": "pgx",
    "navix": "navix",
}
"""Suites whose package is an extra of the same name, with the module that tells whether it is installed."""

SUITES: dict[str, Callable[[], Suite]] = {
    name: lambda name=name: importlib.import_module(f"jaxsoft.envs.{name}").SUITE for name in (*BUILT_IN, *OPTIONAL)
}
"""The registry: by a suite's name, what loads it."""


def missing_extras() -> list[str]:
    """The optional suites whose packages are not installed."""
    return [name for name, module in OPTIONAL.items() if importlib.util.find_spec(module) is None]


def require_free(suite_name: str) -> None:
    """Refuses a name of a suite from outside that is one of jaxsoft's own, or cannot stand in an id.

    Raises:
        InputError: says what is allowed.
    """
    own = (*BUILT_IN, *OPTIONAL, "gymnasium")
    if suite_name in own or not re.fullmatch(r"[\w.-]+", suite_name):
        allowed = f"letters, digits and any of _ . -, and none of {', '.join(own)}"
        raise InputError(f"the suite's name is {suite_name!r}; it must be {allowed}")


def register_suite(suite: Suite) -> None:
    """Adds a suite: its environments can be named wherever `suite/name` is asked for.

    A suite that was registered under the same name before is replaced.

    Raises:
        InputError: the name is one of jaxsoft's own suites, or cannot stand in an id.
    """
    require_free(suite.name)
    SUITES[suite.name] = lambda: suite
