"""PPO in NumPy and float64, from the networks' parameters: sums over TD errors, one step at a time, no shared code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
from support.reference.soft_q import gradient, leaves
from support.reference.tanh_normal import log_prob_of_distant_pre_tanh


def mlp(params: Any, obs: np.ndarray) -> np.ndarray:
    """Dense layers with tanh between them; [..., features] -> [..., num_outputs]."""
    layers, x = params["params"], np.asarray(obs, np.float64)
    for i in range(len(layers)):
        x = np.tanh(x) if i else x
        x = x @ np.asarray(layers[f"Dense_{i}"]["kernel"]) + np.asarray(layers[f"Dense_{i}"]["bias"])
    return x


def value(params: Any, obs: np.ndarray) -> np.ndarray:
    """V [...]."""
    return mlp(params, obs)[..., 0]


def gaussian(params: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [..., action_dim] and standard deviation [action_dim] before the tanh."""
    inner = params["params"]
    return mlp({"params": inner["mean"]}, obs), np.exp(np.asarray(inner["log_std"], np.float64))


def log_prob(params: Any, obs: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Log π(a|s) [...] of discrete actions [...], or log-density of continuous ones, which are tanh(drawn)."""
    if np.issubdtype(drawn.dtype, np.integer):
        return np.take_along_axis(scipy.special.log_softmax(mlp(params, obs), -1), drawn[..., None], -1)[..., 0]
    mean, std = gaussian(params, obs)
    return log_prob_of_distant_pre_tanh(drawn, mean, np.log(std))


def entropy(params: Any, obs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    """Of discrete actions, exactly; of continuous ones, −log π of the draw that this standard normal noise makes."""
    if noise is None:
        return np.asarray(scipy.stats.entropy(scipy.special.softmax(mlp(params, obs), -1), axis=-1))
    mean, std = gaussian(params, obs)
    return -log_prob(params, obs, mean + std * noise)


def advantages(value_params: Any, batch: Any, discount: float, lambda_: float) -> np.ndarray:
    """[T, B]: from each step the discounted sum of TD errors to the end of its episode, or of the rollout."""
    now, after = value(value_params, batch.obs), value(value_params, batch.next_obs)
    errors = batch.reward + discount * np.where(batch.terminated, 0, after) - now
    sums = np.zeros(errors.shape)
    for t, b in np.ndindex(*errors.shape):
        for k in range(t, len(errors)):
            sums[t, b] += (discount * lambda_) ** (k - t) * errors[k, b]
            if batch.terminated[k, b] or batch.truncated[k, b]:
                break
    return sums


def losses(
    params: Any,
    obs: np.ndarray,
    drawn: np.ndarray,
    old_log_prob: np.ndarray,
    advantage: np.ndarray,
    target: np.ndarray,
    *,
    noise: np.ndarray | None,
    clip_range: float,
) -> dict[str, float]:
    """The losses and what else is measured on a minibatch."""
    scaled = (advantage - advantage.mean()) / advantage.std()
    ratio = np.exp(log_prob(params["policy"], obs, drawn) - old_log_prob)
    gains = [min(r * a, min(max(r, 1 - clip_range), 1 + clip_range) * a) for r, a in zip(ratio, scaled, strict=True)]
    v = value(params["value"], obs)
    return {
        "policy_loss": -float(np.mean(gains)),
        "value_loss": 0.5 * float(np.mean((v - target) ** 2)),
        "value_mean": float(v.mean()),
        "entropy": float(entropy(params["policy"], obs, noise).mean()),
        "kl": float(np.mean(ratio - 1 - np.log(ratio))),
        "clip_fraction": float(np.mean(abs(ratio - 1) > clip_range)),
    }


class Adam:
    """Adam's steps on parameters that are changed in place; gradients are shortened to a length before."""

    def __init__(self, max_norm: float, epsilon: float) -> None:
        self.max_norm, self.epsilon = max_norm, epsilon
        self.norms: list[float] = []
        self.moments: list[tuple[np.ndarray, np.ndarray]] = []

    def step(self, params: Any, loss: Callable[[Any], float], learning_rate: float) -> None:
        """One step down the loss's numerical gradient."""
        grads = leaves(gradient(loss, params))
        self.norms.append(float(np.sqrt(sum(np.sum(g**2) for g in grads))))
        shortened = [g * min(1, self.max_norm / self.norms[-1]) for g in grads]
        self.moments = self.moments or [(np.zeros_like(g), np.zeros_like(g)) for g in grads]
        self.moments = [
            (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2) for (m, v), g in zip(self.moments, shortened, strict=True)
        ]
        count = len(self.norms)
        for x, (m, v) in zip(leaves(params), self.moments, strict=True):
            x -= learning_rate * m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + self.epsilon)
