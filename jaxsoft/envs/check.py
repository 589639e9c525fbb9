"""One check of an environment, wherever it comes from: `reset` and `step` are traced once, nothing is compiled.

A thorough check runs them, too: see `jaxsoft.envs.trial`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsoft.envs.trial import try_out
from jaxsoft.envs.wrappers import narrow_dtype, scale_to_bounds
from jaxsoft.errors import InputError, in_one_line, where_raised
from jaxsoft.random import make_key
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, check_bounds

TRACER_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""JAX's errors of functions that cannot be traced."""


def check_env(env: Any, *, thorough: bool = False) -> None:
    """Checks an environment against what `Env`, `EnvSpec` and `TimeStep` promise.

    Args:
        env: from outside, or from `make_env`.
        thorough: play episodes with random actions, too, which takes seconds: the same key gives the same result, `jit`
            and `vmap` work, numbers are finite, no episode is reset by the environment itself. What is allowed, and
            yet hardly meant, about time limits is warned of.

    Raises:
        InputError: names the field or the function, what was found and what is allowed.
    """
    require_env(env)
    check_spec(env.spec)
    _check_arguments("reset", env.reset, ("key",))
    _check_arguments("step", env.step, ("key", "state", "action"))
    if env.render is not None:
        _check_arguments("render", env.render, ("state",))
    with _own_errors():
        jax.eval_shape(lambda: _check_results(env))
        if thorough:
            try_out(env)
            if env.render is not None:
                check_picture(env.render(jax.device_get(env.reset(make_key(0))[0])))


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Tells whatever an environment's own functions raise in one line."""
    try:
        yield
    except (InputError, MemoryError, Warning):
        raise
    except jax.errors.UnexpectedTracerError as error:
        where = where_raised(error) or "it"
        raise InputError(
            f"the environment keeps a traced array outside of its state: {where} reads one of an earlier call; all "
            "that it remembers must be in the state"
        ) from error
    except TRACER_ERRORS as error:
        message = str(error).partition(". ")[0].partition("\n")[0]
        raise InputError(
            f"the environment cannot be traced: {where_raised(error)} needs the value of an array, which jax.jit does "
            f"not know; jnp.where and jax.lax.cond choose by one ({message})"
        ) from error
    except Exception as error:
        raise InputError(f"the environment's own code fails: {in_one_line(error)}") from error


def require_env(env: Any) -> None:
    """Raises an `InputError` for what is no `Env`, which names the function that makes one of it."""
    if isinstance(env, Env):
        return
    native = env[0] if isinstance(env, tuple) and env else env  # gymnax.make gives (environment, parameters)
    found, wanted = _show(env), f"make_env({_shorten(repr(env if isinstance(env, str) else 'suite/name'))})"
    if hasattr(native, "step_env"):
        found, wanted = f"gymnax's own {type(native).__name__}", "jaxsoft.from_gymnax(env, params)"
    elif hasattr(native, "step") and hasattr(native, "action_size"):
        found, wanted = f"Brax's own {type(native).__name__}", "jaxsoft.from_brax(env)"
    raise InputError(f"env is {found}; it must be {wanted}, or an Env(spec, reset, step)")


def check_spec(spec: Any) -> None:
    """Checks the fields of an `EnvSpec`.

    Raises:
        InputError: names the field, its value and what is allowed.
    """
    if not isinstance(spec, EnvSpec):
        raise InputError(f"spec is {_show(spec)}; it must be an EnvSpec")
    if not isinstance(spec.id, str):
        raise InputError(f"id is {_show(spec.id)}; it must be a text")
    if not isinstance(spec.obs_shape, tuple) or not all(map(_is_size, spec.obs_shape)):
        raise InputError(f"obs_shape is {_show(spec.obs_shape)}; it must be a tuple of positive integers")
    if not _is_number_type(spec.obs_dtype):
        raise InputError(f"obs_dtype is {_show(spec.obs_dtype)}; it must be a dtype of real numbers or of bool")
    if isinstance(spec.action_space, Box):
        _check_box(spec.id, spec.action_space)
    elif isinstance(spec.action_space, Discrete):
        _check_count("num_actions", spec.action_space.num_actions)
    else:
        raise InputError(f"action_space is {_show(spec.action_space)}; it must be a Box or a Discrete")
    _check_count("max_episode_steps", spec.max_episode_steps)
    _check_count("earliest_truncation", spec.earliest_truncation)


def check_picture(picture: Any) -> None:
    """Checks what `Env.render` returns.

    Raises:
        InputError: it is no array of NumPy, of another dtype, or of another shape.
    """
    is_array = isinstance(picture, np.ndarray)
    if not is_array or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        found = _show(picture) if is_array else f"{type(picture).__name__} {_show(picture)}"
        raise InputError(f"render returns {found}; it must return NumPy's uint8[height, width, 3]")


def _check_count(name: str, value: Any) -> None:
    if not _is_size(value) or value >= 2**31:
        raise InputError(f"{name} is {_show(value)}; it must be a positive integer below 2^31")


def _check_box(env_id: str, box: Box) -> None:
    for name, bound in (("low", box.low), ("high", box.high)):
        is_array = isinstance(bound, (np.ndarray, jax.Array)) and not isinstance(bound, Tracer)
        if not is_array or not bound.size or not jnp.issubdtype(bound.dtype, jnp.floating):
            allowed = "a NumPy array of floating-point numbers, of an action's shape"
            raise InputError(f"action_space.{name} is {_show(bound)}; it must be {allowed}")
    if box.low.shape != box.high.shape or box.low.dtype != box.high.dtype:
        raise InputError(f"action_space.low is {_show(box.low)} and high is {_show(box.high)}; they must be alike")
    check_bounds(env_id, box)


def _check_arguments(name: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Whether a function can be called with these arguments by position."""
    wanted = f"it must be a function of ({', '.join(arguments)})"
    if not callable(function):
        raise InputError(f"{name} is {_show(function)}; {wanted}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a function without one, of another language
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InputError(f"{name} takes ({', '.join(signature.parameters)}); {wanted}") from None


def _check_results(env: Env) -> None:
    """Takes the first step under a trace, and looks at the shapes and dtypes of what comes back."""
    key, space = make_key(0), env.spec.action_space
    state, first = _state_and_time_step("reset", env.reset(key))
    _check_time_step("reset", first, env.spec)
    action = jnp.zeros(space.shape, jnp.float32 if isinstance(space, Box) else jnp.int32)
    action = scale_to_bounds(action, space)  # of the dtype that training gives
    next_state, time_step = _state_and_time_step("step", env.step(key, state, action))
    _check_time_step("step", time_step, env.spec)
    _check_states(state, next_state)


def _state_and_time_step(name: str, result: Any) -> tuple[Any, TimeStep]:
    wanted = "it must return (state, TimeStep), see make_time_step"
    if not isinstance(result, (tuple, list)):
        raise InputError(f"{name} returns {_show(result)}; {wanted}")
    if len(result) != 2 or not isinstance(result[1], TimeStep):
        swapped = ", which are swapped" if len(result) == 2 and isinstance(result[0], TimeStep) else ""
        raise InputError(f"{name} returns ({', '.join(map(_show, result))}){swapped}; {wanted}")
    return result[0], result[1]


def _check_time_step(name: str, time_step: TimeStep, spec: EnvSpec) -> None:
    obs = f"{narrow_dtype(spec.obs_dtype)}{list(map(int, spec.obs_shape))}"
    wanted = TimeStep(*cast(Any, (obs, obs, "float32[]", "bool[]", "bool[]", "float32[]", "int32[]")))
    for field, allowed in vars(wanted).items():
        found = _array_type(getattr(time_step, field)) or _show(getattr(time_step, field))
        if found != allowed:
            source = "as the spec says" if field in ("obs", "next_obs") else "see make_time_step"
            raise InputError(f"{field} of {name} is {found}; it must be {allowed}, {source}")


def _check_states(before: Any, after: Any) -> None:
    """A state keeps its structure, shapes and dtypes: a loop carries it."""
    (leaves, structure), (new_leaves, new_structure) = map(jax.tree_util.tree_flatten_with_path, (before, after))
    for path, leaf in leaves + new_leaves:
        if _array_type(leaf) is None:
            where = jax.tree_util.keystr(path)
            raise InputError(f"state{where} is {_show(leaf)}; it must be an array, or a pytree of arrays")
    if structure != new_structure:
        trees = " and ".join(_shorten(str(tree).removeprefix("PyTreeDef")) for tree in (structure, new_structure))
        raise InputError(f"state has one structure after reset and another after step, {trees}; it must keep it")
    for (path, leaf), (_, new) in zip(leaves, new_leaves, strict=True):
        types = [_array_type(x) for x in (leaf, new)]
        if types[0] != types[1]:
            where = jax.tree_util.keystr(path)
            raise InputError(f"state{where} is {types[0]} after reset and {types[1]} after step; it must stay the same")


def _is_size(size: Any) -> bool:
    return isinstance(size, (int, np.integer)) and not isinstance(size, bool) and bool(size > 0)


def _is_number_type(dtype: Any) -> bool:
    try:
        return dtype is not None and any(
            jnp.issubdtype(np.dtype(dtype), kind) for kind in (np.integer, np.floating, np.bool_)
        )
    except TypeError:
        return False


def _array_type(value: Any) -> str | None:
    """Dtype and shape of an array or a number, in 32 bits, like float32[3]; None of anything else."""
    try:
        found = jax.eval_shape(lambda: value)
    except TypeError:
        return None
    return f"{narrow_dtype(found.dtype)}{list(found.shape)}" if isinstance(found, jax.ShapeDtypeStruct) else None


def _show(value: Any) -> str:
    """A value in a few words: an array's type, a function's or a class's name, or what Python writes of it."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (str, int, float, np.generic, list, dict, type(None))) or type(value) is tuple:
        return _shorten(repr(value))
    return getattr(value, "__name__", type(value).__name__)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"
