"""SAC on one of Brax's environments with Brax's own trainer, and jax 0.7: one JSON line."""

import json
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")

from brax import envs  # noqa: E402
from brax.training.agents.sac import networks, train  # noqa: E402


def main(env_id: str, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    speeds: list[float] = []

    def hear(_: int, metrics: Any) -> None:
        speeds.append(float(metrics.get("training/sps", 0.0)))

    train.train(
        envs.get_environment(env_id.removeprefix("brax/"), backend="spring"),
        num_timesteps=1_000 + 3 * num_updates,
        episode_length=1_000,
        num_envs=1,
        num_eval_envs=1,
        num_evals=4,  # before, and three times in training: the first of these compiles
        learning_rate=1e-3,
        discounting=0.99,
        batch_size=batch_size,
        min_replay_size=1_000,
        max_replay_size=replay_capacity,
        network_factory=lambda *sizes, **given: networks.make_sac_networks(
            *sizes, **given, hidden_layer_sizes=(hidden, hidden)
        ),
        progress_fn=hear,
    )
    print(json.dumps({"steps_per_second": max(speeds[2:])}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
