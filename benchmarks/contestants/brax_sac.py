"""SAC on one of Brax's environments with Brax's own trainer; each run compiles before it is timed."""

import warnings
from typing import Any

warnings.filterwarnings("ignore")

from brax import envs  # noqa: E402
from brax.training.agents.sac import networks, train  # noqa: E402
from serving import EPISODES, Trial, serve  # noqa: E402


def make(
    env_id: str,
    num_seeds: int,
    num_steps: int,
    num_envs: int,
    updates_per_step: int,
    hidden_sizes: list[int],
    learning_rate: float,
    batch_size: int,
    replay_capacity: int,
    learning_starts: int,
    backend: str,
) -> Trial:
    if num_seeds != 1:
        raise ValueError(f"num_seeds is {num_seeds}; it must be 1")

    def run(seed: int) -> tuple[float, list[float]]:
        heard: list[Any] = []
        train.train(
            envs.get_environment(env_id.removeprefix("brax/"), backend=backend),
            num_timesteps=learning_starts + num_steps,
            episode_length=1_000,
            num_envs=num_envs,
            num_eval_envs=EPISODES,
            deterministic_eval=True,
            num_evals=4,  # before, and three times in training: the first of these compiles
            learning_rate=learning_rate,
            discounting=0.99,
            batch_size=batch_size,
            grad_updates_per_step=updates_per_step,
            min_replay_size=learning_starts,
            max_replay_size=replay_capacity,
            network_factory=lambda *sizes, **given: networks.make_sac_networks(
                *sizes, **given, hidden_layer_sizes=tuple(hidden_sizes)
            ),
            progress_fn=lambda _, metrics: heard.append(metrics),
            seed=seed,
        )
        speeds = [float(metrics["training/sps"]) for metrics in heard[2:]]
        return sum(speeds) / len(speeds), [float(heard[-1]["eval/episode_reward"])]

    return Trial(run)


if __name__ == "__main__":
    serve(make, ("brax", "jax"))
