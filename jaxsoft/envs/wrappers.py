"""Wrappers, each an `Env -> Env`, and the one order in which training and evaluation put them on.

    convert_keys, full_products, single_precision → scale_actions → record_episodes → auto_reset → vectorise
                                                where a reset is costly → vectorise → auto_reset_from_pool

Those up to `record_episodes` keep an episode an episode: evaluation stops there. The others are for training.
`record_episodes` counts steps, and so enforces the spec's `max_episode_steps` on every environment, whoever wrote it;
`time_limit` is for a suite whose environments have no limit of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.ops.averages import add, no_sum
from jaxsoft.precision import in_precision
from jaxsoft.random import unfused
from jaxsoft.types import ActionSpace, Box, Env, TimeStep, check_bounds

NARROW = {np.dtype(f"{kind}64"): np.dtype(f"{kind}32") for kind in ("float", "int", "uint")}
"""The dtypes that only double precision has, and what stands for them in 32 bits."""


def wrap_for_evaluation(env: Env) -> Env:
    """An environment whose continuous actions are in [−1, 1] and whose episodes carry their return, and end."""
    return record_episodes(scale_actions(single_precision(full_products(convert_keys(env, unfused)))))


def wrap_for_training(env: Env, num_envs: int) -> Env:
    """`num_envs` environments side by side that start a fresh episode wherever one has ended."""
    env = wrap_for_evaluation(env)
    if env.spec.costly_reset:
        return auto_reset_from_pool(vectorise(env, num_envs), num_envs)
    return vectorise(auto_reset(env), num_envs)


def narrow_dtype(dtype: Any) -> Any:
    """The dtype in 32 bits that stands for one of 64 bits; any other, a random key's included, as it is."""
    return dtype if jnp.issubdtype(dtype, jax.dtypes.extended) else NARROW.get(np.dtype(dtype), np.dtype(dtype))


def narrow(x: Any) -> Any:
    """An array of 64-bit numbers in 32 bits; anything else as it is."""
    return x.astype(NARROW[x.dtype]) if getattr(x, "dtype", None) in NARROW else x


def as_types_of(like: Any, state: Any) -> Any:
    """A state with the dtypes of another: of Python numbers, whose weak types change from reset to step, arrays."""
    return jax.tree.map(lambda one, x: jnp.asarray(x, one.dtype), like, state)


def single_precision(env: Env, *, without_x64: bool = False) -> Env:
    """Keeps states and time steps in 32 bits, also in JAX's double precision.

    There an environment's numbers become 64 bits wide wherever its code does not say otherwise, in a step perhaps where
    they are not in a reset.

    Args:
        env: any.
        without_x64: let it compute in 32 bits, too; its arrays must have been made so. Otherwise that is its own
            affair, and only what it leaves is made narrow.
    """

    def called(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            arguments = jax.tree.map(narrow, arguments)
            with jax.enable_x64(False) if without_x64 else nullcontext():
                results = function(*arguments)
            return jax.tree.map(lambda x: narrow(jnp.asarray(x)), results)

        return call

    spec = replace(env.spec, obs_dtype=narrow_dtype(env.spec.obs_dtype))
    return env._replace(spec=spec, reset=called(env.reset), step=called(env.step))


def convert_keys(env: Env, convert: Callable[[jax.Array], jax.Array]) -> Env:
    """Gives an environment its keys as `fused` or `unfused` of `jaxsoft.random` returns them."""
    return env._replace(
        reset=lambda key: env.reset(convert(key)),
        step=lambda key, state, action: env.step(convert(key), state, action),
    )


def full_products(env: Env) -> Env:
    """Computes an environment's products of matrices in float32, where its code asks for no other precision.

    JAX's own choice on accelerators is less: fast enough for networks, and no physics.
    """
    return env._replace(reset=in_precision(env.reset, "float32"), step=in_precision(env.step, "float32"))


def scale_actions(env: Env) -> Env:
    """Takes continuous actions in [−1, 1] and maps them onto the environment's bounds.

        action ↦ low (1 − action) / 2 + high (1 + action) / 2

    Discrete actions pass through. The map is outside every policy's density (shared convention of SAC).

    Raises:
        InputError: the bounds are not finite.
    """
    space = env.spec.action_space
    if not isinstance(space, Box):
        return env
    check_bounds(env.spec.id, space)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return env.step(key, state, scale_to_bounds(action, space))

    return env._replace(spec=replace(env.spec, action_space=scale_space(space)), step=step)


def scale_space(space: ActionSpace) -> ActionSpace:
    """The action space that agents see: a `Box` between −1 and 1 in place of one with other bounds."""
    return Box(np.full_like(space.low, -1), np.full_like(space.high, 1)) if isinstance(space, Box) else space


def scale_to_bounds(action: jax.Array, space: ActionSpace) -> jax.Array:
    """Maps actions in [−1, 1] onto the bounds of a `Box`, and never beyond; [..., *action_shape]. Others stay."""
    if not isinstance(space, Box):
        return action
    low, high = jnp.asarray(space.low), jnp.asarray(space.high)
    # so −1 and 1 give the bounds to the bit; between them rounding may exceed one by a unit in the last place
    return jnp.clip(low * (0.5 - 0.5 * action) + high * (0.5 + 0.5 * action), low, high)


def time_limit(env: Env, max_episode_steps: int) -> Env:
    """Truncates episodes after `max_episode_steps`; an episode that terminates on that step is no truncation.

    The spec of an environment that truncates none itself says so beforehand, by `earliest_truncation`.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.reset(key)
        return (state, jnp.zeros((), jnp.int32)), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, time = state
        inner, time_step = env.step(key, inner, action)
        time = time + 1
        return (inner, time), _stop_at(max_episode_steps, time, time_step)

    limit = min(max_episode_steps, env.spec.max_episode_steps)
    render = env.render and (lambda state: env.render(state[0]))  # type: ignore[misc]
    return Env(replace(env.spec, max_episode_steps=limit), reset, step, render)


def _stop_at(limit: int, time: jax.Array, time_step: TimeStep) -> TimeStep:
    """Truncates the episode where its `time`-th step is the last allowed one and has not terminated it."""
    out_of_time = (time >= limit) & jnp.logical_not(time_step.terminated)
    return replace(time_step, truncated=time_step.truncated | out_of_time)


def record_episodes(env: Env) -> Env:
    """Fills `episode_return` and `episode_length`, and truncates episodes after the spec's `max_episode_steps`.

    On an episode's last step the two are its totals. An environment that keeps its own limit is left as it is.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.reset(key)
        length = jnp.zeros((), jnp.int32)  # whatever the environment says: the limit depends on it
        time_step = replace(time_step, episode_return=no_sum().value, episode_length=length)
        return (state, no_sum(), length), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, episode_return, episode_length = state
        inner, time_step = env.step(key, inner, action)
        episode_return = add(episode_return, time_step.reward)
        episode_length = episode_length + 1
        time_step = replace(time_step, episode_return=episode_return.value, episode_length=episode_length)
        return (inner, episode_return, episode_length), _stop_at(env.spec.max_episode_steps, episode_length, time_step)

    return Env(env.spec, reset, step)


def auto_reset(env: Env) -> Env:
    """Starts a new episode, from a fresh random state, in the step that ends one.

    The ended episode's flags, reward, totals and true successor (`next_obs`) stay in that step's `TimeStep`;
    only `obs` is the new episode's first. The reset is computed at every step and selected: right for
    environments whose reset is cheap; `auto_reset_from_pool` is for the others.
    """

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        step_key, reset_key = jax.random.split(key)
        state, time_step = env.step(step_key, state, action)
        fresh_state, fresh = env.reset(reset_key)
        state, obs = jax.tree.map(
            lambda new, old: jnp.where(time_step.done, new, old),
            (fresh_state, fresh.obs),
            (state, time_step.obs),
        )
        return state, replace(time_step, obs=obs)

    return Env(env.spec, env.reset, step)


def vectorise(env: Env, num_envs: int) -> Env:
    """`num_envs` independent copies: every array gains a leading axis [num_envs], every copy its own key."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return jax.vmap(env.step)(jax.random.split(key, num_envs), state, action)

    return Env(env.spec, reset, step)


@struct.dataclass
class StartPool:
    """Start states drawn ahead, each given to one episode.

    Attributes:
        starts: (state, obs) of `num_envs` resets, leaves [num_envs, ...].
        num_used: [], int32; the first so many have been given out.
    """

    starts: tuple[Any, jax.Array]
    num_used: jax.Array


def auto_reset_from_pool(envs: Env, num_envs: int) -> Env:
    """`auto_reset` for environments whose reset is too costly to be computed at every step.

    Takes vectorised environments and keeps beside them a pool of `num_envs` start states. Environments that end at
    the same step take different ones, in order; where too few are left, the whole pool is drawn anew by one batched
    reset, and what was left is dropped. What holds:

    * Starts do not repeat: each is given to one episode, and is drawn by `envs.reset` from a key of its own.
    * The step that ends an episode restarts it, however many end at once.
    * Resets are computed at no step without an end, and at most in 2 / L of the steps, where L is the mean length of
      the episodes. Under a `vmap` over S seeds all seeds draw when one has to (the others drop theirs): at most in
      2 S / L of the steps, and no more often than `auto_reset`.
    * A seed's steps are the same whichever others run beside it: all follows from its keys.
    * The pool takes the memory of the environments' states once more.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = envs.reset(key)
        spent = jax.tree.map(jnp.zeros_like, (state, time_step.obs))
        return (state, StartPool(spent, jnp.full((), num_envs, jnp.int32))), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        step_key, pool_key = jax.random.split(key)
        state, pool = state
        state, time_step = envs.step(step_key, state, action)
        num_ended = jnp.sum(time_step.done, dtype=jnp.int32)
        pool = _ensure_starts(pool_key, pool, num_ended, envs, num_envs)
        (state, obs), pool = _restart((state, time_step.obs), time_step.done, num_ended, pool)
        return (state, pool), replace(time_step, obs=obs)

    return Env(envs.spec, reset, step)


def _ensure_starts(key: jax.Array, pool: StartPool, num_ended: jax.Array, envs: Env, num_envs: int) -> StartPool:
    """The pool, drawn anew if it has not `num_ended` starts left."""

    def too_few(carry: tuple[StartPool, jax.Array]) -> jax.Array:
        return carry[0].num_used + num_ended > num_envs

    def draw(carry: tuple[StartPool, jax.Array]) -> tuple[StartPool, jax.Array]:
        # the key is carried though one round is all there is: what does not change in a loop, XLA computes before it,
        # whether the loop has a round or not
        pool, key = carry
        key, reset_key = jax.random.split(key)
        state, time_step = envs.reset(reset_key)
        return StartPool((state, time_step.obs), jnp.zeros_like(pool.num_used)), key

    # a loop of one round at most: a conditional under vmap would compute both of its branches
    return jax.lax.while_loop(too_few, draw, (pool, key))[0]


def _restart(
    current: tuple[Any, jax.Array], done: jax.Array, num_ended: jax.Array, pool: StartPool
) -> tuple[tuple[Any, jax.Array], StartPool]:
    """Puts the pool's next starts where episodes ended: `current` is (state, obs), leaves [num_envs, ...]."""
    # of an ended environment; the others' are not looked at
    slot = pool.num_used + jnp.cumsum(done, dtype=jnp.int32) - 1

    def take(start: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(done.reshape(done.shape + (1,) * (now.ndim - 1)), start[slot], now)

    return jax.tree.map(take, pool.starts, current), replace(pool, num_used=pool.num_used + num_ended)
