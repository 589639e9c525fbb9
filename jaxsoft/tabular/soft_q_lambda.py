"""Online Soft Q(λ) with eligibility traces, the backward view, in a finite MDP.

    δ_t = r_t + γ_t V_Q(s_{t+1}) − Q(s_t, a_t)
    e   ← γ λ c_t e ;  e(s_t, a_t) ← e(s_t, a_t) + 1 ;  Q ← Q + α δ_t e

c_t and δ_t use the present Q, before this step's update; e ← 0 after a terminal or a truncated step. λ = 0 is one-step
soft Q-learning.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, derived here from the definitions.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, boltzmann_log_probs, decay_trace, soft_value, trace_coefficients
from jaxsoft.ops.traces import NEED_BEHAVIOUR, check_trace
from jaxsoft.tabular.behaviour import Behaviour, Uniform
from jaxsoft.tabular.checks import check_objective, check_reference
from jaxsoft.tabular.online import (
    NO_LIMIT,
    Experience,
    Learning,
    Objective,
    Rule,
    act_and_learn,
    check_records,
    check_run,
    first_q,
    learn_from,
    make_objective,
)


def soft_q_lambda(
    key: jax.Array,
    mdp: FiniteMDP,
    *,
    num_steps: int,
    temperature: float | jax.Array,
    lambda_: float | jax.Array,
    step_size: float | jax.Array,
    trace: str = "tree_backup",
    behaviour: Behaviour | None = None,
    reference_log_probs: jax.Array | None = None,
    half_life: float | jax.Array = jnp.inf,
    max_episode_steps: int | jax.Array = NO_LIMIT,
    num_records: int = 1,
    initial_q: jax.Array | None = None,
) -> Learning:
    """Online Soft Q(λ): acts in a finite MDP and learns from every step. λ = 0 is soft Q-learning.

    It vmaps over keys and over every number and array it is given; sizes and names are static.

    Args:
        key: of this seed.
        mdp: the process to act in.
        num_steps: environment steps.
        temperature: [], τ > 0.
        lambda_: [], between 0 and 1.
        step_size: [], α, above 0 and at most 1.
        trace: the trace coefficient, see `trace_coefficients`.
        behaviour: who acts, see `jaxsoft.tabular.behaviour`; by default every action alike.
        reference_log_probs: [S, A], log π0; uniform by default.
        half_life: [], steps after which the step size is half as large: α_t = α / (1 + t / half_life).
        max_episode_steps: [], time limit, a truncation; by default none.
        num_records: snapshots of Q to keep, a divisor of `num_steps`.
        initial_q: [S, A]; zeros by default.

    Raises:
        InputError: a number out of range, a reference that forbids every action, an unknown trace coefficient, or
            records that do not divide the steps.
    """
    check_trace(trace)
    behaviour = Uniform() if behaviour is None else behaviour
    check_run(mdp, behaviour, num_steps, num_records, max_episode_steps)
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    q = first_q((mdp.num_states, mdp.num_actions), initial_q, mdp.rewards.dtype)
    objective = make_objective(
        q,
        reference_log_probs,
        discount=mdp.discount,
        temperature=temperature,
        lambda_=lambda_,
        step_size=step_size,
        half_life=half_life,
    )
    limit = jnp.asarray(max_episode_steps, jnp.int32)
    rule = trace_rule(trace)
    return act_and_learn(
        key, mdp, objective, behaviour, limit, q, rule=rule, num_steps=num_steps, num_records=num_records
    )


def soft_q_lambda_from_experience(
    experience: Experience,
    *,
    discount: float | jax.Array,
    temperature: float | jax.Array,
    lambda_: float | jax.Array,
    step_size: float | jax.Array,
    reference_log_probs: jax.Array,
    trace: str = "tree_backup",
    half_life: float | jax.Array = jnp.inf,
    num_records: int = 1,
    initial_q: jax.Array | None = None,
) -> Learning:
    """Online Soft Q(λ) from another's data: the same updates, in the order in which the steps were made.

    A step whose state is not the successor of the step before must follow one that terminated or was truncated.

    Args:
        experience: every field [T]; `log_mu` only where the trace coefficient needs it.
        discount: [], γ.
        temperature: [], τ > 0.
        lambda_: [], between 0 and 1.
        step_size: [], α, above 0 and at most 1.
        reference_log_probs: [S, A], log π0; its shape is the table's.
        trace: the trace coefficient, see `trace_coefficients`.
        half_life: see `soft_q_lambda`.
        num_records: snapshots of Q to keep, a divisor of T.
        initial_q: [S, A]; zeros by default.

    Raises:
        InputError: as `soft_q_lambda`, or the behaviour's probabilities are needed and missing.
    """
    check_trace(trace)
    if trace in NEED_BEHAVIOUR and experience.log_mu is None:
        raise InputError(f"{trace} needs the behaviour's log-probabilities; log_mu is None (tree_backup needs none)")
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
    return learn_from(experience, objective, q, rule=trace_rule(trace), num_records=num_records)


@cache  # one rule per name: what is compiled for it is found again
def trace_rule(trace: str) -> Rule:
    """Soft Q(λ) with this trace coefficient; its memory is the eligibility trace e [S, A]."""
    return Rule(jnp.zeros_like, partial(update, trace=trace))


def update(
    objective: Objective,
    q: jax.Array,
    eligibility: jax.Array,
    experience: Experience,
    step_size: jax.Array,
    *,
    trace: str,
) -> tuple[jax.Array, jax.Array]:
    """One step of Soft Q(λ), see the module's equations.

    Args:
        objective: what is learned.
        q: [S, A].
        eligibility: [S, A], e.
        experience: one step.
        step_size: [], α of this step.
        trace: the trace coefficient.

    Returns:
        Q and e after the step, [S, A] each.
    """
    state, action, reference = experience.state, experience.action, objective.reference_log_probs
    log_pi = boltzmann_log_probs(q[state], reference[state], objective.temperature)
    coefficient = trace_coefficients(trace, log_pi[action], experience.log_mu)
    next_v = soft_value(q[experience.next_state], reference[experience.next_state], objective.temperature)
    error = experience.reward + jnp.where(experience.terminated, 0, objective.discount * next_v) - q[state, action]
    eligibility = decay_trace(eligibility, objective.discount, objective.lambda_, coefficient)
    eligibility = accumulate_trace(eligibility, _one_at(state, action, q))
    q = q + step_size * error * eligibility
    return q, jnp.where(experience.terminated | experience.truncated, 0, eligibility)


def _one_at(state: jax.Array, action: jax.Array, q: jax.Array) -> jax.Array:
    """1 at (s, a) and 0 elsewhere: compared, not scattered, so that it fuses into what it is added to."""
    states, actions = (jax.lax.broadcasted_iota(jnp.int32, q.shape, axis) for axis in (0, 1))
    return ((states == state) & (actions == action)).astype(q.dtype)
