"""Trace coefficients: how far a later error is credited to an earlier action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp

from jaxsoft.errors import InputError, nearest, require

Tree = TypeVar("Tree")


TraceFunction = Callable[[jax.Array, jax.Array | None], jax.Array]
"""A coefficient of one's own: `(log_pi_a [...], log_mu_a [...] or None) -> c_t [...]`."""


def trace_coefficients(
    trace: str | TraceFunction,
    log_pi_a: jax.Array,
    log_mu_a: jax.Array | None = None,
    log_pi_max: jax.Array | None = None,
) -> jax.Array:
    """Trace coefficients c_t of the actions taken, elementwise.

        tree_backup            π(a)               any behaviour, which need not be known
        retrace                min(1, π(a)/μ(a))  any behaviour, known
        importance_sampling    π(a)/μ(a)          any behaviour, known; high variance
        uncorrected            1                  converges only near on-policy or for small λ
        watkins                1[π(a) = max π]    any behaviour, which need not be known; ties are greedy, too

    Watkins's cut is not among them: it keeps whole traces of greedy actions, though π is no greedy policy.

    0 ≤ c ≤ π/μ makes the evaluation of a fixed policy a contraction, whoever acts. Control, where π moves with Q, needs
    more: with tree_backup and retrace, too, full steps from an arbitrary Q can cycle for ever. If c ≤ π/μ, steps of at
    most 0.5, and full steps from a Q that its own backup nowhere lowers, converged in all that was tried; watkins and
    uncorrected can cycle, and uncorrected diverge, even so: see experiments/convergence.md.

    Args:
        trace: one of the five, or a function of the next two arguments.
        log_pi_a: [...], log π(a_t|s_t) of the target policy.
        log_mu_a: [...], log μ(a_t|s_t) of the policy that acted, finite; retrace and importance_sampling need it.
        log_pi_max: [...], max_a log π(a|s_t), of the same array as `log_pi_a`; watkins needs it.

    Returns:
        [...], c_t ≥ 0.

    Raises:
        InputError: no such coefficient, or the log-probabilities that it needs are missing.

    Source: Munos et al. 2016, arXiv:1606.02647; uncorrected: Harutyunyan et al. 2016, arXiv:1602.04951; watkins: the
    cut of Watkins's Q(λ), Watkins 1989, "Learning from delayed rewards".
    """
    if not isinstance(trace, str):
        return trace(log_pi_a, log_mu_a)
    check_trace(trace)
    if trace == "tree_backup":
        return jnp.exp(log_pi_a)
    if trace == "uncorrected":
        return jnp.ones_like(log_pi_a)
    if trace == "watkins":
        if log_pi_max is None:
            raise InputError("watkins needs the greedy action's log-probability; log_pi_max is None")
        return (log_pi_a >= log_pi_max).astype(log_pi_a.dtype)
    if log_mu_a is None:
        raise InputError(f"{trace} needs the behaviour's log-probabilities; log_mu_a is None (tree_backup needs none)")
    log_ratio = log_pi_a - log_mu_a
    return jnp.exp(jnp.minimum(log_ratio, 0) if trace == "retrace" else log_ratio)


TraceName = Literal["tree_backup", "retrace", "importance_sampling", "uncorrected", "watkins"]

TRACES: tuple[str, ...] = get_args(TraceName)
"""Every trace coefficient's name."""

NEED_BEHAVIOUR = ("retrace", "importance_sampling")
"""The coefficients that need the behaviour's log-probabilities."""


def check_trace(name: str) -> None:
    """Raises an `InputError`, which suggests the nearest, where no trace coefficient has this name."""
    if name not in TRACES:
        raise InputError(f"unknown trace coefficient {name!r}{nearest(name, TRACES)} (there are: {', '.join(TRACES)})")


def decay_trace(
    trace: Tree, discount: float | jax.Array, lambda_: float | jax.Array, coefficient: float | jax.Array
) -> Tree:
    """Fades an eligibility trace by one step, before the step's own gradient is accumulated.

        e ← γ λ c_t e

    Args:
        trace: e, an array or a pytree of arrays of any shapes: a table, or like the parameters.
        discount: [], γ.
        lambda_: [], between 0 and 1.
        coefficient: [], c_t of the action taken now, under the present Q; 0 starts a new trace (a new episode).

    Returns:
        As `trace`.

    Raises:
        InputError: λ or the discount is outside [0, 1].

    Source: Soft Q(λ)'s backward view, Mahajan & Seymour 2026, arXiv:2604.13780.
    """
    require("lambda_", lambda_, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    require("discount", discount, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    return jax.tree.map(lambda e: jnp.asarray(discount * lambda_ * coefficient, e.dtype) * e, trace)


def accumulate_trace(trace: Tree, gradient: Tree) -> Tree:
    """Adds the gradient of Q(s_t, a_t) to a faded eligibility trace.

        e ← e + ∇_w Q_w(s_t, a_t)

    Args:
        trace: e, an array or a pytree of arrays of any shapes.
        gradient: as `trace`; of a table, one at (s_t, a_t) and zero elsewhere.

    Returns:
        As `trace`.
    """
    return jax.tree.map(jnp.add, trace, gradient)
