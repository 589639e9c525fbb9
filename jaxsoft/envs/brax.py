"""Brax environments as `Env`, built on Brax's raw environments: none of its wrappers, none of their merged flags.

Brax's `done` is `terminated`; the time limit is told apart as `truncated`. Importing Brax takes longer than JAX itself,
so the table below says what there is, and Brax is imported when an environment is built.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mujoco import import_mjx, mute_warnings
from jaxsoft.envs.parameters import changed, check_params, format_id
from jaxsoft.envs.suites import Film, Suite
from jaxsoft.envs.wrappers import as_types_of, time_limit
from jaxsoft.errors import InputError, positive_integer
from jaxsoft.random import make_key
from jaxsoft.types import Box, Env, EnvSpec, TimeStep, make_time_step

BACKENDS = ("spring", "positional", "generalized", "mjx")
"""Brax's physics engines, from the fastest to the most exact."""

MAX_EPISODE_STEPS = 1_000
"""Brax's own time limit, for all of its environments."""


class _Entry(NamedTuple):
    """Sizes of an environment, and the fastest backend that supports it.

    `spring` is the fastest, but its joints give: they store energy that no observation shows. In the pendulum's balance
    that is what counts: the next angular velocity does not follow from observation and action, and SAC, which learns
    `positional` in 20,000 steps, does not learn it.
    """

    num_obs: int
    num_actions: int
    backend: str = "spring"


_ENTRIES = {
    "ant": _Entry(27, 8),
    "fast": _Entry(2, 1),
    "halfcheetah": _Entry(17, 6),
    "hopper": _Entry(11, 3),
    "humanoid": _Entry(244, 17),
    "humanoidstandup": _Entry(244, 17),
    "inverted_double_pendulum": _Entry(8, 1),
    "inverted_pendulum": _Entry(4, 1, "positional"),
    "pusher": _Entry(23, 7),
    "reacher": _Entry(11, 2),
    "swimmer": _Entry(8, 2, "generalized"),
    "walker2d": _Entry(17, 6),
}
"""Every environment of Brax; `python benchmarks/envs.py --backends` measures the backends."""


def spec(name: str) -> EnvSpec:
    """The spec of one environment with its default parameters; does not import Brax."""
    entry = _ENTRIES[name]
    return _spec(f"brax/{name}", (entry.num_obs,), entry.num_actions, MAX_EPISODE_STEPS)


def make(
    name: str,
    *,
    backend: str | None = None,
    action_repeat: int = 1,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    **params: Any,
) -> Env:
    """Builds one Brax environment.

    Args:
        name: Brax's own, for example `hopper`.
        backend: physics engine, one of `BACKENDS`; by default the fastest that supports the environment.
        action_repeat: Brax steps for which each action is held; their rewards are summed, and where the task ends the
            rest is not taken.
        max_episode_steps: time limit in Brax steps, rounded up to whole actions.
        **params: keywords of Brax's own class, for example `reset_noise_scale=0.01`.

    Raises:
        InputError: no such backend for this environment, no such parameter, or a value it refuses.
    """
    action_repeat = positive_integer("action_repeat", action_repeat)
    max_episode_steps = positive_integer("max_episode_steps", max_episode_steps)
    env = _raw(name, _ENTRIES[name].backend if backend is None else backend, params)
    num_steps = -(-max_episode_steps // action_repeat)
    return make_env(f"brax/{name}", env, action_repeat=action_repeat, max_episode_steps=num_steps)


def from_brax(env: Any, max_episode_steps: int = MAX_EPISODE_STEPS) -> Env:
    """Makes an `Env` of an environment of Brax, of MuJoCo Playground, or of one's own with their interface.

    In its id, what differs from Brax's environment of its name follows as parameters, its backend among them.

    Args:
        env: as `brax.envs.get_environment("hopper")` makes it, wrapped in nothing: `reset(key) -> state` and
            `step(state, action) -> state` with `obs`, `reward` and `done`, and `action_size` actions in [−1, 1].
        max_episode_steps: its time limit, which Brax leaves to a wrapper.

    Raises:
        InputError: `env` is no such environment, or its observations are not arrays.
    """
    found = type(env).__name__
    if any(base.__name__ == "Wrapper" for base in type(env).__mro__):
        raise InputError(f"env is Brax's wrapper {found}; it must be the environment itself: jaxsoft wraps it")
    missing = [name for name in ("reset", "step", "action_size") if not hasattr(env, name)]
    if missing:
        raise InputError(f"env is {found}, without {missing[0]}; it must be like brax.envs.get_environment('hopper')")
    limit = positive_integer("max_episode_steps", max_episode_steps)
    is_brax = type(env).__module__.startswith("brax.")
    name = next((name for name in _ENTRIES if is_brax and name.replace("_", "") == found.lower()), None)
    given: dict[str, Any] = {} if limit == MAX_EPISODE_STEPS else {"max_episode_steps": limit}
    if name:
        backend = vars(env).get("_backend", _ENTRIES[name].backend)  # `fast` has none
        given |= changed({"backend": backend}, {"backend": _ENTRIES[name].backend})
        with jax.ensure_compile_time_eval(), jax.enable_x64(False):
            named = _raw(name, backend, {})
        given |= {x.removeprefix("_"): y for x, y in changed(vars(env), vars(named)).items()}
    env_id = format_id(f"brax/{name or found}", given)
    return make_env(env_id, env, action_repeat=1, max_episode_steps=limit)


def make_env(env_id: str, env: Any, *, action_repeat: int, max_episode_steps: int) -> Env:
    """Wraps an environment with Brax's interface; `max_episode_steps` counts steps of `action_repeat` of its own.

    Raises:
        InputError: its observations are not arrays.
    """
    first = jax.eval_shape(env.reset, make_key(0))
    obs = _policy_obs(first)
    if not isinstance(obs, jax.ShapeDtypeStruct):
        raise InputError(f"{env_id} observes a {type(obs).__name__} here; only array observations are supported")

    @jax.jit  # traced once, though training asks for it thrice: Brax takes a second to trace
    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state = as_types_of(first, env.reset(key))
        return state, make_time_step(_policy_obs(state))

    @jax.jit
    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        state = state.replace(done=jnp.zeros_like(state.done))

        def repeat(carry: tuple[Any, jax.Array], _: None) -> tuple[tuple[Any, jax.Array], None]:
            state, reward = carry
            after = as_types_of(first, env.step(state, action))
            going = state.done == 0
            state = jax.tree.map(lambda new, old: jnp.where(going, new, old), after, state)
            return (state, reward + jnp.where(going, after.reward, 0)), None

        if action_repeat == 1:
            state = as_types_of(first, env.step(state, action))
            reward = state.reward
        else:
            (state, reward), _ = jax.lax.scan(repeat, (state, jnp.zeros(())), length=action_repeat)
        return state, make_time_step(_policy_obs(state), reward, terminated=state.done > 0)

    spec = _spec(env_id, obs.shape, env.action_size, max_episode_steps)
    return time_limit(Env(replace(spec, obs_dtype=np.dtype(obs.dtype)), reset, step), max_episode_steps)


def _policy_obs(state: Any) -> Any:
    """The policy's observation; in Playground's robots a critic sees more (`privileged_state`)."""
    return state.obs["state"] if isinstance(state.obs, Mapping) and "state" in state.obs else state.obs


def film(
    path: Path, states: Sequence[Any], returns: Sequence[float], name: str, *, backend: str | None = None, **params: Any
) -> None:
    """Writes an episode as a page with Brax's viewer, which a browser fetches from Brax's own site; no returns."""
    params = {param: value for param, value in params.items() if param not in ("action_repeat", "max_episode_steps")}
    system = _raw(name, _ENTRIES[name].backend if backend is None else backend, params).sys
    save_page(path, system, [(state.pipeline_state.x.pos, state.pipeline_state.x.rot) for state, _ in states])


def load_system(model: Any) -> Any:
    """Brax's `System` of MuJoCo's `MjModel`."""
    _import_brax()
    with _mute_loading():
        return importlib.import_module("brax.io.mjcf").load_model(model)


def save_page(path: Path, system: Any, poses: Sequence[tuple[Any, Any]]) -> None:
    """Writes Brax's viewer of a `System` in poses: positions [num_bodies, 3] and rotations [num_bodies, 4]."""
    _import_brax()
    transform = importlib.import_module("brax.base").Transform
    states = [SimpleNamespace(x=transform(np.asarray(pos), np.asarray(rot))) for pos, rot in poses]
    path.write_text(importlib.import_module("brax.io.html").render(system, states, colab=False))


def _spec(env_id: str, obs_shape: tuple[int, ...], num_actions: int, max_episode_steps: int) -> EnvSpec:
    bound = np.ones(num_actions, np.float32)  # whatever the actuators' range: Brax maps [-1, 1] onto it
    float32 = np.dtype(np.float32)
    space, limit = Box(-bound, bound), max_episode_steps
    return EnvSpec(env_id, obs_shape, float32, space, limit, costly_reset=True, earliest_truncation=limit)


def _raw(name: str, backend: str, params: dict[str, Any]) -> Any:
    """Brax's own environment, with its parameters checked."""
    if backend not in BACKENDS:
        raise InputError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    env_class = _import_brax()._envs[name]
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(env_class.__init__).parameters.values()
        if isinstance(parameter.default, (bool, int, float, tuple))
    }
    params = check_params(f"brax/{name}", params, defaults, ("backend", "action_repeat", "max_episode_steps"))
    _say_once_that_brax_is_not_maintained()
    try:
        with _mute_loading():
            env = env_class(backend=backend, **params)
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"brax/{name} cannot be built with backend {backend!r} ({error})") from None
    if backend in ("spring", "positional") and name != "fast":  # others are large; `fast` has no physics
        step = jax.jit(env._pipeline.step)  # traced once for both loops
        env.pipeline_step = functools.partial(_pipeline_step, step, env.sys, env._n_frames)
    return env


def _pipeline_step(step: Any, system: Any, num_frames: int, state: Any, action: jax.Array) -> Any:
    """Brax's own loop over the frames of a step; an accelerator, to which each kernel costs time, gets no loop."""

    def frames(state: Any, action: jax.Array, unroll: int) -> Any:
        def frame(state: Any, _: None) -> tuple[Any, None]:
            return step(system, state, action), None

        return jax.lax.scan(frame, state, length=num_frames, unroll=unroll)[0]

    one_by_one, at_once = functools.partial(frames, unroll=1), functools.partial(frames, unroll=num_frames)
    return jax.lax.platform_dependent(state, action, cpu=one_by_one, default=at_once)


def _import_brax() -> ModuleType:
    """Imports Brax's environments, without MJX's lines on standard output, and mends what JAX has left behind."""
    import_mjx()
    fluid: Any = importlib.import_module("brax.fluid")
    if fluid.jp is jnp:
        fluid.jp = _JaxNumpyOfOld("jax.numpy")
    for name in ("spring.joints", "spring.collisions", "positional.joints", "positional.collisions"):
        module: Any = importlib.import_module(f"brax.{name}")
        module.segment_sum = _segment_sum
    return importlib.import_module("brax.envs")


class _JaxNumpyOfOld(ModuleType):
    """`jax.numpy` with a `clip` that takes the keywords Brax 0.14 gives it, for the drag on its swimmer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: jax.Array, a_min: Any = None, a_max: Any = None) -> jax.Array:
        return jnp.clip(x, a_min, a_max)


def _segment_sum(values: jax.Array, links: jax.Array, num_links: int) -> jax.Array:
    """Sums of the values that belong to each link. An accelerator's scatter is three kernels that fuse with nothing."""

    def masked(values: jax.Array, links: jax.Array) -> jax.Array:
        belongs = links == jnp.arange(num_links)[:, None]
        return jnp.sum(jnp.where(jnp.expand_dims(belongs, range(2, values.ndim + 1)), values, 0), axis=1)

    scatter = functools.partial(jax.ops.segment_sum, num_segments=num_links)
    return jax.lax.platform_dependent(values, links, cpu=scatter, default=masked)


@functools.cache
def _say_once_that_brax_is_not_maintained() -> None:
    """In one line on standard error, unless logging is set up otherwise."""
    logging.getLogger("jaxsoft").warning(
        "note: Brax's environments are no longer actively maintained; their authors point to MuJoCo MJX "
        "(here: mjx/Hopper-v5 and others)"
    )


@contextlib.contextmanager
def _mute_loading() -> Iterator[None]:
    """Mutes Brax's own, longer words on its maintenance, which it repeats for each environment."""
    with mute_warnings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        yield


SUITE = Suite("brax", lambda: list(_ENTRIES), make, spec=spec, film=Film(".html", film), fused_keys=True)
