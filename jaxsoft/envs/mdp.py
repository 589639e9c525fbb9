"""Markov decision processes with finitely many states and actions, as arrays and as environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsoft.envs.wrappers import time_limit
from jaxsoft.errors import InputError, positive_integer, require
from jaxsoft.types import Discrete, Env, EnvSpec, TimeStep, make_time_step


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, init=False, eq=False)
class FiniteMDP:
    """A finite Markov decision process: a pytree of arrays.

    It is made from rows of probabilities over all states, or with `next_states` from lists of the K things that may
    happen. It is kept as such lists without what is impossible: sparse dynamics stay small and quick (deterministic
    ones have K = 1), and two outcomes may lead to one state with different rewards. Outcomes of probability 0 fill
    short lists. `transition_matrix` and `expected_rewards` are the dense arrays.

    Attributes:
        transition_probs: [S, A, K], p(k|s,a).
        rewards: [S, A, K], the reward of outcome k.
        terminated: [S, A, K], bool; the task ends with outcome k, the value beyond is zero.
        initial_probs: [S], of an episode's first state.
        discount: [], γ.
        next_states: [S, A, K], int32, the state that outcome k leads to.
    """

    transition_probs: jax.Array
    rewards: jax.Array
    terminated: jax.Array
    initial_probs: jax.Array
    discount: jax.Array
    next_states: jax.Array

    def __init__(
        self,
        transition_probs: Any,
        rewards: Any,
        terminated: Any = None,
        initial_probs: Any = None,
        discount: Any = 0.99,
        next_states: Any = None,
    ) -> None:
        """Checks a process, on the host, and keeps it in JAX's present precision.

        Args:
            transition_probs: [S, A, S'], each row sums to 1. S' = S successors, or K outcomes with `next_states`.
            rewards: [S, A, S'] or [S, A].
            terminated: [S, A, S'], or [S] for states that end the task wherever they are reached from; by default
                nothing does.
            initial_probs: [S]; uniform by default.
            discount: [], γ between 0 and 1.
            next_states: [S, A, S'], int, the state each outcome leads to; by default outcome k leads to state k.

        Raises:
            InputError: a shape, a probability, the discount or a successor is impossible.
        """
        check_shape("transition_probs", transition_probs, lambda s: len(s) == 3 and min(s) > 0, "[S, A, S']")
        shape = np.shape(transition_probs)
        num_states, num_outcomes = shape[0], shape[-1]
        if next_states is None:
            if num_outcomes != num_states:
                raise InputError(
                    f"transition_probs has shape {list(shape)}; its last axis must have S={num_states} entries"
                )
            next_states = np.broadcast_to(np.arange(num_states), shape)
        terminated = np.zeros(shape, bool) if terminated is None else terminated
        initial_probs = np.full(num_states, 1 / num_states) if initial_probs is None else initial_probs
        check_shape("next_states", next_states, lambda s: s == shape, list(shape))
        check_shape("rewards", rewards, lambda s: s in (shape, shape[:2]), f"{list(shape)} or {list(shape[:2])}")
        check_shape("terminated", terminated, lambda s: s in (shape, shape[:1]), f"{list(shape)} or [{num_states}]")
        check_shape("initial_probs", initial_probs, lambda s: s == shape[:1], [num_states])
        check_rows("transition_probs", transition_probs)
        check_rows("initial_probs", initial_probs)
        require("rewards", rewards, np.isfinite, "a finite number")
        require("discount", discount, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
        states = f"a state from 0 to {num_states - 1}"
        require("next_states", next_states, lambda x: (x >= 0) & (x < num_states), states)
        if np.ndim(rewards) == 2:
            rewards = jnp.broadcast_to(jnp.asarray(rewards)[..., None], shape)
        if np.ndim(terminated) == 1:
            terminated = jnp.asarray(terminated)[jnp.asarray(next_states)]
        outcomes = {
            "transition_probs": _floats(transition_probs),
            "rewards": _floats(rewards),
            "terminated": jnp.asarray(terminated, bool),
            "next_states": jnp.asarray(next_states, jnp.int32),
        }
        self._set(**_possible_outcomes(outcomes), initial_probs=_floats(initial_probs), discount=_floats(discount))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """The leaves, for `jax.tree`."""
        return tuple(getattr(self, field.name) for field in fields(self)), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, ...]) -> FiniteMDP:
        """From the leaves, unchecked: a transformation's leaves may be batched, or no arrays at all."""
        mdp = object.__new__(cls)
        mdp._set(**dict(zip((field.name for field in fields(cls)), leaves, strict=True)))
        return mdp

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition_probs.shape[0]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.transition_probs.shape[1]


def transition_matrix(mdp: FiniteMDP) -> jax.Array:
    """Probabilities of going on from each successor: [S, A, S], rows sum to 1 minus the probability of an end.

    P(s'|s,a) = Σ_k p(k|s,a) [outcome k leads to s' and does not end the task]
    """
    s, a = jnp.ogrid[: mdp.num_states, : mdp.num_actions]
    continuing = jnp.where(mdp.terminated, 0, mdp.transition_probs)
    matrix = jnp.zeros((mdp.num_states, mdp.num_actions, mdp.num_states), continuing.dtype)
    return matrix.at[s[..., None], a[..., None], mdp.next_states].add(continuing)


def expected_rewards(mdp: FiniteMDP) -> jax.Array:
    """Mean reward of each state and action: [S, A], Σ_k p(k|s,a) r(s,a,k)."""
    return jnp.sum(mdp.transition_probs * mdp.rewards, axis=-1)


def reachable_states(mdp: FiniteMDP) -> np.ndarray:
    """Which states can be visited at all: [S], bool, NumPy.

    The others' values are defined, but nobody who acts can learn them.
    """
    possible = np.asarray(mdp.transition_probs) > 0
    continuing = possible & ~np.asarray(mdp.terminated)
    next_states = np.asarray(mdp.next_states)
    reached = np.asarray(mdp.initial_probs) > 0
    while True:
        successors = next_states[reached][continuing[reached]]
        if reached[successors].all():
            return reached
        reached[successors] = True


def draw(uniform: jax.Array, cumulative: jax.Array) -> jax.Array:
    """The index, [], int32, that a uniform number in [0, 1) selects; one of probability 0 never is.

    The last of the cumulated probabilities [N] need not be exactly 1.
    """
    return jnp.sum(uniform * cumulative[-1] >= cumulative, dtype=jnp.int32)


def mdp_env(mdp: FiniteMDP, env_id: str, max_episode_steps: int) -> Env:
    """A finite MDP as an `Env` of one-hot observations [S] and discrete actions.

    Args:
        mdp: the process; its discount is the tabular algorithms' and is not used here.
        env_id: the specification's `id`.
        max_episode_steps: the time limit, a truncation.

    Raises:
        InputError: the time limit is not a positive integer.
    """
    max_episode_steps = positive_integer("max_episode_steps", max_episode_steps)
    outcome_cumulative = jnp.cumsum(mdp.transition_probs, axis=-1)
    initial_cumulative = jnp.cumsum(mdp.initial_probs)

    def observe(state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state, mdp.num_states, dtype=jnp.float32)

    def reset(key: jax.Array) -> tuple[jax.Array, TimeStep]:
        state = draw(jax.random.uniform(key, dtype=initial_cumulative.dtype), initial_cumulative)
        return state, make_time_step(observe(state))

    def step(key: jax.Array, state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        uniform = jax.random.uniform(key, dtype=outcome_cumulative.dtype)
        outcome = state, action, draw(uniform, outcome_cumulative[state, action])
        next_state = mdp.next_states[outcome]
        return next_state, make_time_step(observe(next_state), mdp.rewards[outcome], mdp.terminated[outcome])

    spec = EnvSpec(
        id=env_id,
        obs_shape=(mdp.num_states,),
        obs_dtype=np.dtype(np.float32),
        action_space=Discrete(mdp.num_actions),
        max_episode_steps=max_episode_steps,
        earliest_truncation=max_episode_steps,
    )
    return time_limit(Env(spec, reset, step), max_episode_steps)


def _floats(x: Any) -> jax.Array:
    """In JAX's present precision, so that an MDP built under x64 is exact."""
    return jnp.asarray(x, jnp.result_type(float))


def _possible_outcomes(outcomes: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The outcomes without impossible ones: as many as the longest list has, in their order."""
    probs = outcomes["transition_probs"]
    if isinstance(probs, Tracer):
        return outcomes
    possible = np.asarray(probs) > 0
    num_kept = int(possible.sum(-1).max())
    if num_kept == possible.shape[-1]:
        return outcomes
    order = jnp.asarray(np.argsort(~possible, axis=-1, kind="stable")[..., :num_kept])
    return {name: jnp.take_along_axis(array, order, axis=-1) for name, array in outcomes.items()}


def check_shape(name: str, value: Any, test: Callable[[tuple[int, ...]], bool], allowed: Any) -> None:
    """Raises an `InputError` for a wrong shape, for example «policy has shape [2]; it must be [3, 2]»."""
    if not test(np.shape(value)):
        raise InputError(f"{name} has shape {list(np.shape(value))}; it must be {allowed}")


def check_rows(name: str, probs: Any) -> None:
    """Checks that the rows of [..., N] are probabilities; traced ones are taken as they are.

    Raises:
        InputError: for example «policy[0] sums to 2; it must sum to 1».
    """
    require(name, probs, lambda x: x >= 0, "0 or a positive number")
    if isinstance(probs, Tracer):
        return
    sums = np.asarray(probs, np.float64).sum(-1)
    wrong = np.argwhere(~(np.abs(sums - 1) <= 1e-5))
    if len(wrong):
        row = wrong[0].tolist()
        raise InputError(f"{name}{row or ''} sums to {sums[tuple(row)]:g}; it must sum to 1")
