"""What every online tabular learner shares: experience, the objective, and the scan over environment steps.

A learner is a `Rule`: what it remembers beside Q, and how one step of experience changes both. Nothing here knows
which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Required, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, draw
from jaxsoft.errors import InputError, require
from jaxsoft.random import fused
from jaxsoft.tabular.behaviour import Behaviour, Uniform, check_behaviour
from jaxsoft.tabular.checks import check_objective, check_reference

NO_LIMIT = 2**31 - 1
"""Steps of an episode that no time limit stops."""


class Settings(TypedDict, total=False):
    """Keywords of every learner. All but the sizes may be traced: a sweep vmaps over them.

    Attributes:
        temperature: [], τ > 0.
        step_size: [], α, above 0 and at most 1.
        half_life: [], steps after which the step size is half as large: α_t = α / (1 + t / half_life); by default it
            stays.
        initial_q: [S, A], Q before the first step; zeros by default.
        num_records: snapshots of Q to keep, a divisor of the number of steps; 1 by default.
    """

    temperature: Required[float | jax.Array]
    step_size: Required[float | jax.Array]
    half_life: float | jax.Array
    initial_q: jax.Array | None
    num_records: int


class ActingSettings(Settings, total=False):
    """Keywords of every learner that acts, beside those of `Settings`.

    Attributes:
        num_steps: environment steps.
        reference_log_probs: [S, A], log π0; uniform by default.
        behaviour: who acts, see `jaxsoft.tabular.behaviour`; by default every action alike.
        max_episode_steps: [], time limit, a truncation; by default none.
    """

    num_steps: Required[int]
    reference_log_probs: jax.Array | None
    behaviour: Behaviour | None
    max_episode_steps: int | jax.Array


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
class LearningHistory:
    """Snapshots of a learner at even distances, the last step included.

    Attributes:
        q: [num_records, S, A].
        mean_rewards: [num_records], mean reward per step since the snapshot before.
        num_episodes: [num_records], int32, episodes that ended since the snapshot before.
    """

    q: jax.Array
    mean_rewards: jax.Array
    num_episodes: jax.Array


@struct.dataclass
class Learning:
    """What an online learner returns.

    Attributes:
        q: [S, A], after the last step.
        history: of the run.
    """

    q: jax.Array
    history: LearningHistory


class Rule(NamedTuple):
    """How one step changes what is learned. Made once per method (it is a static argument of what is compiled).

    Attributes:
        init: `(q) -> memory`; what is remembered before the first step.
        update: `(objective, q, memory, experience, step_size) -> (q, memory)`.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[Objective, jax.Array, Any, Experience, jax.Array], tuple[jax.Array, Any]]


@struct.dataclass
class Task:
    """All that does not change while a behaviour acts in an MDP and a rule learns.

    Attributes:
        mdp: the process.
        behaviour: who acts, seeing the present Q.
        max_episode_steps: [], int32, time limit.
        objective: what is learned.
        initial_q: [S, A].
        rule: the learner; static.
    """

    mdp: FiniteMDP
    behaviour: Behaviour
    max_episode_steps: jax.Array
    objective: Objective
    initial_q: jax.Array
    rule: Rule = struct.field(pytree_node=False)


@struct.dataclass
class Progress:
    """What changes while a rule learns.

    Attributes:
        q: [S, A].
        memory: the rule's own.
        time: [], int32, steps made.
    """

    q: jax.Array
    memory: Any
    time: jax.Array


@struct.dataclass
class Walk(Progress):
    """What changes while a behaviour acts, too; a run can stop with it and go on from it.

    Attributes:
        key: of this seed's steps; each step folds its time into it.
        state: [], int32, where the next step is made from.
        age: [], int32, steps of the episode so far.
    """

    key: jax.Array
    state: jax.Array
    age: jax.Array


def act_and_learn(
    key: jax.Array,
    mdp: FiniteMDP,
    rule: Rule,
    *,
    num_steps: int,
    num_records: int = 1,
    lambda_: float | jax.Array = 1.0,
    **settings: Any,
) -> Learning:
    """Steps a behaviour policy through an MDP and learns from each step as it is made.

    Args:
        key: of this seed.
        mdp: the process to act in.
        rule: the learner.
        num_steps: environment steps.
        num_records: snapshots of Q, a divisor of `num_steps`.
        lambda_: [], between 0 and 1; for rules that have one.
        **settings: see `make_task`.

    Raises:
        InputError: see `make_task`; sizes that are not positive; records that do not divide the steps.
    """
    check_records(num_steps, num_records)
    return _act_and_learn(key, make_task(mdp, rule, lambda_=lambda_, **settings), num_steps, num_records)


def make_task(
    mdp: FiniteMDP,
    rule: Rule,
    *,
    temperature: float | jax.Array,
    step_size: float | jax.Array,
    lambda_: float | jax.Array = 1.0,
    half_life: float | jax.Array = jnp.inf,
    reference_log_probs: jax.Array | None = None,
    initial_q: jax.Array | None = None,
    behaviour: Behaviour | None = None,
    max_episode_steps: int | jax.Array = NO_LIMIT,
) -> Task:
    """Checks what a learner that acts is given; see `Settings` and `ActingSettings`.

    Raises:
        InputError: a number out of range, a reference that forbids every action, or shapes that do not fit the process.
    """
    behaviour = Uniform() if behaviour is None else behaviour
    check_behaviour(mdp, behaviour)
    require("max_episode_steps", max_episode_steps, lambda x: x >= 1, "a positive integer")
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    q = first_q(reference_log_probs.shape, initial_q, mdp.rewards.dtype)
    objective = make_objective(
        q,
        reference_log_probs,
        discount=mdp.discount,
        temperature=temperature,
        lambda_=lambda_,
        step_size=step_size,
        half_life=half_life,
    )
    return Task(mdp, behaviour, jnp.asarray(max_episode_steps, jnp.int32), objective, q, rule)


def start(key: jax.Array, task: Task) -> Walk:
    """One seed before its first step."""
    first_key, step_key = jax.random.split(fused(key))
    uniform = jax.random.uniform(first_key, dtype=task.initial_q.dtype)
    state = draw(uniform, jnp.cumsum(task.mdp.initial_probs))
    memory = task.rule.init(task.initial_q)
    return Walk(task.initial_q, memory, jnp.int32(0), step_key, state, jnp.int32(0))


@partial(jax.jit, static_argnames=("num_steps", "num_records"))
def advance(task: Task, walk: Walk, num_steps: int, num_records: int = 1) -> tuple[Walk, LearningHistory]:
    """Acts and learns for so many steps more; they are the same, made in one call or in many."""
    outcome_cumulative = jnp.cumsum(task.mdp.transition_probs, axis=-1)
    initial_cumulative = jnp.cumsum(task.mdp.initial_probs)

    def step(now: Walk, _: None) -> tuple[Walk, tuple[jax.Array, jax.Array]]:
        experience, start_uniform = _act(task, now, outcome_cumulative)
        step_size = _step_size(task.objective, now.time)
        q, memory = task.rule.update(task.objective, now.q, now.memory, experience, step_size)
        after = _go_on(now, experience, draw(start_uniform, initial_cumulative))
        return replace(after, q=q, memory=memory), (experience.reward, experience.terminated | experience.truncated)

    return _record(step, walk, None, num_steps, num_records)


def _act(task: Task, now: Walk, outcome_cumulative: jax.Array) -> tuple[Experience, jax.Array]:
    """One step of the behaviour, and a uniform number for the next episode's start."""
    uniforms = jax.random.uniform(jax.random.fold_in(now.key, now.time), (3,), now.q.dtype)
    reference = task.objective.reference_log_probs[now.state]
    log_mu = task.behaviour.log_probs(now.q[now.state], reference, task.objective.temperature, now.state)
    action = draw(uniforms[0], jnp.cumsum(jnp.exp(log_mu)))
    outcome = now.state, action, draw(uniforms[1], outcome_cumulative[now.state, action])
    terminated = task.mdp.terminated[outcome]
    truncated = ~terminated & (now.age + 1 >= task.max_episode_steps)
    reward, next_state = task.mdp.rewards[outcome], task.mdp.next_states[outcome]
    return Experience(now.state, action, reward, next_state, terminated, truncated, log_mu[action]), uniforms[2]


def _go_on(now: Walk, experience: Experience, first_state: jax.Array) -> Walk:
    """To the successor, or to the next episode's first state."""
    done = experience.terminated | experience.truncated
    state = jnp.where(done, first_state, experience.next_state)
    return replace(now, time=now.time + 1, state=state, age=jnp.where(done, 0, now.age + 1))


def record_experience(
    key: jax.Array,
    mdp: FiniteMDP,
    *,
    num_steps: int,
    temperature: float | jax.Array,
    q: jax.Array | None = None,
    behaviour: Behaviour | None = None,
    reference_log_probs: jax.Array | None = None,
    max_episode_steps: int | jax.Array = NO_LIMIT,
) -> Experience:
    """Steps that a behaviour makes without learning: data for `soft_q_lambda_from_experience` and its like.

    A behaviour that does not look at Q makes the same steps here as while somebody learns with the same key.

    Args:
        key: of this seed.
        mdp: the process to act in.
        num_steps: environment steps.
        temperature: [], τ of the target policy.
        q: [S, A], what the behaviour sees all the time; zeros by default.
        behaviour: who acts, see `jaxsoft.tabular.behaviour`; by default every action alike.
        reference_log_probs: [S, A], log π0; uniform by default.
        max_episode_steps: [], time limit, a truncation; by default none.

    Returns:
        Every field [num_steps].

    Raises:
        InputError: see `make_task`; no steps.
    """
    check_records(num_steps, 1)
    task = make_task(
        mdp,
        _NOTHING,
        temperature=temperature,
        step_size=1.0,
        reference_log_probs=reference_log_probs,
        initial_q=q,
        behaviour=behaviour,
        max_episode_steps=max_episode_steps,
    )
    return _record_experience(key, task, num_steps)


_NOTHING = Rule(jnp.zeros_like, lambda objective, q, memory, experience, step_size: (q, memory))
"""Learns nothing."""


@partial(jax.jit, static_argnames="num_steps")
def _record_experience(key: jax.Array, task: Task, num_steps: int) -> Experience:
    outcome_cumulative = jnp.cumsum(task.mdp.transition_probs, axis=-1)
    initial_cumulative = jnp.cumsum(task.mdp.initial_probs)

    def step(now: Walk, _: None) -> tuple[Walk, Experience]:
        experience, start_uniform = _act(task, now, outcome_cumulative)
        return _go_on(now, experience, draw(start_uniform, initial_cumulative)), experience

    return jax.lax.scan(step, start(key, task), length=num_steps)[1]


@partial(jax.jit, static_argnames=("num_steps", "num_records"))
def _act_and_learn(key: jax.Array, task: Task, num_steps: int, num_records: int) -> Learning:
    walk, history = advance(task, start(key, task), num_steps, num_records)
    return Learning(walk.q, history)


def learn_from(
    experience: Experience,
    rule: Rule,
    *,
    discount: float | jax.Array,
    temperature: float | jax.Array,
    step_size: float | jax.Array,
    reference_log_probs: jax.Array,
    lambda_: float | jax.Array = 1.0,
    half_life: float | jax.Array = jnp.inf,
    initial_q: jax.Array | None = None,
    num_records: int = 1,
) -> Learning:
    """Learns from steps that were made before, in their order.

    Args:
        experience: every field [T].
        rule: the learner.
        discount: [], γ.
        temperature: see `Settings`, as what follows.
        step_size: [].
        reference_log_probs: [S, A]; its shape is the table's.
        lambda_: [], between 0 and 1; for rules that have one.
        half_life: [].
        initial_q: [S, A].
        num_records: a divisor of T.

    Raises:
        InputError: a number out of range, a reference that forbids every action, or shapes that do not fit.
    """
    check_records(len(experience.state), num_records)
    dtype = jnp.asarray(experience.reward).dtype
    temperature, reference_log_probs = check_reference(temperature, reference_log_probs, dtype)
    q = first_q(reference_log_probs.shape, initial_q, dtype)
    objective = make_objective(
        q,
        reference_log_probs,
        discount=discount,
        temperature=temperature,
        lambda_=lambda_,
        step_size=step_size,
        half_life=half_life,
    )
    return _learn_from(experience, objective, q, rule, num_records)


@partial(jax.jit, static_argnames=("rule", "num_records"))
def _learn_from(experience: Experience, objective: Objective, q: jax.Array, rule: Rule, num_records: int) -> Learning:
    def step(now: Progress, made: Experience) -> tuple[Progress, tuple[jax.Array, jax.Array]]:
        q, memory = rule.update(objective, now.q, now.memory, made, _step_size(objective, now.time))
        return Progress(q, memory, now.time + 1), (made.reward, made.terminated | made.truncated)

    progress = Progress(q, rule.init(q), jnp.int32(0))
    progress, history = _record(step, progress, experience, len(experience.state), num_records)
    return Learning(progress.q, history)


def _record(
    step: Callable[..., Any], progress: Any, inputs: Any, num_steps: int, num_records: int
) -> tuple[Any, LearningHistory]:
    """Scans `step` from a `Progress`, over inputs if there are any; a snapshot after each of equal parts."""
    part_length = num_steps // num_records

    def record(progress: Any, part: Any) -> tuple[Any, LearningHistory]:
        progress, (rewards, done) = jax.lax.scan(step, progress, part, part_length)
        return progress, LearningHistory(progress.q, jnp.mean(rewards), jnp.sum(done, dtype=jnp.int32))

    parts = jax.tree.map(lambda x: x.reshape(num_records, part_length, *x.shape[1:]), inputs)
    return jax.lax.scan(record, progress, parts, num_records)


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


def check_records(num_steps: int, num_records: int) -> None:
    """Checks that steps can be divided into records.

    Raises:
        InputError: they cannot, or there are none.
    """
    for name, size in (("num_steps", num_steps), ("num_records", num_records)):
        require(name, size, lambda x: (x >= 1) & (x < 2**31), "a positive integer below 2^31")
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
