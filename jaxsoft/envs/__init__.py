"""Environments by name: `make_env("gymnax/Pendulum-v1")`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from jaxsoft.errors import InputError, nearest
from jaxsoft.types import Env

SUITES = ("gymnax", "finite")
"""One adapter module of this package per suite, imported when it is first asked for."""


def suite(name: str) -> ModuleType:
    """The adapter module of one suite: `names()`, `has(name)` and `make(name, **params)`."""
    return importlib.import_module(f"jaxsoft.envs.{name}")


def names() -> list[str]:
    """Every environment's id, suite by suite."""
    return [f"{suite_name}/{name}" for suite_name in SUITES for name in suite(suite_name).names()]


def make_env(env_id: str, **params: Any) -> Env:
    """Builds an environment from its id.

    Args:
        env_id: `suite/name`, for example `gymnax/Pendulum-v1`; `jaxsoft list` shows them all.
        **params: values for the environment's own parameters, for example `max_steps_in_episode=100`.

    Returns:
        A single, unwrapped `Env` in the environment's own units: `make_train` does the wrapping.

    Raises:
        InputError: no such environment (the nearest names are suggested) or no such parameter.

    >>> make_env("gymnax/Pendulum-v1").spec.obs_shape
    (3,)
    """
    suite_name, _, name = env_id.partition("/")
    if suite_name not in SUITES or not suite(suite_name).has(name):
        raise InputError(f"unknown environment {env_id!r}{nearest(env_id, names())} (`jaxsoft list` shows all)")
    return suite(suite_name).make(name, **params)
