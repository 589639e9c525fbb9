"""SAC's losses in NumPy and float64, from the networks' parameters: loops over layers, no shared code."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def policy(actor_params: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation before the tanh, each [batch_size, action_dim]."""
    output = _mlp(actor_params["params"], np.asarray(obs, np.float64).reshape(len(obs), -1))
    mean, log_std = np.split(output, 2, axis=-1)
    return mean, np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


def q_values(critic_params: Any, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[2, batch_size]."""
    inputs = np.concatenate([np.asarray(obs, np.float64).reshape(len(obs), -1), action], axis=-1)
    members = []
    for member in range(2):
        members.append(_mlp(_member(critic_params["params"], member), inputs)[:, 0])
    return np.stack(members)


def sample(actor_params: Any, obs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions [batch_size, action_dim] made of this standard normal noise, and their log-probabilities."""
    mean, log_std = policy(actor_params, obs)
    pre_tanh = mean + np.exp(log_std) * np.asarray(noise, np.float64)
    action = np.tanh(pre_tanh)
    log_prob = scipy.stats.norm.logpdf(pre_tanh, mean, np.exp(log_std)) - np.log1p(-(action**2))
    return action, log_prob.sum(axis=-1)


def critic_targets(
    actor_params: Any,
    target_critic_params: Any,
    temperature: float,
    discount: float,
    reward: np.ndarray,
    next_obs: np.ndarray,
    terminated: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """y = r + γ (1 − terminated) (min_i Q_θ̄i(s', a') − τ log π(a'|s')), one transition at a time."""
    next_action, next_log_prob = sample(actor_params, next_obs, noise)
    next_q = q_values(target_critic_params, next_obs, next_action)
    targets = []
    for i in range(len(reward)):
        target = float(reward[i])
        if not terminated[i]:
            target += discount * (min(next_q[0, i], next_q[1, i]) - temperature * next_log_prob[i])
        targets.append(target)
    return np.asarray(targets)


def critic_loss(critic_params: Any, obs: np.ndarray, action: np.ndarray, targets: np.ndarray) -> float:
    """½ Σ_i mean (Q_θi(s, a) − y)²."""
    q = q_values(critic_params, obs, action)
    return sum(0.5 * np.mean((q[i] - np.asarray(targets, np.float64)) ** 2) for i in range(2))


def actor_loss(actor_params: Any, critic_params: Any, temperature: float, obs: np.ndarray, noise: np.ndarray) -> float:
    """mean [τ log π(a|s) − min_i Q_θi(s, a)]."""
    action, log_prob = sample(actor_params, obs, noise)
    q = q_values(critic_params, obs, action)
    return float(np.mean(temperature * log_prob - np.minimum(q[0], q[1])))


def _mlp(params: Any, x: np.ndarray) -> np.ndarray:
    for i in range(len(params["MLP_0"])):
        x = np.maximum(_dense(params["MLP_0"][f"Dense_{i}"], x), 0)
    return _dense(params["Dense_0"], x)


def _dense(params: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def _member(params: Any, member: int) -> Any:
    return {k: _member(v, member) if isinstance(v, dict) else np.asarray(v)[member] for k, v in params.items()}
