"""SAC on Pendulum-v1 with Stable-Baselines3 or sbx (first argument): one JSON line."""

import json
import sys
import time

import gymnasium


def main(library: str, hidden: int, batch_size: int, replay_capacity: int, num_updates: int) -> None:
    if library == "sbx":
        from sbx import SAC  # type: ignore[import-not-found]
    else:
        from stable_baselines3 import SAC  # type: ignore[import-not-found]
    model = SAC(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        learning_rate=1e-3,
        buffer_size=replay_capacity,
        batch_size=batch_size,
        learning_starts=500,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [hidden, hidden]},
    )
    model.learn(700)  # random steps, and whatever is compiled
    speeds = []
    for _ in range(2):
        begin = time.perf_counter()
        model.learn(num_updates, reset_num_timesteps=False)
        speeds.append(num_updates / (time.perf_counter() - begin))
    print(json.dumps({"steps_per_second": max(speeds)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
