"""The Soft Q(λ) agents in NumPy and float64, from the network's parameters: no shared code, numerical gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support.reference import returns

NORMALISATION_EPSILON = 1e-6


def as_float64(params: Any) -> Any:
    """A copy whose leaves can be written to."""
    return {k: as_float64(v) if isinstance(v, dict) else np.array(v, np.float64) for k, v in params.items()}


def member(params: Any, index: int) -> Any:
    """One of an ensemble's members."""
    return {k: member(v, index) if isinstance(v, dict) else np.asarray(v)[index] for k, v in params.items()}


def q_values(params: Any, obs: np.ndarray, slope: float = 0.0) -> np.ndarray:
    """[..., num_actions]: dense, normalise, rectify (with `slope` below 0), and so on; the last layer is dense."""
    layers, x = params["params"], np.asarray(obs, np.float64)
    num_hidden = sum(name.startswith("Dense") for name in layers) - 1
    for i in range(num_hidden):
        x = x @ layers[f"Dense_{i}"]["kernel"] + layers[f"Dense_{i}"]["bias"]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + NORMALISATION_EPSILON)
        if f"LayerNorm_{i}" in layers:
            x = x * layers[f"LayerNorm_{i}"]["scale"] + layers[f"LayerNorm_{i}"]["bias"]
        x = np.where(x > 0, x, slope * x)
    last = layers[f"Dense_{num_hidden}"]
    return x @ last["kernel"] + last.get("bias", 0.0)


def targets(q_next: np.ndarray, log_prior: np.ndarray, batch: dict[str, np.ndarray], **numbers: Any) -> np.ndarray:
    """[T, B] from q_next [T, B, A] and batch entries [T, B, ...], one sequence after the other."""
    columns = []
    for b in range(q_next.shape[1]):
        following = [np.append(batch[name][1:, b], batch[name][:1, b]) for name in ("action", "log_prob")]
        columns.append(
            returns.soft_q_targets(
                batch["reward"][:, b],
                batch["terminated"][:, b],
                batch["truncated"][:, b],
                q_next[:, b],
                np.broadcast_to(log_prior, q_next[:, b].shape),
                following[0],
                np.exp(following[1]),
                **numbers,
            )
        )
    return np.stack(columns, axis=1)


def loss(q: np.ndarray, action: np.ndarray, target: np.ndarray) -> float:
    """½ mean (Q(s, a) − G)²."""
    errors = [q[i][action[i]] - target[i] for i in np.ndindex(*action.shape)]
    return 0.5 * float(np.mean(np.square(errors)))


def gradient(function: Callable[[Any], float], params: Any) -> Any:
    """Central differences in every parameter, in the parameters' structure."""

    def of(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {k: of(v) for k, v in tree.items()}
        slopes = np.zeros_like(tree)
        for index in np.ndindex(*tree.shape):
            kept, values = tree[index], []
            for shift in (1e-6, -1e-6):
                tree[index] = kept + shift
                values.append(function(params))
            tree[index] = kept
            slopes[index] = (values[0] - values[1]) / 2e-6
        return slopes

    return of(params)


def leaves(tree: Any) -> list[np.ndarray]:
    """All arrays, in order of their names."""
    return [x for k in sorted(tree) for x in (leaves(tree[k]) if isinstance(tree[k], dict) else [tree[k]])]


def stream(
    params: Any,
    steps: list[dict[str, Any]],
    log_prior: np.ndarray,
    *,
    trace: str,
    discount: float,
    temperature: float,
    lambda_: float,
    learning_rate: float,
    overshoot_bound: float,
    slope: float = 0.01,
) -> list[dict[str, Any]]:
    """After every step: parameters, trace, TD error and step size of the online learner with a bounded step."""
    params = as_float64(params)
    trace_leaves = [np.zeros_like(x) for x in leaves(params)]
    history = []
    for step in steps:
        q, q_next = (q_values(params, step[name], slope) for name in ("obs", "next_obs"))
        bootstrap = 0.0 if step["terminated"] else discount * returns.soft_value(q_next, log_prior, temperature)
        error = step["reward"] + bootstrap - q[step["action"]]
        pi = returns.boltzmann(q, log_prior, temperature)
        c = returns.coefficient(trace, pi, step["action"], np.exp(step["log_prob"]))
        slopes = gradient(lambda p, step=step: float(q_values(p, step["obs"], slope)[step["action"]]), params)
        trace_leaves = [discount * lambda_ * c * e + g for e, g in zip(trace_leaves, leaves(slopes), strict=True)]
        size = sum(np.abs(e).sum() for e in trace_leaves)
        bound = overshoot_bound * max(abs(error), 1.0) * size  # Elsayed et al. 2024, algorithm 3: α ≤ 1/(κ δ̄ ‖z‖₁)
        step_size = learning_rate if bound == 0 else min(learning_rate, 1 / bound)
        for x, e in zip(leaves(params), trace_leaves, strict=True):
            x += step_size * error * e
        kept = [x.copy() for x in leaves(params)], [e.copy() for e in trace_leaves]
        if step["terminated"] or step["truncated"]:
            trace_leaves = [np.zeros_like(e) for e in trace_leaves]
        history.append({"params": kept[0], "trace": kept[1], "td_error": error, "step_size": step_size})
    return history
