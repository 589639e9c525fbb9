"""How fast are soft policy iteration on Taxi-v3, against a NumPy loop, and many seeds of online Soft Q(λ) on a chain?

python benchmarks/tabular.py            # prints the table and writes tabular.md beside this file; a minute
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rounds import machine, timed

from jaxsoft.envs.finite import chain, taxi
from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.tabular import soft_policy_iteration, soft_q_lambda

TEMPERATURE, TOLERANCE = 0.1, 1e-6


def main() -> None:
    lines = [
        f"{machine()}. Made by `python benchmarks/tabular.py`.",
        "",
        "| Work | After compilation | First call |",
        "|---|--:|--:|",
    ]
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            mdp = taxi()
            seconds, first, result = measure(lambda mdp=mdp: soft_policy_iteration(mdp, temperature=TEMPERATURE))
            mdp, result = jax.device_get((mdp, result))
        n = int(result.history.num_iterations)
        sweeps, residual = int(result.history.num_sweeps.sum()), float(result.history.residuals[n - 1])
        work = f"Soft policy iteration, Taxi-v3, {dtype}: {n} policies, {sweeps} sweeps, last residual {residual:.1e}"
        lines.append(f"| {work} | {1e3 * seconds:.1f} ms | {first:.2f} s |")
        print(lines[-1], flush=True)
    numpy_seconds, (q, num_sweeps) = timed(numpy_loop, mdp)
    difference = np.abs(q - result.q).max()
    work = f"The same as a NumPy loop over states: {num_sweeps} sweeps, Q differs by {difference:.0e}"
    lines.append(f"| {work} | {numpy_seconds:.1f} s, {numpy_seconds / seconds:.0f} × | |")
    print(lines[-1], flush=True)

    learn = jax.jit(jax.vmap(lambda key: learn_chain(key, chain(20))))
    seconds, first, _ = measure(lambda: learn(jax.random.split(jax.random.key(0), 1_024)), repeats=3)
    lines.append(f"| Online Soft Q(λ), Chain-20: 1,024 seeds of 10,000 steps | {seconds:.2f} s | {first:.2f} s |")
    table = "\n".join(lines) + "\n"
    print(table)
    Path(__file__).with_suffix(".md").write_text(table)


def learn_chain(key: jax.Array, mdp: FiniteMDP) -> jax.Array:
    return soft_q_lambda(key, mdp, num_steps=10_000, temperature=TEMPERATURE, lambda_=0.9, step_size=0.1).q


def measure(function: Callable[[], Any], repeats: int = 15) -> tuple[float, float, Any]:
    """Median seconds after the first call, seconds of the first, and the result."""
    first, result = timed(function)
    return statistics.median(timed(function)[0] for _ in range(repeats)), first, result


def numpy_loop(mdp: FiniteMDP) -> tuple[np.ndarray, int]:
    """Soft policy iteration as a loop over states, its arithmetic on a state's actions in NumPy."""
    probs, next_states, rewards = mdp.transition_probs, mdp.next_states, mdp.rewards
    weights = mdp.discount * probs * ~np.asarray(mdp.terminated)
    num_states, num_actions = probs.shape[:2]
    policy = np.full((num_states, num_actions), 1 / num_actions)
    v, num_sweeps = np.zeros(num_states), 0
    while True:
        change = math.inf
        while change > TOLERANCE:
            change, num_sweeps, new_v = 0.0, num_sweeps + 1, np.empty(num_states)
            for s in range(num_states):
                q = (probs[s] * rewards[s] + weights[s] * v[next_states[s]]).sum(-1)
                log_ratio = np.log(np.maximum(policy[s], 1e-300) * num_actions)
                new_v[s] = policy[s] @ (q - TEMPERATURE * log_ratio)
                change = max(change, abs(new_v[s] - v[s]))
            v = new_v
        q = (probs * rewards + weights * v[next_states]).sum(-1)
        highest = q.max(-1)
        soft_v = highest + TEMPERATURE * np.log(np.exp((q - highest[:, None]) / TEMPERATURE).mean(-1))
        policy = np.exp((q - soft_v[:, None]) / TEMPERATURE) / num_actions
        if np.abs((probs * rewards + weights * soft_v[next_states]).sum(-1) - q).max() <= TOLERANCE:
            return q, num_sweeps
        v = soft_v


if __name__ == "__main__":
    jnp.zeros(()).block_until_ready()
    main()
