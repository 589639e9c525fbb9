"""What does soft policy iteration do on Taxi-v3? `python experiments/taxi.py`, half a minute.

Three questions. How fast does the residual of the soft optimality equation fall from one policy to the next? What does
the temperature do to the policy: how far from the reference is it, and what does it cost? And does a low temperature
reach the optimal policy's mean return, about 7.9, in gymnasium's own Taxi?
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from pages import save, table

from jaxsoft.envs import finite
from jaxsoft.ops import kl_divergence
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval
from jaxsoft.tabular import soft_policy_iteration

HERE = Path(__file__).parent
TEMPERATURES = np.array([0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
NUM_EPISODES = 3_000
TAXI_ID = "Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"  # gymnasium 1.3 renamed the same task


class Row(NamedTuple):
    """One temperature: residuals [num_policies]; the divergence in nats; returns in gymnasium, with 95 % interval."""

    temperature: float
    residuals: np.ndarray
    divergence: float
    greedy: Interval
    stochastic: Interval
    solved: float


def main() -> None:
    mdp = finite.taxi()
    reference = np.full((mdp.num_states, mdp.num_actions), -np.log(mdp.num_actions))
    with jax.enable_x64(True):
        mdp = jax.tree.map(lambda x: jnp.asarray(x, float) if x.dtype == np.float32 else x, mdp)
        iterate = jax.vmap(lambda temperature: soft_policy_iteration(mdp, temperature=temperature, tolerance=1e-9))
        results = iterate(jnp.asarray(TEMPERATURES))
        divergences = np.asarray(kl_divergence(jnp.log(results.policy), jnp.asarray(reference)))
    starts = np.asarray(mdp.initial_probs) > 0
    rows = []
    for i, temperature in enumerate(TEMPERATURES):
        policy = np.asarray(results.policy[i])
        greedy = np.eye(mdp.num_actions)[policy.argmax(axis=-1)]
        greedy_return, stochastic_return = (play(p) for p in (greedy, policy))
        residuals = np.asarray(results.history.residuals[i, : int(results.history.num_iterations[i])])
        solved, divergence = float(np.mean(stochastic_return > -100)), divergences[i][starts].mean()
        rows.append(Row(temperature, residuals, divergence, mean(greedy_return), mean(stochastic_return), solved))
    draw(rows)
    write(rows)


def play(policy: np.ndarray) -> np.ndarray:
    """Returns [NUM_EPISODES] of a policy [S, A] in gymnasium's own Taxi, with its time limit of 200 steps."""
    env = gymnasium.make(TAXI_ID)
    rng = np.random.default_rng(0)
    cumulative = policy.cumsum(axis=-1)
    returns = np.zeros(NUM_EPISODES)
    for episode in range(NUM_EPISODES):
        state, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = int(np.sum(rng.random() * cumulative[state, -1] >= cumulative[state]))
            state, reward, terminated, truncated, _ = env.step(action)
            returns[episode] += float(reward)
            done = terminated or truncated
    return returns


def mean(returns: np.ndarray) -> Interval:
    """Mean over many episodes and its normal 95 % interval."""
    half = 1.96 * returns.std(ddof=1) / np.sqrt(len(returns))
    return Interval(returns.mean(), returns.mean() - half, returns.mean() + half)


def draw(rows: list[Row]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), dpi=110, layout="constrained")
    residuals, returns = figure.subplots(1, 2)
    for row, colour in zip(rows, COLOURS, strict=False):
        x, label = np.arange(1, len(row.residuals) + 1), f"τ = {row.temperature:g}"
        residuals.semilogy(x, row.residuals, "o-", color=colour, markersize=3, label=label)
    residuals.set(
        xlabel="policy", ylabel="residual of the optimality equation", title="soft policy iteration on Taxi-v3"
    )
    residuals.legend(frameon=False)
    temperatures = [row.temperature for row in rows]
    for name, colour in (("greedy", COLOURS[0]), ("stochastic", COLOURS[1])):
        points = np.array([getattr(row, name) for row in rows])
        ends = abs(points[:, 1:] - points[:, :1]).T
        returns.errorbar(temperatures, points[:, 0], ends, fmt="o-", color=colour, label=name, capsize=3)
    returns.set(xscale="log", xlabel="temperature τ", ylabel="mean return", title="in gymnasium's Taxi")
    returns.axhline(rows[0].greedy.point, color="0.6", linewidth=0.8, linestyle="--", label="an optimal policy")
    returns.legend(frameon=False)
    save(figure, HERE / "taxi.png", has_legend=False)


def write(rows: list[Row]) -> None:
    cells = [
        (
            f"{row.temperature:g}",
            len(row.residuals),
            f"{row.residuals[-1]:.1e}",
            f"{row.divergence:.2f}",
            row.greedy.in_words(".2f"),
            row.stochastic.in_words(".2f"),
            f"{row.solved:.1%}",
        )
        for row in rows
    ]
    header = ["τ", "policies", "last residual", "KL from reference at a start, nats", "greedy return"]
    lines = [
        "# What the temperature does on Taxi",
        "",
        "The greedy policy of the soft optimum stays optimal up to a temperature of 3; the soft policy itself, which "
        "pays for its randomness, earns less from 1 on.",
        "",
        f"Soft policy iteration on Taxi-v3, γ = 0.99, uniform reference; {NUM_EPISODES:,} episodes of gymnasium's "
        "Taxi per return (mean, 95 % interval). Made by `python experiments/taxi.py`.",
        "",
        *table([*header, "stochastic return", "stochastic, above −100"], cells, num_words=0),
        "",
        "![Residuals of the iterated policies, and returns over the temperature](taxi.png)",
        "",
        "Left: how far the value of each policy of the iteration is from the soft optimality equation. Dashed: what an "
        "optimal policy earns, the greedy one at the lowest temperature.",
    ]
    text = "\n".join(lines) + "\n"
    (HERE / "taxi.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
