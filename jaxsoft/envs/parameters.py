"""Values for an environment's own parameters: each checked against its default, and written into an id."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsoft.errors import InputError, nearest, positive_integer


def check_params(
    env_id: str, params: Mapping[str, Any], defaults: Mapping[str, Any], others: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Parameters by name, each in its default's kind.

    A traced number may stand for a float.

    Args:
        env_id: for messages.
        params: values by name.
        defaults: of all parameters that the environment has, by name.
        others: names of parameters that are checked elsewhere, for messages.

    Raises:
        InputError: the environment has no such parameter, or a value is of another kind than its default, or a number
            of steps is not positive.
    """
    for name in params:
        if name not in defaults:
            known = ", ".join([*others, *sorted(defaults)])
            raise InputError(f"{env_id} has no parameter {name!r}; it has: {known}{nearest(name, defaults)}")
    return {name: _match_default(name, value, defaults[name]) for name, value in params.items()}


def _match_default(name: str, value: Any, default: Any) -> Any:
    if isinstance(value, (jax.Array, np.generic)) and not isinstance(value, Tracer) and value.ndim == 0:
        value = value.item()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    allowed = f"like its default, {default}"
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        allowed = f"true or false, {allowed}"
    elif "steps" in name:
        return type(default)(positive_integer(name, value))
    elif isinstance(default, int):
        least = min(default, 1)  # integers count something: steps, frames, cells
        if number and least <= value < 2**31 and value % 1 == 0:
            return int(value)
        allowed = f"{'' if least else '0 or '}a positive integer below 2^31, {allowed}"
    elif isinstance(default, float):
        if (number and math.isfinite(value)) or isinstance(value, Tracer):
            return value if isinstance(value, Tracer) else float(value)
        allowed = f"a finite number, {allowed}"
    elif isinstance(default, (tuple, np.ndarray, jax.Array)):
        shape = np.shape(default)
        try:
            array = np.asarray(value, float)
            if array.shape == shape and not np.isnan(array).any():
                is_tuple = isinstance(default, tuple)
                return tuple(array.tolist()) if is_tuple else jnp.asarray(array, default.dtype)
        except (TypeError, ValueError):
            pass
        allowed = f"{' x '.join(map(str, shape))} numbers, like its default, {np.asarray(default).tolist()}"
    else:
        return value
    raise InputError(f"{name} is {value!r}; it must be {allowed}")


def format_id(env_id: str, params: Mapping[str, Any]) -> str:
    """An id with values for parameters, like `gymnax/Pendulum-v1?g=5.0`."""
    values = "&".join(f"{param}={_format_value(params[param])}" for param in sorted(params))
    return f"{env_id}?{values}" if values else env_id


def parse_value(text: str) -> Any:
    """A number, true, false or a list where the text is one, otherwise the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _format_value(value: Any) -> str:
    """A value as the text that `parse_value` reads; `…` for one that no text can carry."""
    if isinstance(value, (jax.Array, np.generic)) and not isinstance(value, Tracer) and value.ndim == 0:
        value = value.item()
    try:
        return quote(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")), safe="[],")
    except TypeError:
        return "…"


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not those of the same name in `defaults`: numbers, texts, and pytrees of arrays."""
    return {name: x for name, x in values.items() if name not in defaults or not _is_same(x, defaults[name])}


def _is_same(one: Any, other: Any) -> bool:
    """Whether all leaves are equal; functions and other objects are taken to be."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(map(_is_same_leaf, leaves, others))


def _is_same_leaf(x: Any, y: Any) -> bool:
    if isinstance(x, Tracer) or isinstance(y, Tracer):
        return x is y
    if not all(isinstance(z, (bool, int, float, str, np.generic, np.ndarray, jax.Array)) for z in (x, y)):
        return type(x) is type(y)
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind == y.dtype.kind == "f":  # in the precision that is computed in
        return np.array_equal(x.astype(np.float32), y.astype(np.float32), equal_nan=True)
    return np.array_equal(x, y)
