"""Environments by name: `make_env("gymnax/Pendulum-v1")`; `register_env` and `register_suite` add one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import jax

from jaxsoft.envs.brax import from_brax
from jaxsoft.envs.check import check_env
from jaxsoft.envs.gymnax import from_gymnax
from jaxsoft.envs.own import find_installed, register_env
from jaxsoft.envs.parameters import format_id, parse_value
from jaxsoft.envs.suites import BUILT_IN, OPTIONAL, SUITES, Film, Suite, missing_extras, register_suite
from jaxsoft.envs.wrappers import convert_keys, narrow, single_precision
from jaxsoft.errors import InputError, nearest
from jaxsoft.random import fused
from jaxsoft.types import Env, EnvSpec

__all__ = [
    "SUITES",
    "Film",
    "Suite",
    "check_env",
    "env_of_run",
    "env_spec",
    "find",
    "from_brax",
    "from_gymnax",
    "make_env",
    "missing_extras",
    "names",
    "register_env",
    "register_suite",
]


def names() -> list[str]:
    """Every environment's id, suite by suite; of the optional suites, those that are installed."""
    find_installed()
    missing = missing_extras()
    there = [(suite_name, load) for suite_name, load in SUITES.items() if suite_name not in missing]
    return [f"{suite_name}/{name}" for suite_name, load in there for name in load().names()]


def make_env(env_id: str, **params: Any) -> Env:
    """Builds an environment from its id.

    Args:
        env_id: `suite/name`, for example `gymnax/Pendulum-v1`; `jaxsoft list` shows them all. Values for the
            environment's own parameters may follow it: `brax/hopper?backend=mjx&action_repeat=2`.
        **params: such values as keywords, for example `max_steps_in_episode=100`; they go before those in the id.

    Returns:
        A single, unwrapped `Env` in the environment's own units: `make_train` does the wrapping. Its `spec.id` has
        all values, so that it builds the same environment again (a value that no text can carry, like an array or
        a traced number, stands there as `…`).

    Raises:
        InputError: no such environment (the nearest names are suggested) or no such parameter.

    >>> make_env("gymnax/Pendulum-v1").spec.obs_shape
    (3,)
    >>> make_env("finite/Chain-5?discount=0.9", max_episode_steps=50).spec.id
    'finite/Chain-5?discount=0.9&max_episode_steps=50'
    """
    suite, name, in_id = find(env_id)
    params = in_id | params
    with jax.enable_x64(False):  # most suites' own code fails in double precision, and runs would differ
        env = suite.make(name, **{param: narrow(value) for param, value in params.items()})
    env = single_precision(convert_keys(env, fused) if suite.fused_keys else env, without_x64=True)
    return env._replace(spec=replace(env.spec, id=format_id(env_id.partition("?")[0], params)))


def env_of_run(env_id: str) -> Env:
    """The environment of a run that is read: `make_env`, with a word of its own where code of its author is missing.

    Raises:
        InputError: as `make_env`.
    """
    plain = env_id.partition("?")[0]
    if _may_be_own(plain) and _look_up(plain) is None:
        raise InputError(
            f"{plain} is not known; it was registered by code of your own: name that with --import FILE (in Python: "
            "import it)"
        )
    try:
        return make_env(env_id)
    except InputError as error:
        may_be_instance = plain.partition("/")[0] in ("gymnax", "brax") and ("?" in env_id or _look_up(plain) is None)
        if not may_be_instance:
            raise
        raise InputError(f"{error}; a run in an instance of your own is read with it, in Python: env=…") from None


def env_spec(env_id: str) -> EnvSpec:
    """The spec of an environment, without the time it takes to build it.

    Raises:
        InputError: no such environment, or it needs what is not there.
    """
    suite, name, params = find(env_id)
    return make_env(env_id).spec if params or suite.spec is None else suite.spec(name)


def find(env_id: str) -> tuple[Suite, str, dict[str, Any]]:
    """The suite, the name in it, and the values that follow it in the id.

    Raises:
        InputError: no such environment, or what follows the name cannot be read.
    """
    plain, has_params, query = env_id.partition("?")
    suite_name, _, name = plain.partition("/")
    if suite_name == "gymnasium":
        raise InputError(f"{env_id} runs on the host: it judges policies (`jaxsoft eval RUN --env`), nothing else")
    if suite_name in missing_extras():
        raise InputError(f"{env_id} needs a package that is not installed: pip install 'jaxsoft[{suite_name}]'")
    suite = _look_up(plain)
    if suite is None:
        hint = "; --import FILE brings in those of your own" if _may_be_own(plain) else ""
        near = nearest(plain, names(), _stem)
        raise InputError(f"unknown environment {env_id!r}{near} (`jaxsoft list` shows all{hint})")
    try:
        params = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if has_params else []
        if has_params and not params:
            raise ValueError
    except ValueError:
        raise InputError(
            f"the environment is {env_id!r}; what follows its name must be like ?name=value&other=value"
        ) from None
    for i, (param, _) in enumerate(params):
        if any(param == other for other, _ in params[:i]):
            raise InputError(f"the environment is {env_id!r}; it names {param!r} twice")
    return suite, name, {param: parse_value(value) for param, value in params}


def _look_up(plain: str) -> Suite | None:
    """The suite that has an environment."""
    suite_name, _, name = plain.partition("/")
    if suite_name not in (*BUILT_IN, *OPTIONAL):
        find_installed()
    suite = SUITES[suite_name]() if suite_name in SUITES else None
    return suite if suite and (suite.has(name) if suite.has else name in suite.names()) else None


def _may_be_own(plain: str) -> bool:
    """Whether an id is one that `register_env` takes."""
    suite_name, _, name = plain.partition("/")
    return bool(suite_name and name) and "/" not in name and suite_name not in (*BUILT_IN, *OPTIONAL)


def _stem(env_id: str) -> str:
    """An id without suite, version and spelling: `mjx/InvertedPendulum-v5` is like `brax/inverted_pendulum`."""
    return env_id.rpartition("/")[2].partition("-")[0].replace("_", "").lower()
