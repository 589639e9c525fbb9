"""An environment tried out: episodes with random actions, and what they show that no trace does."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.wrappers import single_precision
from jaxsoft.errors import InputError, in_one_line
from jaxsoft.random import make_key
from jaxsoft.types import Box, Env, EnvSpec, TimeStep

NUM_EPISODES = 8

MOST_STEPS = 1_000
"""Steps of an episode at most; what a longer one shows later is not seen."""


@struct.dataclass
class Steps:
    """The checked quantities of steps; steps after an episode's end are ignored.

    Attributes:
        reward: [...].
        obs_is_finite: [...], bool.
        obs_is_next: [...], bool; whether `obs` is `next_obs`.
        obs_is_start: [...], bool; whether `obs` is that of the episode's reset.
        state_is_start: [..., num_leaves], bool; the same of the state's leaves.
        obs_is_drawn: [...], bool; whether `obs` is another one with another key.
        terminated: [...], bool.
        truncated: [...], bool.
    """

    reward: jax.Array
    obs_is_finite: jax.Array
    obs_is_next: jax.Array
    obs_is_start: jax.Array
    state_is_start: jax.Array
    obs_is_drawn: jax.Array
    terminated: jax.Array
    truncated: jax.Array


def try_out(env: Env) -> None:
    """Plays episodes in an environment whose functions can be traced.

    Raises:
        InputError: something in them is not as `Env` and `TimeStep` promise.
    """
    _check_purity(env)
    starts, first, steps = _play(single_precision(env))
    _check_first(first)
    running = np.cumsum(steps.terminated | steps.truncated, 0) - (steps.terminated | steps.truncated) == 0
    _check_steps(steps, running)
    _check_limit(steps, running, env.spec)
    obs_alike, *leaves_alike = [bool((x == x[0]).all()) for x in starts]
    _check_ends(steps, running, obs_alike=obs_alike, leaves_alike=np.array(leaves_alike, bool))


def _check_purity(env: Env) -> None:
    """The same arguments give the same results, called again: no random numbers from elsewhere, no state outside.

    Functions below a `jax.jit` are traced for the second call anew: JAX remembers traces by its settings, of which the
    one that is changed meanwhile changes no result.
    """
    reset, step = (inspect.unwrap(function) for function in (env.reset, env.step))  # without a jit that remembers
    key, action = make_key(0), _random_action(make_key(1), env)
    state, first = reset(key)
    after = step(key, state, action)
    other = "allow" if jax.config.jax_numpy_rank_promotion == "warn" else "warn"  # type: ignore[attr-defined]
    with jax.numpy_rank_promotion(other), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _require_same("reset", "key", (state, first), reset(key))
        _require_same("step", "key, state and action", after, step(key, state, action))


def _require_same(name: str, arguments: str, one: Any, other: Any) -> None:
    parts = [jax.tree_util.tree_leaves_with_path(x) for x in (one, other)]
    for (path, x), (_, again) in zip(*parts, strict=True):
        x, again = (_plain(jnp.asarray(y)) for y in (x, again))
        if not np.array_equal(x, again, equal_nan=x.dtype.kind == "f"):
            where = jax.tree_util.keystr(path[1:])
            what = f"state{where}" if path[0].idx == 0 else where.removeprefix(".")
            raise InputError(
                f"{what} of {name} is another when it is called again with the same {arguments}; it must be a pure "
                "function: random numbers come from its key, and all that it remembers is in the state"
            )


def _plain(x: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def _play(env: Env) -> tuple[list[np.ndarray], Steps, Steps]:
    """Plays episodes side by side.

    Returns:
        The first observations and the leaves of the first states, [NUM_EPISODES, ...]; the first time steps, leaves
        [NUM_EPISODES]; and the others, [num_steps, NUM_EPISODES].
    """
    num_steps = min(env.spec.max_episode_steps, MOST_STEPS)

    def episode(key: jax.Array) -> tuple[list[jax.Array], Steps, Steps]:
        def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], Steps]:
            key, state = carry
            key, action_key, step_key = jax.random.split(key, 3)
            keys = jnp.stack([step_key, jax.random.fold_in(step_key, 1)])
            both = jax.vmap(env.step, (0, None, None))(keys, state, _random_action(action_key, env))
            (state, time_step), (_, other) = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
            return (key, state), _look(time_step, other, (leaves, _leaves(state)), first)

        key, reset_key = jax.random.split(key)
        state, first = env.reset(reset_key)
        leaves = _leaves(state)
        looks = _look(first, first, (leaves, leaves), first)
        return [first.obs, *leaves], looks, jax.lax.scan(step, (key, state), length=num_steps)[1]

    keys = jax.random.split(make_key(2), NUM_EPISODES)
    try:
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(episode, out_axes=(0, 0, 1)))(keys))
    except Exception as error:
        raise InputError(f"reset and step do not run under jax.vmap: {in_one_line(error)}") from error


def _leaves(state: Any) -> list[jax.Array]:
    """A state's leaves but for random keys."""
    return [x for x in jax.tree.leaves(state) if not jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)]


def _look(time_step: TimeStep, other: TimeStep, leaves: tuple[Any, Any], first: TimeStep) -> Steps:
    obs, is_same = time_step.obs, [jnp.all(x == y) for x, y in zip(*leaves, strict=True)]
    return Steps(
        time_step.reward,
        jnp.isfinite(obs).all(),
        (obs == time_step.next_obs).all(),
        (obs == first.obs).all(),
        jnp.stack(is_same) if is_same else jnp.zeros(0, bool),
        (obs != other.obs).any(),
        time_step.terminated,
        time_step.truncated,
    )


def _random_action(key: jax.Array, env: Env) -> jax.Array:
    """Uniform in its bounds, and every other time at one of them."""
    space = env.spec.action_space
    if not isinstance(space, Box):
        return jax.random.randint(key, (), 0, space.num_actions)
    low, high = jnp.asarray(space.low), jnp.asarray(space.high)
    extreme_key, key = jax.random.split(key)
    share = jax.random.uniform(key, space.shape, low.dtype)
    share = jnp.where(jax.random.bernoulli(extreme_key), jnp.round(share), share)
    return jnp.clip(low * (1 - share) + high * share, low, high)


def _check_first(first: Steps) -> None:
    for name in ("terminated", "truncated"):
        if getattr(first, name).any():
            raise InputError(f"{name} of reset is true; an episode must not end before its first step")
    if not first.obs_is_finite.all():
        raise InputError("obs of reset is not finite; observations must be")
    if not first.obs_is_next.all():
        raise InputError("next_obs of reset is not its obs; they must be the same, see make_time_step")


def _check_steps(steps: Steps, running: np.ndarray) -> None:
    wrong = ~np.isfinite(steps.reward) & running
    if wrong.any():
        time, episode = np.argwhere(wrong)[0]
        raise InputError(
            f"reward of step is {steps.reward[time, episode]:g} in step {time + 1} of an episode with random actions; "
            "it must be finite"
        )
    for is_right, problem in (
        (steps.obs_is_finite, "obs of step is not finite in step {}, with random actions; observations must be"),
        (
            steps.obs_is_next,
            "obs of step is not its next_obs in step {}; they must be the same: jaxsoft itself starts new episodes",
        ),
    ):
        if (~is_right & running).any():
            raise InputError(problem.format(np.argwhere(~is_right & running)[0, 0] + 1))


def _check_limit(steps: Steps, running: np.ndarray, spec: EnvSpec) -> None:
    """Warns of what looks like a time limit and is said in another way than `max_episode_steps` and `truncated`.

    Raises:
        InputError: an episode was truncated before the spec's `earliest_truncation`.
    """
    lengths, limit = running.sum(0), spec.max_episode_steps
    terminated, truncated = (x.any(0) for x in (steps.terminated & running, steps.truncated & running))
    earliest = min(spec.earliest_truncation, limit)
    if (lengths[truncated] < earliest).any():
        raise InputError(
            f"step truncates an episode in its step {lengths[truncated].min()}; earliest_truncation in the spec says "
            f"not before step {earliest}"
        )
    if terminated.all() and (lengths == lengths[0]).all() and lengths[0] == limit > 1:
        warnings.warn(
            f"all episodes are terminated in step {limit}, which is max_episode_steps: if that is a time limit, do not "
            "set terminated; max_episode_steps truncates episodes, and the value of what comes later is not zero",
            stacklevel=4,
        )
    if truncated.any() and (lengths[truncated] == lengths[truncated][0]).all() and lengths[truncated][0] < limit:
        warnings.warn(
            f"episodes are truncated in step {lengths[truncated][0]}, and max_episode_steps is {limit}; if that is "
            "their time limit, it should be the same",
            stacklevel=4,
        )


def _check_ends(steps: Steps, running: np.ndarray, *, obs_alike: bool, leaves_alike: np.ndarray) -> None:
    """Warns of an environment that seems to start the next episode itself: its last observations look like first ones.

    They are those of the reset, or, where that draws, they alone depend on the key; and what all starts have in their
    states, like a counter of steps, is there again.
    """
    ended = (steps.terminated | steps.truncated) & running
    is_like_a_start = steps.obs_is_start if obs_alike else steps.obs_is_drawn
    is_like_a_start = is_like_a_start & steps.state_is_start[..., leaves_alike].all(-1)
    before = running & ~ended
    if ended.any() and before.any() and is_like_a_start[ended].all() and not is_like_a_start[before].any():
        warnings.warn(
            "the last observations of episodes look like those of the next ones' starts; if step resets the "
            "environment itself, leave that out: jaxsoft does, and learners need the observation that ended an episode",
            stacklevel=4,
        )
