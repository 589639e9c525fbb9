"""Streaming SAC in NumPy and float64, from the networks' parameters: numerical gradients, sums instead of traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support.reference.sac import LOG_STD_MAX, LOG_STD_MIN
from support.reference.soft_q import as_float64, gradient, leaves, q_values
from support.reference.tanh_normal import log_prob_of_pre_tanh

SLOPE = 0.01
"""Of the activation below 0."""


def value(value_params: Any, obs: np.ndarray) -> np.ndarray:
    """V [...]."""
    return q_values(value_params, obs, SLOPE)[..., 0]


def policy(actor_params: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation before the tanh, each [..., action_dim]."""
    mean, log_std = np.split(q_values(actor_params, obs, SLOPE), 2, axis=-1)
    return mean, np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


def log_prob(actor_params: Any, obs: np.ndarray, pre_tanh: np.ndarray) -> float:
    """log π(tanh u|s) of one action."""
    return float(log_prob_of_pre_tanh(pre_tanh, *policy(actor_params, obs)))


def td_error(actor_params: Any, value_params: Any, step: dict[str, Any], temperature: float, discount: float) -> float:
    """r − τ log π(a|s) + γ (1 − terminated) V(s') − V(s)."""
    beyond = 0.0 if step["terminated"] else discount * float(value(value_params, step["next_obs"]))
    penalty = temperature * log_prob(actor_params, step["obs"], step["pre_tanh"])
    return step["reward"] - penalty + beyond - float(value(value_params, step["obs"]))


def gradients(actor_params: Any, value_params: Any, step: dict[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Leaves of ∇ log π(a|s) and of ∇ V(s), by central differences."""
    functions: list[tuple[Callable[[Any], float], Any]] = [
        (lambda p: log_prob(p, step["obs"], step["pre_tanh"]), as_float64(actor_params)),
        (lambda p: float(value(p, step["obs"])), as_float64(value_params)),
    ]
    actor, critic = (leaves(gradient(function, params)) for function, params in functions)
    return actor, critic


def stream(
    actor_params: Any,
    value_params: Any,
    steps: list[dict[str, Any]],
    *,
    temperature: float,
    discount: float,
    lambda_: float,
    learning_rate: float,
    overshoot_bound: float,
    actor_overshoot_bound: float,
) -> list[dict[str, Any]]:
    """After every step: parameters and traces (leaves) of policy and value function, the TD error, the step sizes.

    A trace is the sum of the gradients since the episode began, each weighted by (γ λ) to the power of its age.
    """
    params = as_float64(actor_params), as_float64(value_params)
    bounds, episode, history = (actor_overshoot_bound, overshoot_bound), [], []
    for step in steps:
        error = td_error(*params, step, temperature, discount)
        episode.append(gradients(*params, step))
        ages = range(len(episode))[::-1]
        traces, sizes = [], []
        for i, bound in enumerate(bounds):
            weighted = [
                [(discount * lambda_) ** age * g for g in past[i]] for age, past in zip(ages, episode, strict=True)
            ]
            traces.append([np.sum(terms, axis=0) for terms in zip(*weighted, strict=True)])
            limit = bound * max(abs(error), 1.0) * sum(np.abs(e).sum() for e in traces[i])
            sizes.append(learning_rate if limit == 0 else min(learning_rate, 1 / limit))
            for x, e in zip(leaves(params[i]), traces[i], strict=True):
                x += sizes[i] * error * e
        kept = [[x.copy() for x in leaves(p)] for p in params]
        history.append({"params": kept, "traces": traces, "td_error": error, "step_sizes": sizes})
        if step["terminated"] or step["truncated"]:
            episode = []
    return history


def lambda_returns(
    rewards: list[float], values: list[float], beyond: float, discount: float, lambda_: float
) -> list[float]:
    """G_t = (1 − λ) Σ_n λ^(n−1) G_t^(n) of one episode; `values` V(s_t), `beyond` the value after its last step."""
    length, targets = len(rewards), []
    following = [*values[1:], beyond]
    for t in range(length):
        n_step = [
            sum(discount**k * rewards[t + k] for k in range(n)) + discount**n * following[t + n - 1]
            for n in range(1, length - t + 1)
        ]
        weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, length - t)] + [lambda_ ** (length - t - 1)]
        targets.append(float(np.dot(weights, n_step)))
    return targets
