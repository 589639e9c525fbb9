"""SAC of Stable-Baselines3, one seed; run by `others.py` with the interpreter of its own environment.

    python stable_baselines3_sac.py '{"env_id": "Hopper-v5", "seed": 0, …}' OUT.json

Writes its mean returns: `training`, pairs of a timestep and that of the policy's mode, and `final`, by way of acting.
What it has learned at an evaluation is kept beside OUT.json until it has ended, and gone on from.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import gymnasium
import torch  # type: ignore[import-not-found]
from stable_baselines3 import SAC  # type: ignore[import-not-found]
from stable_baselines3.common.evaluation import evaluate_policy  # type: ignore[import-not-found]
from stable_baselines3.common.monitor import Monitor  # type: ignore[import-not-found]


def main(
    folder: Path,
    env_id: str,
    seed: int,
    total_timesteps: int,
    eval_every: int,
    eval_episodes: int,
    final_episodes: int,
    learning_rate: float,
    discount: float,
    polyak: float,
    batch_size: int,
    replay_capacity: int,
    learning_starts: int,
    hidden_sizes: list[int],
) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = SAC(
        "MlpPolicy",
        gymnasium.make(env_id),
        learning_rate=learning_rate,
        gamma=discount,
        tau=1 - polyak,
        batch_size=batch_size,
        buffer_size=replay_capacity,
        learning_starts=learning_starts,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": hidden_sizes},
        seed=seed,
        device="cpu",
    )
    judge = Monitor(gymnasium.make(env_id))
    judge.reset(seed=10_000 + seed)  # starts of its own

    def mean_return(num_episodes: int, deterministic: bool) -> float:
        return float(evaluate_policy(model, judge, num_episodes, deterministic=deterministic)[0])  # type: ignore[arg-type]

    training, parent = [], os.getppid()
    if (folder / "training.json").exists():
        training = json.loads((folder / "training.json").read_text())
        model.set_parameters(folder / "model.zip")
        model.load_replay_buffer(folder / "replay.pkl")
        model.num_timesteps = training[-1][0]
    for timestep in range(len(training) * eval_every + eval_every, total_timesteps + 1, eval_every):
        model.learn(eval_every, reset_num_timesteps=False)  # goes on with the episode
        if os.getppid() != parent:
            raise SystemExit("whoever started this is gone")
        training.append((timestep, mean_return(eval_episodes, True)))
        (folder / "training.json").unlink(missing_ok=True)  # tells that the others are whole
        model.save(folder / "model.zip")
        model.save_replay_buffer(folder / "replay.pkl")
        (folder / "training.json").write_text(json.dumps(training))
    ways = {"deterministic": True, "stochastic": False}
    return {"training": training, "final": {way: mean_return(final_episodes, mode) for way, mode in ways.items()}}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this, who ends it
    out = Path(sys.argv[2])
    folder = out.with_suffix("")
    folder.mkdir(exist_ok=True)
    partial = folder / "returns.json"
    partial.write_text(json.dumps(main(folder, **json.loads(sys.argv[1]))))
    partial.rename(out)
    shutil.rmtree(folder)
