"""Online learners as float64 loops, from recorded steps (s, a, r, s', terminated, truncated)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from support.reference.returns import boltzmann, coefficient, kl, soft_value

Step = tuple[int, int, float, int, bool, bool]


def soft_q_lambda(
    steps: Sequence[Step],
    mu: np.ndarray,
    q: np.ndarray,
    reference_log_probs: np.ndarray,
    *,
    trace: str,
    discount: float,
    temperature: float,
    lambda_: float,
    step_size: float,
) -> np.ndarray:
    """Q after all steps, with one eligibility per visit of the episode in place of a table of traces."""
    q = q.copy()
    visits: list[list] = []  # [state, action, eligibility]
    for (s, a, r, next_s, terminated, truncated), mu_a in zip(steps, mu, strict=True):
        c = coefficient(trace, boltzmann(q[s], reference_log_probs[s], temperature), a, mu_a)
        bootstrap = 0.0 if terminated else discount * soft_value(q[next_s], reference_log_probs[next_s], temperature)
        error = r + bootstrap - q[s, a]
        for visit in visits:
            visit[2] *= discount * lambda_ * c
        visits.append([s, a, 1.0])
        for visited_s, visited_a, eligibility in visits:
            q[visited_s, visited_a] += step_size * error * eligibility
        if terminated or truncated:
            visits = []
    return q


def n_step(
    steps: Sequence[Step],
    q: np.ndarray,
    reference_log_probs: np.ndarray,
    *,
    backup: str,
    penalty: str = "full",
    n: int,
    discount: float,
    temperature: float,
    step_size: float,
) -> np.ndarray:
    """Q after all steps; a step waits until n have been made or the episode ends."""
    q = q.copy()
    waiting: list[Step] = []

    def lookahead(i: int, old: np.ndarray) -> float:
        _, _, r, next_s, terminated, _ = waiting[i]
        if terminated:
            return r
        v = soft_value(old[next_s], reference_log_probs[next_s], temperature)
        if i == len(waiting) - 1:
            return r + discount * v
        pi = boltzmann(old[next_s], reference_log_probs[next_s], temperature)
        a = waiting[i + 1][1]
        if backup == "on_policy":
            sampled = math.log(pi[a]) - reference_log_probs[next_s, a]
            cost = sampled if penalty == "sampled" else kl(pi, reference_log_probs[next_s])
            return r + discount * (lookahead(i + 1, old) - temperature * cost)
        return r + discount * (v + pi[a] * (lookahead(i + 1, old) - old[next_s, a]))

    for step in steps:
        waiting.append(step)
        done = step[4] or step[5]
        if done or len(waiting) == n:
            old = q.copy()
            for i in range(len(waiting) if done else 1):
                s, a = waiting[i][:2]
                q[s, a] += step_size * (lookahead(i, old) - old[s, a])
            waiting = [] if done else waiting[1:]
    assert not math.isnan(q.sum())
    return q
