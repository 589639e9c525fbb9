"""Trained policies as files that need no jaxsoft: StableHLO, which JAX runs, and ONNX."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from jax.extend.core.primitives import jit_p
from jax.interpreters.partial_eval import dce_jaxpr

from jaxsoft.errors import InputError
from jaxsoft.runs.config import read_config
from jaxsoft.runs.files import tell_errors, write_atomically
from jaxsoft.runs.policies import Policy, load_policy
from jaxsoft.training.evaluation import evaluation_key
from jaxsoft.types import Box

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Where an exported StableHLO program runs."""

PACKAGES = {"stablehlo": ("flatbuffers", "export"), "onnx": ("jax2onnx", "onnx")}
"""The package that each format needs, and the extra of jaxsoft that installs it."""


def export_policy(
    path: str | Path,
    out: str | Path | None = None,
    *,
    seed: int | None = None,
    format: str = "stablehlo",
    deterministic: bool = True,
    allow_failed: bool = False,
    **settings: Any,
) -> Path:
    """Writes a trained policy to a file, its parameters inside, and beside it its description in a .json file.

    It is a function of observations [batch, *obs_shape] to actions [batch, *action_shape] in the environment's units,
    for any batch. A stochastic one is a function of a key, uint32 [2], and observations.

    Args:
        path: a run directory; see `load_policy`.
        out: the file; by default policy.stablehlo or policy.onnx in the run directory.
        seed: one of the run's; by default its first.
        format: `stablehlo`, for `jax.export.deserialize`, or `onnx`, of deterministic policies.
        deterministic: act by the policy's mode instead of a sample.
        allow_failed: take a failed seed's policy from before it failed.
        **settings: settings that name one cell of the run's sweep.

    Returns:
        The file.

    Raises:
        InputError: as `load_policy`; a package is missing, or the format has no such policy; or the file cannot be
            written.
    """
    if format not in PACKAGES:
        raise InputError(f"format is {format!r}; it must be {' or '.join(PACKAGES)}")
    if format == "onnx" and not deterministic:
        raise InputError("format is 'onnx', which has no random keys; export a stochastic policy as stablehlo")
    package, extra = PACKAGES[format]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{format} needs the package {package}: pip install 'jaxsoft[{extra}]'")
    path, file = Path(path), Path(out or Path(path) / f"policy.{format}")
    if file.suffix == ".json":
        raise InputError(f"out is {str(file)!r}; the description beside it has that name")
    policy = load_policy(path, seed=seed, deterministic=deterministic, allow_failed=allow_failed, **settings)
    content = _stablehlo(policy) if format == "stablehlo" else _onnx(policy)
    with tell_errors(file, "written"):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)
    config = read_config(path)
    chosen = {"agent": config.train.kind.name, "seed": config.seed if seed is None else seed, "settings": settings}
    description = {"format": format, **chosen, **describe(policy)}
    write_atomically(file.with_suffix(".json"), (json.dumps(description, indent=2) + "\n").encode())
    return file


def describe(policy: Policy) -> dict[str, Any]:
    """Description of a policy for the users of its file, for JSON."""
    spec, space = policy.env_spec, policy.env_spec.action_space
    action: dict[str, Any] = {"num_actions": getattr(space, "num_actions", None)}
    if isinstance(space, Box):
        action = {"shape": space.shape, "low": np.asarray(space.low).tolist(), "high": np.asarray(space.high).tolist()}
    return {
        "env": spec.id,
        "inputs": [*["key: uint32 [2]"] * (not policy.deterministic), f"obs: {_shape(spec.obs_shape, spec.obs_dtype)}"],
        "output": f"action: {_shape(space.shape, np.dtype('float32' if isinstance(space, Box) else 'int32'))}",
        "action": action,
        "jax": importlib.metadata.version("jax"),
    }


def _shape(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{dtype.name} [{', '.join(('batch', *map(str, shape)))}]"


def _act(policy: Policy) -> Callable[..., jax.Array]:
    """The function that is exported."""

    def act_by_mode(obs: jax.Array) -> jax.Array:
        return policy.choose(evaluation_key(0), obs)

    def draw_action(key: jax.Array, obs: jax.Array) -> jax.Array:
        return policy.choose(jax.random.wrap_key_data(key, impl="threefry2x32"), obs)

    return act_by_mode if policy.deterministic else draw_action


def _for_converters(act: Callable[[jax.Array], jax.Array], obs: jax.ShapeDtypeStruct) -> Callable[..., list[Any]]:
    """The same function without what a converter cannot convert and the action does not need.

    That is what the action does not depend on, and the choices of `jax.lax.platform_dependent`: of each the branch for
    all other platforms is taken. It is traced here, since a converter puts operations of its own in flax's place.
    """
    closed = jax.make_jaxpr(act)(obs)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True], instantiate=True)
    return functools.partial(_evaluate, ClosedJaxpr(jaxpr, closed.consts))


def _evaluate(closed: ClosedJaxpr, *inputs: jax.Array) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))
    for equation in jaxpr.eqns:
        arguments = [x.val if isinstance(x, Literal) else values[x] for x in equation.invars]
        if equation.primitive.name == "platform_index":
            outputs = [equation.params["platforms"].index(None)]
        elif platforms := equation.params.get("branches_platforms"):
            outputs = _evaluate(equation.params["branches"][platforms.index(None)], *arguments[1:])
        elif equation.primitive is jit_p:
            outputs = _evaluate(equation.params["jaxpr"], *arguments)
        elif "call_jaxpr" in equation.params:  # of a function with derivatives of its own
            outputs = _evaluate(equation.params["call_jaxpr"], *arguments)
        else:
            parameters: Any = equation.primitive.get_bind_params(equation.params)
            outputs = equation.primitive.bind(*arguments, **parameters)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]


def _observations(policy: Policy) -> jax.ShapeDtypeStruct:
    """A batch of any size."""
    (batch,) = jax.export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, *policy.env_spec.obs_shape), policy.env_spec.obs_dtype)


def _stablehlo(policy: Policy) -> bytes:
    inputs = [_observations(policy)]
    if not policy.deterministic:
        inputs.insert(0, jax.ShapeDtypeStruct((2,), jnp.uint32))
    return bytes(jax.export.export(jax.jit(_act(policy)), platforms=PLATFORMS)(*inputs).serialize())


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences the converter's own warnings, which tell users of a policy nothing."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _onnx(policy: Policy) -> bytes:
    from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]

    obs = _observations(policy)
    try:
        with _without_warnings():
            act = _for_converters(_act(policy), obs)
            model: Any = to_onnx(act, [obs], model_name="policy", input_names=["obs"], output_names=["action"])
    except Exception as error:  # it knows many operations, not all, and has no errors of its own
        message = " ".join(str(error).split())[:200]
        raise InputError(f"jax2onnx cannot convert this policy ({type(error).__name__}: {message})") from error
    return model.SerializeToString()
