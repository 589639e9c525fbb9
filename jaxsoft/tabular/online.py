"""Code shared by all online tabular learners: the state, and the scan over transitions, fresh or recorded.

A method is a `Rule`: what it remembers beside Q, and how one transition changes both. Nothing here knows which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.ops.averages import Sum, add, no_sum
from jaxsoft.tabular.settings import UNSET, LearnerSettings, resolve_acting, resolve_recorded
from jaxsoft.tabular.walk import TabularTransition, Walk, init_walk, make_act


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
    """An online learner's result: Q [S, A] after the last step, and the history of the run."""

    q: jax.Array
    history: LearningHistory


class Rule(NamedTuple):
    """How one step changes what is learned. Made once per method (it is a static argument of what is compiled).

    Attributes:
        init: `(q) -> memory`; what is remembered before the first step.
        update: `(settings, q, memory, transition, step_size) -> (q, memory)`; complete settings.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[LearnerSettings, jax.Array, Any, TabularTransition, jax.Array], tuple[jax.Array, Any]]


@struct.dataclass
class Learner:
    """All that does not change while a behaviour acts in an MDP and a rule learns; the settings are complete."""

    mdp: FiniteMDP
    settings: LearnerSettings
    rule: Rule = struct.field(pytree_node=False)


@struct.dataclass
class LearnerState:
    """The state of an online learner; a run can stop with it and go on from it.

    Attributes:
        q: [S, A].
        memory: the rule's own.
        walk: where the behaviour stands; None where transitions were recorded before.
    """

    q: jax.Array
    memory: Any
    walk: Walk = UNSET


def make_learner(mdp: FiniteMDP, rule: Rule, settings: LearnerSettings) -> Learner:
    """A rule that learns in a process; errors are those of `resolve_acting`."""
    return Learner(mdp, resolve_acting(settings, mdp), rule)


def init_learner_state(key: jax.Array, learner: Learner) -> LearnerState:
    """One seed before its first step.

    Raises:
        InputError: the key is not of JAX's default generator.
    """
    q = learner.settings.initial_q
    return LearnerState(q, learner.rule.init(q), init_walk(key, learner.mdp))


@partial(jax.jit, static_argnames=("num_steps", "num_records"))
def advance(
    learner: Learner, state: LearnerState, num_steps: int, num_records: int = 1
) -> tuple[LearnerState, LearningHistory]:
    """Acts and learns for so many steps more; they are the same, made in one call or in many."""
    act = make_act(learner.mdp, learner.settings)

    def step(state: LearnerState, _: None) -> tuple[LearnerState, TabularTransition]:
        walk, transition = act(state.walk, state.q)
        state = _update(learner.rule, learner.settings, state, transition, state.walk.time)
        return replace(state, walk=walk), transition

    return _scan_records(step, state, None, num_steps, num_records)


def act_and_learn(key: jax.Array, mdp: FiniteMDP, rule: Rule, settings: LearnerSettings) -> Learning:
    """Steps a behaviour policy through an MDP and learns from each step; errors are those of `resolve_acting`."""
    return _act_and_learn(key, make_learner(mdp, rule, settings))


@jax.jit
def _act_and_learn(key: jax.Array, learner: Learner) -> Learning:
    sizes = learner.settings.num_steps, learner.settings.num_records
    state, history = advance(learner, init_learner_state(key, learner), *sizes)
    return Learning(state.q, history)


def learn_recorded(transitions: TabularTransition, rule: Rule, settings: LearnerSettings) -> Learning:
    """Learns from transitions that were recorded before, every field [T], in their order.

    Raises:
        InputError: see `resolve_recorded`.
    """
    return _learn_recorded(transitions, resolve_recorded(settings, transitions.reward), rule)


@partial(jax.jit, static_argnames="rule")
def _learn_recorded(transitions: TabularTransition, settings: LearnerSettings, rule: Rule) -> Learning:
    def step(
        state: LearnerState, recorded: tuple[TabularTransition, jax.Array]
    ) -> tuple[LearnerState, TabularTransition]:
        transition, time = recorded
        return _update(rule, settings, state, transition, time), transition

    state = LearnerState(settings.initial_q, rule.init(settings.initial_q))
    recorded = transitions, jnp.arange(settings.num_steps, dtype=jnp.int32)
    state, history = _scan_records(step, state, recorded, settings.num_steps, settings.num_records)
    return Learning(state.q, history)


def _update(
    rule: Rule, settings: LearnerSettings, state: LearnerState, transition: TabularTransition, time: jax.Array
) -> LearnerState:
    step_size = jnp.asarray(settings.step_size / (1 + time / settings.half_life))
    q, memory = rule.update(settings, state.q, state.memory, transition, step_size)
    return replace(state, q=q, memory=memory)


def _scan_records(
    step: Callable[[LearnerState, Any], tuple[LearnerState, TabularTransition]],
    state: LearnerState,
    inputs: Any,
    num_steps: int,
    num_records: int,
) -> tuple[LearnerState, LearningHistory]:
    """Scans `step`, over inputs if there are any; a snapshot after each of equal parts."""
    part_length = num_steps // num_records

    def count(carry: tuple[LearnerState, Sum, jax.Array], inputs: Any) -> tuple[Any, None]:
        state, rewards, num_episodes = carry
        state, made = step(state, inputs)
        return (state, add(rewards, made.reward), num_episodes + made.done), None

    def record(state: LearnerState, part: Any) -> tuple[LearnerState, LearningHistory]:
        first = state, no_sum(dtype=state.q.dtype), jnp.int32(0)
        (state, rewards, num_episodes), _ = jax.lax.scan(count, first, part, part_length)
        return state, LearningHistory(state.q, rewards.value / part_length, num_episodes)

    parts = jax.tree.map(lambda x: x.reshape(num_records, part_length, *x.shape[1:]), inputs)
    return jax.lax.scan(record, state, parts, num_records)
