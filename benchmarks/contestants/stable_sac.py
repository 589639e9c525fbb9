"""SAC with Stable-Baselines3 or sbx; each run compiles before it is timed, where anything is compiled."""

import time
from typing import Any

import gymnasium
from serving import EPISODES, Trial, serve
from stable_baselines3.common.evaluation import evaluate_policy  # type: ignore[import-not-found]

WARM_UP = 50
"""The first updates, during which the clock does not run."""


def make(
    library: str,
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
) -> Trial:
    if (num_seeds, num_envs) != (1, 1):
        raise ValueError(f"num_seeds is {num_seeds} and num_envs {num_envs}; both must be 1")
    if library == "sbx":
        from sbx import SAC  # type: ignore[import-not-found]
    else:
        from stable_baselines3 import SAC  # type: ignore[import-not-found]

    def run(seed: int) -> tuple[float, list[float]]:
        model: Any = SAC(
            "MlpPolicy",
            gymnasium.make(env_id.removeprefix("gymnax/")),
            learning_rate=learning_rate,
            buffer_size=replay_capacity,
            batch_size=batch_size,
            learning_starts=learning_starts,
            train_freq=1,
            gradient_steps=updates_per_step,
            policy_kwargs={"net_arch": list(hidden_sizes)},
            seed=seed,
        )
        model.learn(learning_starts + WARM_UP)
        num_timed = num_steps - WARM_UP
        begin = time.perf_counter()
        model.learn(num_timed, reset_num_timesteps=False)
        taken = time.perf_counter() - begin
        mean, _ = evaluate_policy(model, model.get_env(), EPISODES)
        return num_timed / taken, [float(mean)]  # type: ignore[arg-type]

    return Trial(run)


if __name__ == "__main__":
    serve(make, ("sbx-rl", "stable-baselines3", "torch", "jax"))
