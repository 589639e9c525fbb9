"""Soft values and multi-step returns, written from the definitions as float64 loops."""

from __future__ import annotations

import math

import numpy as np


def soft_value(q: np.ndarray, reference_log_probs: np.ndarray, temperature: float) -> float:
    """τ log Σ_a π0(a) exp(Q(a)/τ) of one state."""
    logits = [ref + value / temperature for value, ref in zip(q, reference_log_probs, strict=True)]
    highest = max(logits)
    return temperature * (highest + math.log(math.fsum(math.exp(x - highest) for x in logits)))


def boltzmann(q: np.ndarray, reference_log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """π0(a) exp((Q(a) − V)/τ) of one state."""
    v = soft_value(q, reference_log_probs, temperature)
    return np.array(
        [math.exp(ref + (value - v) / temperature) for value, ref in zip(q, reference_log_probs, strict=True)]
    )


def kl(probs: np.ndarray, reference_log_probs: np.ndarray) -> float:
    """Σ_a π(a) (log π(a) − log π0(a)), with 0 log 0 = 0."""
    return math.fsum(p * (math.log(p) - ref) for p, ref in zip(probs, reference_log_probs, strict=True) if p > 0)


def lambda_returns(
    r: np.ndarray, discount: np.ndarray, v: np.ndarray, q_a: np.ndarray, c: np.ndarray, lambda_: float
) -> np.ndarray:
    """The sum over TD errors, from each start to the end, in place of the recursion."""
    length = len(r)
    returns = np.zeros(length)
    for t in range(length):
        # G_t − Q(s_t, a_t) = Σ_k (Π_i γ λ c) δ_{t+k}; the first error's Q(s_t, a_t) cancels
        returns[t] = r[t] + discount[t] * v[t]
        weight = 1.0
        for k in range(t + 1, length):
            weight *= discount[k - 1] * lambda_ * c[k - 1]
            returns[t] += weight * (r[k] + discount[k] * v[k] - q_a[k - 1])
    return returns


def tree_backup(
    r: np.ndarray, discount: np.ndarray, v: np.ndarray, q_a: np.ndarray, pi_a: np.ndarray, n: int
) -> np.ndarray:
    """G^(n)_t by its recursion over n, separately for every start."""

    def lookahead(t: int, steps: int) -> float:
        if steps == 1 or t == len(r) - 1:
            return r[t] + discount[t] * v[t]
        return r[t] + discount[t] * (v[t] + pi_a[t] * (lookahead(t + 1, steps - 1) - q_a[t]))

    return np.array([lookahead(t, n) for t in range(len(r))])


def n_step(
    r: np.ndarray,
    discount: np.ndarray,
    v: np.ndarray,
    kl_t: np.ndarray,
    temperature: float,
    n: int,
    cut: np.ndarray | None = None,
) -> np.ndarray:
    """The sum of n penalised rewards and the discounted value after them; windows end with the sequence or a cut."""
    returns = np.zeros(len(r))
    for t in range(len(r)):
        weight, last = 1.0, t
        for k in range(t, min(t + n, len(r))):
            penalty = temperature * kl_t[k - 1] if k > t else 0.0
            returns[t] += weight * (r[k] - penalty)
            weight *= discount[k]
            last = k
            if cut is not None and cut[k]:
                break
        returns[t] += weight * v[last]
    return returns


def soft_q_targets(
    r: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    q: np.ndarray,
    reference_log_probs: np.ndarray,
    action: np.ndarray,
    mu_a: np.ndarray,
    *,
    discount: float,
    temperature: float,
    lambda_: float,
    trace: str,
) -> np.ndarray:
    """The sum over TD errors from each start to the end of its episode, with V, π and c made of q [T, A]."""
    targets = np.zeros(len(r))
    for t in range(len(r)):
        weight, q_a = 1.0, 0.0  # Q(s_t, a_t) of the first error cancels
        for k in range(t, len(r)):
            v = 0.0 if terminated[k] else soft_value(q[k], reference_log_probs[k], temperature)
            targets[t] += weight * (r[k] + discount * v - q_a)
            if terminated[k] or truncated[k]:
                break
            pi = boltzmann(q[k], reference_log_probs[k], temperature)
            weight *= discount * lambda_ * coefficient(trace, pi, action[k], mu_a[k])
            q_a = q[k][action[k]]
    return targets


def coefficient(trace: str, pi: np.ndarray, action: int, mu: float) -> float:
    """c of the action taken, for π of all actions [A]."""
    ratio = float(pi[action]) / mu
    return {
        "tree_backup": float(pi[action]),
        "retrace": min(1.0, ratio),
        "importance_sampling": ratio,
        "uncorrected": 1.0,
        "watkins": float(all(pi[action] >= other for other in pi)),
    }[trace]
