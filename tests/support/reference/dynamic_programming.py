"""Soft values of finite MDPs, written from the definitions as float64 loops over states, actions and successors."""

from __future__ import annotations

import numpy as np
from support.reference.returns import kl, soft_value


def backup(probs: np.ndarray, rewards: np.ndarray, discount: float, v: np.ndarray) -> np.ndarray:
    """Q(s,a) = r(s,a) + γ Σ_s' p(s'|s,a) V(s')."""
    q = np.zeros_like(rewards)
    for s, row in enumerate(rewards):
        for a in range(len(row)):
            q[s, a] = rewards[s, a] + discount * sum(p * v[t] for t, p in enumerate(probs[s, a]))
    return q


def evaluate(
    probs: np.ndarray,
    rewards: np.ndarray,
    discount: float,
    policy: np.ndarray,
    temperature: float,
    reference_log_probs: np.ndarray,
    num_sweeps: int,
) -> np.ndarray:
    """Q of a policy after this many sweeps from zero."""
    q = np.zeros(rewards.shape)
    for _ in range(num_sweeps):
        v = [sum(policy[s] * q[s]) - temperature * kl(policy[s], reference_log_probs[s]) for s in range(len(q))]
        q = backup(probs, rewards, discount, np.array(v))
    return q


def iterate_values(
    probs: np.ndarray,
    rewards: np.ndarray,
    discount: float,
    temperature: float,
    reference_log_probs: np.ndarray,
    num_sweeps: int,
) -> np.ndarray:
    """Q after this many sweeps of the optimality equation from zero."""
    q = np.zeros(rewards.shape)
    for _ in range(num_sweeps):
        v = [soft_value(q[s], reference_log_probs[s], temperature) for s in range(len(q))]
        q = backup(probs, rewards, discount, np.array(v))
    return q
