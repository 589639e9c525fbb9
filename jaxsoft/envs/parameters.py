"""Values for an environment's own parameters, each checked against its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
