"""SAC's losses in NumPy and float64, from the networks' parameters: loops over layers, no shared code."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
from support.reference.tanh_normal import log_prob_of_distant_pre_tanh

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def policy(actor_params: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation before the tanh, each [batch_size, action_dim]."""
    output = _mlp(actor_params["params"], np.asarray(obs, np.float64).reshape(len(obs), -1))
    mean, log_std = np.split(output, 2, axis=-1)
    return mean, np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


def q_values(critic_params: Any, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[num_critics, batch_size]."""
    inputs = np.concatenate([np.asarray(obs, np.float64).reshape(len(obs), -1), action], axis=-1)
    num_members = len(critic_params["params"]["Dense_0"]["bias"])
    return np.stack([_mlp(_member(critic_params["params"], i), inputs)[:, 0] for i in range(num_members)])


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
    return sum(0.5 * np.mean((members - np.asarray(targets, np.float64)) ** 2) for members in q)


def actor_loss(actor_params: Any, critic_params: Any, temperature: float, obs: np.ndarray, noise: np.ndarray) -> float:
    """mean [τ log π(a|s) − min_i Q_θi(s, a)]."""
    action, log_prob = sample(actor_params, obs, noise)
    q = q_values(critic_params, obs, action)
    return float(np.mean(temperature * log_prob - np.minimum(q[0], q[1])))


def log_prob(actor_params: Any, obs: np.ndarray, action: np.ndarray, pre_tanh: np.ndarray | None = None) -> np.ndarray:
    """Log-density [batch_size] of these actions, in [−1, 1]; of those that tanh gives, if that is told."""
    mean, log_std = policy(actor_params, obs)
    if pre_tanh is not None:
        return log_prob_of_distant_pre_tanh(pre_tanh, mean, log_std)
    action = np.asarray(action, np.float64)
    normal = scipy.stats.norm.logpdf(np.arctanh(action), mean, np.exp(log_std))
    return np.sum(normal - np.log1p(-(action**2)), axis=-1)


def value(value_params: Any, obs: np.ndarray) -> np.ndarray:
    """V [batch_size]."""
    return _mlp(value_params["params"], np.asarray(obs, np.float64).reshape(len(obs), -1))[:, 0]


def deterministic_policy(actor_params: Any, obs: np.ndarray) -> np.ndarray:
    """Actions tanh(network) [batch_size, action_dim]."""
    return np.tanh(_mlp(actor_params["params"], np.asarray(obs, np.float64).reshape(len(obs), -1)))


def multi_step_targets(
    actor_params: Any,
    target_critic_params: Any,
    temperature: float,
    discount: float,
    lambda_: float,
    batch: Any,
    noise: np.ndarray,
) -> np.ndarray:
    """Soft λ-returns [L, B] of a batch of sequences [L, B, ...]: sums over TD errors, one sequence after the other."""
    length, num_sequences = batch.reward.shape
    targets = np.zeros((length, num_sequences))
    for b in range(num_sequences):
        next_action, next_log_prob = sample(actor_params, batch.next_obs[:, b], noise[:, b])
        next_q = q_values(target_critic_params, batch.next_obs[:, b], next_action).min(0)
        q_a = q_values(target_critic_params, batch.obs[:, b], batch.action[:, b]).min(0)
        drawn = None if batch.pre_tanh is None else batch.pre_tanh[:, b]
        log_pi_a = log_prob(actor_params, batch.obs[:, b], batch.action[:, b], drawn)
        ratio = np.exp(log_pi_a - np.asarray(batch.log_prob[:, b]))
        for t in range(length):
            weight = 1.0
            targets[t, b] = q_a[t]
            for k in range(t, length):
                next_value = 0.0 if batch.terminated[k, b] else next_q[k] - temperature * next_log_prob[k]
                targets[t, b] += weight * (float(batch.reward[k, b]) + discount * next_value - q_a[k])
                if batch.terminated[k, b] or batch.truncated[k, b] or k + 1 == length:
                    break
                weight *= discount * lambda_ * min(1.0, ratio[k + 1])
    return targets


def _mlp(params: Any, x: np.ndarray) -> np.ndarray:
    for i in range(len(params["MLP_0"])):
        x = np.maximum(_dense(params["MLP_0"][f"Dense_{i}"], x), 0)
    return _dense(params["Dense_0"], x)


def _dense(params: Any, x: np.ndarray) -> np.ndarray:
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def _member(params: Any, member: int) -> Any:
    return {k: _member(v, member) if isinstance(v, dict) else np.asarray(v)[member] for k, v in params.items()}
