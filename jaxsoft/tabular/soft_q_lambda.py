"""Online Soft Q(λ) with eligibility traces, the backward view, in a finite MDP.

    δ_t = r_t + γ_t V_Q(s_{t+1}) − Q(s_t, a_t)
    e   ← γ λ c_t e ;  e(s_t, a_t) ← e(s_t, a_t) + 1 ;  Q ← Q + α δ_t e

c_t and δ_t use the present Q, before this step's update; e ← 0 after a terminal or a truncated step. λ = 0 is one-step
soft Q-learning.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, derived here from the definitions.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, boltzmann_log_probs, decay_trace, soft_value, trace_coefficients
from jaxsoft.ops.traces import NEED_BEHAVIOUR, check_trace
from jaxsoft.tabular.online import Learning, Rule, act_and_learn, learn_recorded
from jaxsoft.tabular.settings import LearnerSettings
from jaxsoft.tabular.walk import TabularTransition


def soft_q_lambda(
    key: jax.Array, mdp: FiniteMDP, *, lambda_: float | jax.Array, trace: str = "tree_backup", **settings: Any
) -> Learning:
    """Online Soft Q(λ): acts in a finite MDP and learns from every step.

    It vmaps over keys and over every number and array it is given; sizes and names are static.

    Args:
        key: of this seed.
        mdp: the process to act in.
        lambda_: [], between 0 and 1.
        trace: the trace coefficient, see `trace_coefficients`.
        **settings: `num_steps`, `temperature`, `step_size`; all others of `LearnerSettings` have defaults.

    Raises:
        InputError: a number out of range, a reference that forbids every action, an unknown trace coefficient, or
            records that do not divide the steps.
    """
    return act_and_learn(key, mdp, trace_rule(trace), LearnerSettings(lambda_=lambda_, **settings))


def soft_q_learning(key: jax.Array, mdp: FiniteMDP, **settings: Any) -> Learning:
    """One-step soft Q-learning, which is Soft Q(0); see `soft_q_lambda`."""
    return soft_q_lambda(key, mdp, lambda_=0.0, **settings)


def soft_q_lambda_from_transitions(
    transitions: TabularTransition, *, lambda_: float | jax.Array, trace: str = "tree_backup", **settings: Any
) -> Learning:
    """Online Soft Q(λ) from recorded transitions: the same updates, in the order in which the steps were made.

    A step whose state is not the successor of the step before must follow one that terminated or was truncated.

    Args:
        transitions: every field [T]; `log_mu` only where the trace coefficient needs it.
        lambda_: [], between 0 and 1.
        trace: the trace coefficient, see `trace_coefficients`.
        **settings: `discount`, `temperature`, `step_size`, `reference_log_probs` (its shape is the table's);
            `half_life`, `initial_q`, `num_records`: see `LearnerSettings`.

    Raises:
        InputError: as `soft_q_lambda`, or the behaviour's probabilities are needed and missing.
    """
    if trace in NEED_BEHAVIOUR and transitions.log_mu is None:
        raise InputError(f"{trace} needs the behaviour's log-probabilities; log_mu is None (tree_backup needs none)")
    return learn_recorded(transitions, trace_rule(trace), LearnerSettings(lambda_=lambda_, **settings))


@cache  # one rule per name: what is compiled for it is found again
def trace_rule(trace: str) -> Rule:
    """Soft Q(λ) with this trace coefficient; its memory is the eligibility trace e [S, A].

    Raises:
        InputError: an unknown trace coefficient.
    """
    check_trace(trace)
    return Rule(jnp.zeros_like, partial(update, trace=trace))


def update(
    settings: LearnerSettings,
    q: jax.Array,
    eligibility: jax.Array,
    transition: TabularTransition,
    step_size: jax.Array,
    *,
    trace: str,
) -> tuple[jax.Array, jax.Array]:
    """One step of Soft Q(λ), see the module's equations and `Rule`, whose memory is e."""
    state, action, next_state = transition.state, transition.action, transition.next_state
    reference, temperature = settings.reference_log_probs, settings.temperature
    log_pi = boltzmann_log_probs(q[state], reference[state], temperature)
    coefficient = trace_coefficients(trace, log_pi[action], transition.log_mu, log_pi.max())
    next_v = soft_value(q[next_state], reference[next_state], temperature)
    error = transition.reward + jnp.where(transition.terminated, 0, settings.discount * next_v) - q[state, action]
    eligibility = decay_trace(eligibility, settings.discount, settings.lambda_, coefficient)
    eligibility = accumulate_trace(eligibility, _one_at(state, action, q))
    q = q + step_size * error * eligibility
    return q, jnp.where(transition.done, 0, eligibility)


def _one_at(state: jax.Array, action: jax.Array, q: jax.Array) -> jax.Array:
    """1 at (s, a) and 0 elsewhere: compared, not scattered, so that it fuses into what it is added to."""
    states, actions = (jax.lax.broadcasted_iota(jnp.int32, q.shape, axis) for axis in (0, 1))
    return ((states == state) & (actions == action)).astype(q.dtype)
