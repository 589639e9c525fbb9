"""What every online tabular learner shares: experience, the objective, and the scan over environment steps.

A learner is a `Rule`: what it remembers beside Q, and how one step of experience changes both. Nothing here knows
which.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, draw
from jaxsoft.errors import InputError, require
from jaxsoft.random import fused
from jaxsoft.tabular.behaviour import Behaviour, check_behaviour

NO_LIMIT = 2**31 - 1
"""Steps of an episode that no time limit stops."""


@struct.dataclass
class Experience:
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


@struct.dataclass
class Objective:
    """What is learned, and how fast; every field is a leaf, so that a sweep can vmap over it.

    Attributes:
        discount: [], γ.
        temperature: [], τ.
        reference_log_probs: [S, A], log π0.
        lambda_: [], λ.
        step_size: [], α at the start.
        half_life: [], steps after which the step size is half of that: α_t = α / (1 + t / half_life).
    """

    discount: jax.Array
    temperature: jax.Array
    reference_log_probs: jax.Array
    lambda_: jax.Array
    step_size: jax.Array
    half_life: jax.Array


@struct.dataclass
class Learning:
    """What an online learner returns.

    Attributes:
        q: [S, A], after the last step.
        q_history: [num_records, S, A], at even distances, the last step included.
        mean_rewards: [num_records], mean reward per step since the record before.
        num_episodes: [num_records], int32, episodes that ended since the record before.
    """

    q: jax.Array
    q_history: jax.Array
    mean_rewards: jax.Array
    num_episodes: jax.Array


class Rule(NamedTuple):
    """How one step changes what is learned. Made once per method (it is a static argument of what is compiled).

    Attributes:
        init: `(q) -> memory`; what is remembered before the first step.
        update: `(objective, q, memory, experience, step_size) -> (q, memory)`.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[Objective, jax.Array, Any, Experience, jax.Array], tuple[jax.Array, Any]]


@partial(jax.jit, static_argnames=("rule", "num_steps", "num_records"))
def act_and_learn(
    key: jax.Array,
    mdp: FiniteMDP,
    objective: Objective,
    behaviour: Behaviour,
    max_episode_steps: jax.Array,
    q: jax.Array,
    *,
    rule: Rule,
    num_steps: int,
    num_records: int,
) -> Learning:
    """Steps a behaviour policy through the MDP and learns from each step as it is made.

    Args:
        key: of this seed.
        mdp: the process.
        objective: what is learned.
        behaviour: who acts, seeing the present Q.
        max_episode_steps: [], int32, time limit.
        q: [S, A], the first Q.
        rule: the learner.
        num_steps: environment steps.
        num_records: snapshots of Q, a divisor of `num_steps`.
    """
    first_key, step_key = jax.random.split(fused(key))
    outcome_cumulative = jnp.cumsum(mdp.transition_probs, axis=-1)
    initial_cumulative = jnp.cumsum(mdp.initial_probs)

    def step(carry: tuple[Any, ...], time: jax.Array) -> tuple[tuple[Any, ...], tuple[jax.Array, jax.Array]]:
        q, memory, state, age = carry
        uniforms = jax.random.uniform(jax.random.fold_in(step_key, time), (3,), q.dtype)
        reference = objective.reference_log_probs[state]
        log_mu = behaviour.log_probs(q[state], reference, objective.temperature, state)
        action = draw(uniforms[0], jnp.cumsum(jnp.exp(log_mu)))
        outcome = state, action, draw(uniforms[1], outcome_cumulative[state, action])
        terminated = mdp.terminated[outcome]
        truncated = ~terminated & (age + 1 >= max_episode_steps)
        next_state, reward = mdp.next_states[outcome], mdp.rewards[outcome]
        experience = Experience(state, action, reward, next_state, terminated, truncated, log_mu[action])
        q, memory = rule.update(objective, q, memory, experience, _step_size(objective, time))
        done = terminated | truncated
        state = jnp.where(done, draw(uniforms[2], initial_cumulative), next_state)
        return (q, memory, state, jnp.where(done, 0, age + 1)), (reward, done)

    first_state = draw(jax.random.uniform(first_key, dtype=q.dtype), initial_cumulative)
    return _learn(step, (q, rule.init(q), first_state, jnp.int32(0)), jnp.arange(num_steps), num_records)


@partial(jax.jit, static_argnames=("rule", "num_records"))
def learn_from(experience: Experience, objective: Objective, q: jax.Array, *, rule: Rule, num_records: int) -> Learning:
    """Learns from steps that were made before, in their order.

    Args:
        experience: every field [T].
        objective: what is learned.
        q: [S, A], the first Q.
        rule: the learner.
        num_records: snapshots of Q, a divisor of T.
    """

    def step(carry: tuple[Any, ...], now: tuple[jax.Array, Experience]) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        time, made = now
        q, memory = carry
        q, memory = rule.update(objective, q, memory, made, _step_size(objective, time))
        return (q, memory), (made.reward, made.terminated | made.truncated)

    times = jnp.arange(len(experience.state))
    return _learn(step, (q, rule.init(q)), (times, experience), num_records)


def _learn(step: Callable[..., Any], carry: tuple[Any, ...], inputs: Any, num_records: int) -> Learning:
    """Scans `step` over the inputs, with a snapshot of the carry's Q after each of `num_records` equal parts."""

    def record(carry: tuple[Any, ...], part: Any) -> tuple[tuple[Any, ...], tuple[jax.Array, ...]]:
        carry, (rewards, done) = jax.lax.scan(step, carry, part)
        return carry, (carry[0], jnp.mean(rewards), jnp.sum(done, dtype=jnp.int32))

    parts = jax.tree.map(lambda x: x.reshape(num_records, -1, *x.shape[1:]), inputs)
    carry, history = jax.lax.scan(record, carry, parts)
    return Learning(carry[0], *history)


def _step_size(objective: Objective, time: jax.Array) -> jax.Array:
    return objective.step_size / (1 + time / objective.half_life)


def make_objective(
    q: jax.Array,
    reference_log_probs: jax.Array,
    *,
    discount: float | jax.Array,
    temperature: float | jax.Array,
    lambda_: float | jax.Array,
    step_size: float | jax.Array,
    half_life: float | jax.Array,
) -> Objective:
    """The objective in the dtype of Q.

    Raises:
        InputError: a number is out of its range.
    """
    require("discount", discount, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    require("lambda_", lambda_, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    require("step_size", step_size, lambda x: (x > 0) & (x <= 1), "above 0 and at most 1")
    require("half_life", half_life, lambda x: x > 0, "a positive number")
    return Objective(
        discount=jnp.asarray(discount, q.dtype),
        temperature=jnp.asarray(temperature, q.dtype),
        reference_log_probs=reference_log_probs,
        lambda_=jnp.asarray(lambda_, q.dtype),
        step_size=jnp.asarray(step_size, q.dtype),
        half_life=jnp.asarray(half_life, q.dtype),
    )


def check_run(
    mdp: FiniteMDP, behaviour: Behaviour, num_steps: int, num_records: int, max_episode_steps: int | jax.Array
) -> None:
    """Checks who acts and for how long.

    Raises:
        InputError: see `check_behaviour`; sizes that are not positive; records that do not divide the steps.
    """
    check_behaviour(mdp, behaviour)
    require("max_episode_steps", max_episode_steps, lambda x: x >= 1, "a positive integer")
    check_records(num_steps, num_records)


def check_records(num_steps: int, num_records: int) -> None:
    """Checks that steps can be divided into records.

    Raises:
        InputError: they cannot, or there are none.
    """
    for name, size in (("num_steps", num_steps), ("num_records", num_records)):
        require(name, size, lambda x: x >= 1, "a positive integer")
    if num_steps % num_records:
        raise InputError(f"num_records is {num_records}; it must divide the number of steps, {num_steps}")


def first_q(shape: tuple[int, ...], initial_q: Any, dtype: Any) -> jax.Array:
    """Q before the first step [S, A]; None is zeros.

    Raises:
        InputError: another shape, or a number that is not finite.
    """
    if initial_q is None:
        return jnp.zeros(shape, dtype)
    if np.shape(initial_q) != shape:
        raise InputError(
            f"initial_q has shape {list(np.shape(initial_q))}; it must be {list(shape)}, states by actions"
        )
    require("initial_q", initial_q, np.isfinite, "a finite number")
    return jnp.asarray(initial_q, dtype)
