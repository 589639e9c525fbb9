"""A behaviour policy's walk through a finite MDP, one transition at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, draw
from jaxsoft.random import fused, require_threefry
from jaxsoft.tabular.settings import UNSET, LearnerSettings, resolve_acting


@struct.dataclass
class TabularTransition:
    """One step in a finite MDP; with a leading axis, steps in the order in which they were made.

    Attributes:
        state: [], int32, s_t.
        action: [], int32, a_t.
        reward: [], r_t.
        next_state: [], int32, s_{t+1}, the true successor, also where the episode ended.
        terminated: [], bool; the task ended, the value beyond is zero.
        truncated: [], bool; a time limit stopped the episode, the value beyond is not zero.
        log_mu: [], log μ(a_t|s_t) of the policy that acted; None where nobody knows it.
    """

    state: jax.Array
    action: jax.Array
    reward: jax.Array
    next_state: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    log_mu: jax.Array | None = None

    @property
    def done(self) -> jax.Array:
        """[], bool; the episode ended."""
        return self.terminated | self.truncated


@struct.dataclass
class Walk:
    """Where one seed's walk stands.

    Attributes:
        key: of this seed's steps; each step folds its time into it.
        state: [], int32, where the next step is made from.
        age: [], int32, steps of the episode so far.
        time: [], int32, steps of the walk so far.
    """

    key: jax.Array
    state: jax.Array
    age: jax.Array
    time: jax.Array


def init_walk(key: jax.Array, mdp: FiniteMDP) -> Walk:
    """One seed before its first step.

    Raises:
        InputError: the key is not of JAX's default generator.
    """
    require_threefry(key)
    first_key, step_key = jax.random.split(fused(key))
    uniform = jax.random.uniform(first_key, dtype=mdp.rewards.dtype)
    return Walk(step_key, draw(uniform, jnp.cumsum(mdp.initial_probs)), jnp.int32(0), jnp.int32(0))


def make_act(mdp: FiniteMDP, settings: LearnerSettings) -> Callable[[Walk, jax.Array], tuple[Walk, TabularTransition]]:
    """`(walk, q) -> (walk, transition)`: one step of the behaviour, which sees Q [S, A]; complete settings."""
    outcome_cumulative = jnp.cumsum(mdp.transition_probs, axis=-1)
    initial_cumulative = jnp.cumsum(mdp.initial_probs)

    def act(walk: Walk, q: jax.Array) -> tuple[Walk, TabularTransition]:
        state = walk.state
        uniforms = jax.random.uniform(jax.random.fold_in(walk.key, walk.time), (3,), q.dtype)
        reference = settings.reference_log_probs[state]
        log_mu = settings.behaviour.log_probs(q[state], reference, jnp.asarray(settings.temperature), state)
        action = draw(uniforms[0], jnp.cumsum(jnp.exp(log_mu)))
        outcome = state, action, draw(uniforms[1], outcome_cumulative[state, action])
        terminated = mdp.terminated[outcome]
        truncated = ~terminated & (walk.age + 1 >= settings.max_episode_steps)
        reward, next_state = mdp.rewards[outcome], mdp.next_states[outcome]
        made = TabularTransition(state, action, reward, next_state, terminated, truncated, log_mu[action])
        first_state = draw(uniforms[2], initial_cumulative)
        return replace(
            walk,
            state=jnp.where(made.done, first_state, next_state),
            age=jnp.where(made.done, 0, walk.age + 1),
            time=walk.time + 1,
        ), made

    return act


def record_transitions(key: jax.Array, mdp: FiniteMDP, *, q: jax.Array = UNSET, **settings: Any) -> TabularTransition:
    """Steps that a behaviour makes without learning: data for `soft_q_lambda_from_transitions` and its like.

    A behaviour that does not look at Q makes the same steps here as while somebody learns with the same key.

    Args:
        key: of this seed.
        mdp: the process to act in.
        q: [S, A], Q that the behaviour sees at every step; zeros by default.
        **settings: `num_steps` and `temperature`, of the target policy; `behaviour`, `reference_log_probs`,
            `max_episode_steps`: see `LearnerSettings`.

    Returns:
        Every field [num_steps].

    Raises:
        InputError: see `resolve_acting`.
    """
    return _record_transitions(key, mdp, resolve_acting(LearnerSettings(step_size=1.0, initial_q=q, **settings), mdp))


@jax.jit
def _record_transitions(key: jax.Array, mdp: FiniteMDP, settings: LearnerSettings) -> TabularTransition:
    act, q = make_act(mdp, settings), settings.initial_q
    return jax.lax.scan(lambda walk, _: act(walk, q), init_walk(key, mdp), length=settings.num_steps)[1]
