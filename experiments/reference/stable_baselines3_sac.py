"""SAC of Stable-Baselines3, one seed; run by `others.py` with the interpreter of its own environment.

    python stable_baselines3_sac.py '{"env_id": "Hopper-v5", "seed": 0, …}' OUT.json

Writes these arguments and its mean returns: `training`, pairs of a timestep and that of the policy's mode, and `final`,
by way of acting. What it has learned at an evaluation is kept beside OUT.json until it has ended, and gone on from.
"""

import json
import os
import shutil
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
    **settings: Any,
) -> dict[str, Any]:
    """Trains on from the newest checkpoint in `folder`."""
    torch.set_num_threads(1)
    env, judge = gymnasium.make(env_id), Monitor(gymnasium.make(env_id))
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    if steps:
        saved = folder / str(steps[-1])
        training = json.loads((saved / "training.json").read_text())
        model = SAC.load(saved / "model.zip", env, device="cpu")
        model.load_replay_buffer(saved / "replay.pkl")
        model.set_random_seed(seed + 1_000 * len(training))  # it does not see again what it has seen
    else:
        training, model = [], make_model(env, seed, **settings)
    judge.reset(seed=1_000_000 + seed + 1_000 * len(training))  # starts of its own

    def mean_return(num_episodes: int, deterministic: bool) -> float:
        return float(evaluate_policy(model, judge, num_episodes, deterministic=deterministic)[0])  # type: ignore[arg-type]

    parent = os.getppid()
    for timestep in range(len(training) * eval_every + eval_every, total_timesteps + 1, eval_every):
        model.learn(eval_every, reset_num_timesteps=False)  # goes on with the episode
        if os.getppid() != parent:
            raise SystemExit("whoever started this is gone")
        training.append((timestep, mean_return(eval_episodes, True)))
        save(folder, timestep, model, training)
    ways = {"deterministic": True, "stochastic": False}
    return {"training": training, "final": {way: mean_return(final_episodes, mode) for way, mode in ways.items()}}


def make_model(
    env: Any,
    seed: int,
    learning_rate: float,
    discount: float,
    polyak: float,
    batch_size: int,
    replay_capacity: int,
    learning_starts: int,
    hidden_sizes: list[int],
) -> Any:
    return SAC(
        "MlpPolicy",
        env,
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


def save(folder: Path, timestep: int, model: Any, training: list[Any]) -> None:
    """Writes a checkpoint, which has its name when it is whole, in the place of the one before."""
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    model.save(unfinished / "model.zip")
    model.save_replay_buffer(unfinished / "replay.pkl")
    (unfinished / "training.json").write_text(json.dumps(training))
    earlier = [path for path in folder.iterdir() if path.name.isdecimal()]
    unfinished.rename(folder / str(timestep))
    for path in earlier:
        shutil.rmtree(path)


if __name__ == "__main__":
    arguments, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    folder = out.with_suffix("")
    folder.mkdir(exist_ok=True)
    started = folder / "arguments.json"
    if started.exists() and json.loads(started.read_text()) != arguments:
        raise SystemExit(f"{folder} was begun with other settings: remove it")
    started.write_text(json.dumps(arguments))
    partial = folder / "returns.json"
    partial.write_text(json.dumps({"arguments": arguments, **main(folder, **arguments)}))
    partial.rename(out)
    shutil.rmtree(folder)
