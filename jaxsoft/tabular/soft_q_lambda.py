"""Online Soft Q(λ) with eligibility traces, the backward view, in a finite MDP.

    δ_t = r_t + γ_t V_Q(s_{t+1}) − Q(s_t, a_t)
    e   ← γ λ c_t e ;  e(s_t, a_t) ← e(s_t, a_t) + 1 ;  Q ← Q + α δ_t e

c_t and δ_t use the present Q, before this step's update; e ← 0 after a terminal or a truncated step. λ = 0 is one-step
soft Q-learning.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, derived here from the definitions.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Unpack

import jax
import jax.numpy as jnp

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, boltzmann_log_probs, decay_trace, soft_value, trace_coefficients
from jaxsoft.ops.traces import NEED_BEHAVIOUR, check_trace
from jaxsoft.tabular.online import (
    ActingSettings,
    Experience,
    Learning,
    Objective,
    Rule,
    Settings,
    act_and_learn,
    learn_from,
)


def soft_q_lambda(
    key: jax.Array,
    mdp: FiniteMDP,
    *,
    lambda_: float | jax.Array,
    trace: str = "tree_backup",
    **settings: Unpack[ActingSettings],
) -> Learning:
    """Online Soft Q(λ): acts in a finite MDP and learns from every step.

    It vmaps over keys and over every number and array it is given; sizes and names are static.

    Args:
        key: of this seed.
        mdp: the process to act in.
        lambda_: [], between 0 and 1.
        trace: the trace coefficient, see `trace_coefficients`.
        **settings: `num_steps`, `temperature`, `step_size`; `behaviour`, `reference_log_probs`, `half_life`,
            `max_episode_steps`, `num_records`, `initial_q`: see `ActingSettings` and `Settings`.

    Raises:
        InputError: a number out of range, a reference that forbids every action, an unknown trace coefficient, or
            records that do not divide the steps.
    """
    check_trace(trace)
    return act_and_learn(key, mdp, trace_rule(trace), lambda_=lambda_, **settings)


def soft_q_learning(key: jax.Array, mdp: FiniteMDP, **settings: Unpack[ActingSettings]) -> Learning:
    """One-step soft Q-learning, which is Soft Q(0); see `soft_q_lambda`."""
    return soft_q_lambda(key, mdp, lambda_=0.0, **settings)


def soft_q_lambda_from_experience(
    experience: Experience,
    *,
    discount: float | jax.Array,
    lambda_: float | jax.Array,
    trace: str = "tree_backup",
    reference_log_probs: jax.Array,
    **settings: Unpack[Settings],
) -> Learning:
    """Online Soft Q(λ) from another's data: the same updates, in the order in which the steps were made.

    A step whose state is not the successor of the step before must follow one that terminated or was truncated.

    Args:
        experience: every field [T]; `log_mu` only where the trace coefficient needs it.
        discount: [], γ.
        lambda_: [], between 0 and 1.
        trace: the trace coefficient, see `trace_coefficients`.
        reference_log_probs: [S, A], log π0; its shape is the table's.
        **settings: `temperature`, `step_size`; `half_life`, `num_records`, `initial_q`: see `Settings`.

    Raises:
        InputError: as `soft_q_lambda`, or the behaviour's probabilities are needed and missing.
    """
    check_trace(trace)
    if trace in NEED_BEHAVIOUR and experience.log_mu is None:
        raise InputError(f"{trace} needs the behaviour's log-probabilities; log_mu is None (tree_backup needs none)")
    return learn_from(
        experience,
        trace_rule(trace),
        discount=discount,
        lambda_=lambda_,
        reference_log_probs=reference_log_probs,
        **settings,
    )


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
