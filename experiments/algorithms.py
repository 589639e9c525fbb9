"""SAC, its first version, TD3 and DDPG on continuous tasks: `python experiments/algorithms.py`, an hour on 2 cores.

The same networks, replay, batches and learning rate for all of them, 8 seeds each. Numbers that are in algorithms.csv
are kept: a run that was cut short goes on, and a whole one is drawn again.
"""

from pathlib import Path

import curves

SHARED = {"learning_rate": 1e-3, "polyak": 0.99, "batch_size": 64, "hidden_sizes": (64, 64), "eval_episodes": 10}
HELD = {"learning_starts": 10_000, "random_action_repeat": 30}
TASKS = {
    "Pendulum": ("gymnax/Pendulum-v1", {"total_timesteps": 20_000, "learning_starts": 500}),
    "MountainCarContinuous": ("gymnax/MountainCarContinuous-v0", {"total_timesteps": 40_000, **HELD}),
    "inverted pendulum": ("brax/inverted_pendulum", {"total_timesteps": 20_000}),
    "reacher": ("brax/reacher", {"total_timesteps": 50_000}),
    "hopper": ("brax/hopper", {"total_timesteps": 100_000}),
}
AGENTS = {"SAC": "sac", "SAC v1": "sac_v1", "TD3": "td3", "DDPG": "ddpg"}

ANSWER = """
# SAC, TD3 and DDPG
"""


def cells() -> list[curves.Cell]:
    """Every agent in every task."""
    return [
        curves.Cell(
            task,
            label,
            agent,
            env_id,
            SHARED
            | settings
            | {"eval_every": settings["total_timesteps"] // 20, "replay_capacity": settings["total_timesteps"]},
        )
        for task, (env_id, settings) in TASKS.items()
        for label, agent in AGENTS.items()
    ]


if __name__ == "__main__":
    curves.main(__doc__ or "", Path(__file__).with_suffix(""), cells(), num_seeds=8, answer=ANSWER)
