"""Multi-step returns of the maximum-entropy objective, over one sequence of T transitions.

Entry i of every array belongs to transition i; `v_t`, `q_a_t`, `c_t`, `pi_a_t` and `penalty_t` belong to its successor
state, and to the action taken there. In the last entry only `v_t` has an effect: the sequence ends with the bootstrap
r + γ V. Where the task ended, the discount is 0. A time limit is no end of the task: the discount stays, and the caller
cuts the trace by setting `c_t` (or `pi_a_t`) to 0, or `cut_t`.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780, derived here from the definitions.
"""

from __future__ import annotations

from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError, require
from jaxsoft.ops.reductions import max_last, take_last
from jaxsoft.ops.soft import boltzmann_log_probs, soft_value
from jaxsoft.ops.traces import TraceFunction, trace_coefficients

Method = Literal["auto", "sequential", "associative"]
"""How a linear recursion is computed: step by step, as a tree of depth log T, or by platform and length."""

ASSOCIATIVE_FROM = 4
"""The length from which `auto` takes the associative scan, on accelerators; on CPU it never does.

On CPU the sequential scan was the faster one at every length up to 4096 and every batch up to 4096
(`benchmarks/returns.py`). An accelerator pays for every kernel: compiled for an H100, 64 steps are 192 kernels one
after the other, and 13 as a tree.
"""


def soft_lambda_returns(
    r_t: jax.Array,
    discount_t: jax.Array,
    v_t: jax.Array,
    q_a_t: jax.Array,
    c_t: jax.Array,
    lambda_: float | jax.Array,
    *,
    method: Method = "auto",
) -> jax.Array:
    """Targets of Soft Q(λ) in its forward view; the trace coefficient chooses the method.

        G_t = r_t + γ_t [ V(s_{t+1}) + λ c_{t+1} (G_{t+1} − Q(s_{t+1}, a_{t+1})) ]
            = Q(s_t, a_t) + Σ_{k≥0} ( Π_{i=1..k} γ λ c_{t+i} ) δ_{t+k}

    λ = 0 is the one-step target; λ = 1 with c = π is the Soft Tree Backup as long as the sequence.

    Args:
        r_t: [T], rewards r_t.
        discount_t: [T], γ_t = γ (1 − terminated_t).
        v_t: [T], V(s_{t+1}), the soft value of each successor.
        q_a_t: [T], Q(s_{t+1}, a_{t+1}).
        c_t: [T], c_{t+1}; see `trace_coefficients`. 0 where a time limit stopped the episode.
        lambda_: [] or [T], between 0 and 1.
        method: `sequential`, `associative` or `auto`, see `ASSOCIATIVE_FROM`; equal but for rounding.

    Returns:
        [T], G_t.

    Raises:
        InputError: λ is outside [0, 1], or there is no such method.
    """
    chex.assert_rank([r_t, discount_t, v_t, q_a_t, c_t], 1)
    chex.assert_equal_shape([r_t, discount_t, v_t, q_a_t, c_t])
    require("lambda_", lambda_, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    slopes, offsets = _recursion(r_t, discount_t, v_t, q_a_t, lambda_ * c_t)
    return _solve(slopes, offsets, method)


def soft_q_targets(
    r_t: jax.Array,
    terminated_t: jax.Array,
    truncated_t: jax.Array,
    q_t: jax.Array,
    reference_log_probs_t: jax.Array,
    a_t: jax.Array,
    log_mu_a_t: jax.Array | None,
    *,
    discount: float | jax.Array,
    temperature: float | jax.Array,
    lambda_: float | jax.Array,
    trace: str | TraceFunction,
) -> jax.Array:
    """Targets of Soft Q(λ) from a sequence of experience.

        G_t = r_t + γ_t [ V(s_{t+1}) + λ c_{t+1} (G_{t+1} − Q(s_{t+1}, a_{t+1})) ]

    Computes the arguments of `soft_lambda_returns` from experience. Where the task ended, γ_t is 0; where a time limit
    stopped the episode, V of the true successor stays and c is 0.

    Args:
        r_t: [T], rewards r_t.
        terminated_t: [T], bool; the task ended with transition t.
        truncated_t: [T], bool; a time limit ended the episode with transition t.
        q_t: [T, A], Q(s_{t+1},·), of the true successors.
        reference_log_probs_t: [T, A] or what broadcasts to it, log π0(·|s_{t+1}).
        a_t: [T], int, a_{t+1}: the next action of the sequence. Those after the end of an episode, and the last, have
            no effect.
        log_mu_a_t: [T], log μ(a_{t+1}|s_{t+1}) of the policy that acted, likewise; None if the coefficient needs none.
        discount: γ.
        temperature: τ > 0.
        lambda_: λ, between 0 and 1.
        trace: the trace coefficient's name, or a function, see `trace_coefficients`.

    Returns:
        [T], G_t.
    """
    chex.assert_rank([r_t, terminated_t, truncated_t, a_t, q_t], [1, 1, 1, 1, 2])
    per_step = [r_t, terminated_t, truncated_t, a_t, q_t[:, 0]]
    chex.assert_equal_shape(per_step if log_mu_a_t is None else [*per_step, log_mu_a_t])
    v_t = soft_value(q_t, reference_log_probs_t, temperature)
    log_pi_t = boltzmann_log_probs(q_t, reference_log_probs_t, temperature)
    q_a_t, log_pi_a_t = (take_last(x, a_t) for x in (q_t, log_pi_t))
    c_t = trace_coefficients(trace, log_pi_a_t, log_mu_a_t, max_last(log_pi_t))
    c_t = jnp.where(terminated_t | truncated_t, 0, c_t)
    v_t, q_a_t = (jnp.where(terminated_t, 0, x) for x in (v_t, q_a_t))  # 0 × NaN would be NaN
    return soft_lambda_returns(r_t, discount * (1 - terminated_t), v_t, q_a_t, c_t, lambda_)


def soft_tree_backup_returns(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, q_a_t: jax.Array, pi_a_t: jax.Array, n: int
) -> jax.Array:
    """Targets of the n-step Soft Tree Backup: off-policy, without knowing the behaviour's probabilities.

        G^(1)_t = r_t + γ V(s_{t+1})
        G^(n)_t = r_t + γ [ V(s_{t+1}) + π_Q(a_{t+1}|s_{t+1}) (G^(n−1)_{t+1} − Q(s_{t+1}, a_{t+1})) ]

    Windows end with the sequence: the last n − 1 returns look fewer than n steps ahead, and n ≥ T is λ = 1.

    Args:
        r_t: [T], rewards r_t.
        discount_t: [T], γ_t = γ (1 − terminated_t).
        v_t: [T], V(s_{t+1}), the soft value of each successor.
        q_a_t: [T], Q(s_{t+1}, a_{t+1}).
        pi_a_t: [T], π_Q(a_{t+1}|s_{t+1}). 0 where a time limit stopped the episode: the window ends there.
        n: steps of a window, at least 1.

    Returns:
        [T], G^(n)_t.

    Raises:
        InputError: n is less than 1.
    """
    chex.assert_rank([r_t, discount_t, v_t, q_a_t, pi_a_t], 1)
    chex.assert_equal_shape([r_t, discount_t, v_t, q_a_t, pi_a_t])
    return _windows(r_t + discount_t * v_t, *_recursion(r_t, discount_t, v_t, q_a_t, pi_a_t), n)


def n_step_soft_returns(
    r_t: jax.Array,
    discount_t: jax.Array,
    v_t: jax.Array,
    penalty_t: jax.Array,
    temperature: float | jax.Array,
    n: int,
    *,
    cut_t: jax.Array | None = None,
) -> jax.Array:
    """On-policy n-step targets; the first action is given, so that the penalty starts with the second step.

        G^(n)_t = r_t + Σ_{k=1}^{n−1} γ^k (r_{t+k} − τ penalty_{t+k}) + γ^n V(s_{t+n})

    The penalty is the whole divergence or the log-ratio of the action taken, see `kl_penalty`; with the latter

        G^(n)_t = Q(s_t, a_t) + Σ_{k=0}^{n−1} γ^k δ_{t+k}

    which is constant where nothing is random and Q is Q*. Biased if the actions come from any policy but π_Q. Windows
    end with the sequence: the last n − 1 returns look fewer than n steps ahead.

    Args:
        r_t: [T], rewards r_t.
        discount_t: [T], γ_t = γ (1 − terminated_t).
        v_t: [T], V(s_{t+1}), the soft value of each successor.
        penalty_t: [T], in nats: KL[π_Q ‖ π0] at s_{t+1}, or log π_Q/π0 of the action taken there.
        temperature: [], τ > 0.
        n: steps of a window, at least 1.
        cut_t: [T], bool; true where a time limit stopped the episode, so that a window ends there. None: nowhere.

    Returns:
        [T], G^(n)_t.

    Raises:
        InputError: n is less than 1, or the temperature is not a positive number.

    Source: Schulman et al. 2017, arXiv:1704.06440.
    """
    chex.assert_rank([r_t, discount_t, v_t, penalty_t], 1)
    chex.assert_equal_shape([r_t, discount_t, v_t, penalty_t])
    require("temperature", temperature, lambda x: (x > 0) & np.isfinite(x), "a positive number")
    one_step = r_t + discount_t * v_t
    offsets = r_t - discount_t * temperature * penalty_t
    if cut_t is None:
        return _windows(one_step, discount_t, offsets, n)
    return _windows(one_step, jnp.where(cut_t, 0, discount_t), jnp.where(cut_t, one_step, offsets), n)


def _recursion(
    r_t: jax.Array, discount_t: jax.Array, v_t: jax.Array, q_a_t: jax.Array, weight_t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The recursion of a trace of these weights as G_t = slope_t G_{t+1} + offset_t."""
    has_next = jnp.arange(len(r_t)) < len(r_t) - 1
    weight_t, q_a_t = (jnp.where(has_next, x, 0) for x in (weight_t, q_a_t))
    return discount_t * weight_t, r_t + discount_t * (v_t - weight_t * q_a_t)


def _solve(slopes: jax.Array, offsets: jax.Array, method: Method) -> jax.Array:
    """All G_t = slope_t G_{t+1} + offset_t, backwards from G_T = 0; [T], [T] -> [T]."""
    if method not in ("auto", "sequential", "associative"):
        raise InputError(f"method is {method!r}; it must be auto, sequential or associative")
    if method == "auto" and len(offsets) >= ASSOCIATIVE_FROM:
        return jax.lax.platform_dependent(slopes, offsets, cpu=_solve_sequentially, default=_solve_associatively)
    return (_solve_associatively if method == "associative" else _solve_sequentially)(slopes, offsets)


def _solve_sequentially(slopes: jax.Array, offsets: jax.Array) -> jax.Array:
    def step(next_return: jax.Array, affine: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slope, offset = affine
        this_return = offset + slope * next_return
        return this_return, this_return

    return jax.lax.scan(step, jnp.zeros_like(offsets[0]), (slopes, offsets), reverse=True)[1]


def _solve_associatively(slopes: jax.Array, offsets: jax.Array) -> jax.Array:
    return jax.lax.associative_scan(_compose, (slopes, offsets), reverse=True)[1]


Affine = tuple[jax.Array, jax.Array]


def _compose(later: Affine, earlier: Affine) -> Affine:
    """The affine map of an earlier step after that of the later ones; a reversed scan hands the later ones first."""
    return earlier[0] * later[0], earlier[0] * later[1] + earlier[1]


def _windows(one_step: jax.Array, slopes: jax.Array, offsets: jax.Array, n: int) -> jax.Array:
    """Applies the recursion n − 1 times to the one-step targets, everywhere at once; [T] each -> [T]."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InputError(f"n is {n}; it must be a positive integer")
    length = len(one_step)
    if length == 0:
        return one_step

    def lengthen(_: int | jax.Array, returns: jax.Array) -> jax.Array:
        return jnp.append(offsets[:-1] + slopes[:-1] * returns[1:], one_step[-1])

    return jax.lax.fori_loop(0, min(int(n), length) - 1, lengthen, one_step)
