"""Whole trainings with the tuned presets: what the README promises, at full length."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from scipy.stats import bootstrap

import jaxsoft
from jaxsoft import runs
from jaxsoft.cli import main

pytestmark = pytest.mark.slow


def train(env_id: str, path: Path) -> Path:
    assert main(["train", "sac", env_id, "--num-seeds", "8", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("gymnax/Pendulum-v1", tmp_path_factory.mktemp("presets") / "pendulum")


def final_iqm(path: Path, capsys: pytest.CaptureFixture) -> float:
    capsys.readouterr()
    assert main(["eval", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["iqm"]


def test_pendulum_is_solved(pendulum: Path, capsys: pytest.CaptureFixture):
    assert final_iqm(pendulum, capsys) >= -200


def test_mountain_car_continuous_is_solved(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert final_iqm(train("gymnax/MountainCarContinuous-v0", tmp_path / "run"), capsys) >= 90


def test_a_policy_is_as_good_in_gymnasium_as_in_gymnax(pendulum: Path):
    """The mean returns of 200 episodes each do not differ: zero lies in the 99 % interval of the difference."""
    num_episodes = 200
    _, in_gymnax, _ = runs.evaluate_run(pendulum, num_episodes=num_episodes, deterministic=True)
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=num_episodes, vectorization_mode="sync")
    policy = jaxsoft.load_policy(pendulum, seed=0)
    obs, _ = envs.reset(seed=0)
    in_gymnasium = np.zeros(num_episodes)
    for _ in range(200):
        obs, reward, *_ = envs.step(policy(obs))
        in_gymnasium += reward
    difference = bootstrap(
        (in_gymnax[0], in_gymnasium), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis), confidence_level=0.99
    ).confidence_interval
    print(f"gymnax {in_gymnax[0].mean():.1f}, gymnasium {in_gymnasium.mean():.1f}, difference {difference}")
    assert difference.low < 0 < difference.high
