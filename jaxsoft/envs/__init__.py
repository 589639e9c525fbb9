"""Environments by name: `make_env("gymnax/Pendulum-v1")`; `register_suite` adds one's own to the suites there are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote

import jax
import numpy as np
from jax.core import Tracer

from jaxsoft.envs.check import check_env
from jaxsoft.envs.suites import SUITES, Film, Suite, register_suite
from jaxsoft.envs.wrappers import convert_keys, narrow, single_precision
from jaxsoft.errors import InputError, nearest
from jaxsoft.random import fused
from jaxsoft.types import Env, EnvSpec

__all__ = ["SUITES", "Film", "Suite", "check_env", "env_spec", "find", "make_env", "names", "register_suite"]


def names() -> list[str]:
    """Every environment's id, suite by suite."""
    return [f"{suite_name}/{name}" for suite_name, load in SUITES.items() for name in load().names()]


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
    return env._replace(spec=replace(env.spec, id=_format_id(env_id.partition("?")[0], params)))


def env_spec(env_id: str) -> EnvSpec:
    """What an environment looks like, without the time it takes to build it.

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
    suite = SUITES[suite_name]() if suite_name in SUITES else None
    if suite is None or not (suite.has(name) if suite.has else name in suite.names()):
        raise InputError(f"unknown environment {env_id!r}{nearest(plain, names(), _stem)} (`jaxsoft list` shows all)")
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
    return suite, name, {param: _parse_value(value) for param, value in params}


def _stem(env_id: str) -> str:
    """An id without suite, version and spelling: `mjx/InvertedPendulum-v5` is like `brax/inverted_pendulum`."""
    return env_id.rpartition("/")[2].partition("-")[0].replace("_", "").lower()


def _parse_value(text: str) -> Any:
    """A number, true, false or a list where the text is one, otherwise the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _format_id(env_id: str, params: dict[str, Any]) -> str:
    values = "&".join(f"{param}={_format_value(params[param])}" for param in sorted(params))
    return f"{env_id}?{values}" if values else env_id


def _format_value(value: Any) -> str:
    """What `_parse_value` reads; a value that no text can carry is told by `…`."""
    if isinstance(value, (jax.Array, np.generic)) and not isinstance(value, Tracer) and value.ndim == 0:
        value = value.item()
    try:
        return quote(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")), safe="[],")
    except TypeError:
        return "…"
