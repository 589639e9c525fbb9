"""SAC, its first version, TD3, DDPG and PPO on continuous tasks: `python experiments/algorithms.py`, half an hour.

The same networks, replay, batches and learning rate for all but PPO, which has its own usual ones, or its preset. 8
seeds each. Numbers that are in algorithms.csv are kept: a run that was cut short goes on, and a whole one is drawn
again.
"""

from pathlib import Path
from typing import Any

import curves

STEM = Path(__file__).with_suffix("")
SHARED = {"batch_size": 64, "hidden_sizes": (64, 64), "eval_episodes": 10}
MODERATE = {"learning_rate": 1e-3, "polyak": 0.99}
FAST = {"learning_rate": 3e-3, "polyak": 0.98}
HELD = {"learning_starts": 10_000, "random_action_repeat": 30}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Pendulum": ("gymnax/Pendulum-v1", MODERATE | {"total_timesteps": 15_000, "learning_starts": 500}),
    "MountainCarContinuous": ("gymnax/MountainCarContinuous-v0", MODERATE | {"total_timesteps": 30_000} | HELD),
    "inverted pendulum": ("brax/inverted_pendulum", FAST | {"total_timesteps": 20_000}),
    "reacher": ("brax/reacher?backend=generalized&max_episode_steps=50", MODERATE | {"total_timesteps": 15_000}),
}
AGENTS = {"SAC": "sac", "SAC v1": "sac_v1", "TD3": "td3", "DDPG": "ddpg"}
PPO_BUDGET = 5
"""PPO takes each step in a few minibatches and then forgets it: it gets so many times as many steps."""

ANSWER = """
# SAC, TD3, DDPG and PPO

At these budgets SAC is the surest: it is among the best in every task, and where the others' intervals are wide its own
is narrow. On Pendulum the four that replay end alike. On MountainCarContinuous one seed in eight of TD3 is lost: from
its first updates on it pushes one way with full force (a return of −99.9), where tanh has no gradient left. On the
inverted pendulum, at a learning rate chosen for SAC, most seeds of every agent find the balance, and only those of SAC
all have it at the end. On reacher SAC is ahead of the others by little.

PPO, which learns from each step once and has five times as many, ends where SAC does on the inverted pendulum and on
MountainCarContinuous, and behind it on the others.

The reacher is that of the backend `generalized`, in episodes of 50 steps: under `spring` and `positional` Brax gives
the arm an eighth of the gear, so that reaching costs what it earns, and in episodes of 1,000 steps there is one target
in as many. The inverted pendulum is that of `positional`.
"""


def cells() -> list[curves.Cell]:
    """Every agent in every task."""
    found = []
    for task, (env_id, settings) in TASKS.items():
        budget = settings["total_timesteps"]
        found += [
            curves.Cell(task, label, agent, env_id, SHARED | settings | _over(budget) | {"replay_capacity": budget})
            for label, agent in AGENTS.items()
        ]
        of_ppo = {"eval_episodes": SHARED["eval_episodes"]} | _over(PPO_BUDGET * budget)
        found.append(curves.Cell(task, f"PPO, {PPO_BUDGET} × the steps", "ppo", env_id, of_ppo))
    return found


def _over(total_timesteps: int) -> dict[str, int]:
    """A training of so many steps, judged 20 times."""
    return {"total_timesteps": total_timesteps, "eval_every": total_timesteps // 20}


def train(cell: curves.Cell, num_seeds: int) -> list[curves.Curve]:
    """Trains a cell of another experiment, or takes its curve from algorithms.csv, where the same was trained."""
    for own in cells():
        if own == cell._replace(label=own.label):
            kept = [curve for curve in curves.read(STEM.with_suffix(".csv")) if curve[:2] == (own.task, own.label)]
            if kept and len(kept[0].returns) == num_seeds:
                return [kept[0]._replace(label=cell.label)]
    return curves.train(cell, num_seeds)


if __name__ == "__main__":
    curves.main(__doc__ or "", STEM, cells(), num_seeds=8, answer=ANSWER)
