"""Whole trainings with the tuned presets: what docs/results.md has, at full length."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from scipy.stats import bootstrap

import jaxsoft
from jaxsoft.cli import main
from jaxsoft.runs.evaluation import evaluate_run

pytestmark = pytest.mark.slow


def train(agent: str, env_id: str, num_seeds: int, path: Path) -> Path:
    assert main(["train", agent, env_id, "--num-seeds", str(num_seeds), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("sac", "gymnax/Pendulum-v1", 8, tmp_path_factory.mktemp("presets") / "pendulum")


def final_iqm(path: Path, capsys: pytest.CaptureFixture) -> float:
    capsys.readouterr()
    assert main(["eval", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["iqm"]


def test_pendulum_is_solved(pendulum: Path, capsys: pytest.CaptureFixture):
    assert final_iqm(pendulum, capsys) >= -200


@pytest.mark.parametrize(
    ("agent", "env_id", "num_seeds", "wanted"),
    [
        ("sac", "gymnax/MountainCarContinuous-v0", 8, 90),
        ("sac", "brax/inverted_pendulum", 8, 950),
        ("sac_v1", "gymnax/Pendulum-v1", 8, -200),
        ("sac_v1", "gymnax/MountainCarContinuous-v0", 8, 90),
        ("td3", "gymnax/MountainCarContinuous-v0", 8, 80),
        ("sac_discrete", "gymnax/CartPole-v1", 8, 450),
        ("sac_discrete", "gymnax/Acrobot-v1", 8, -100),
        ("td3", "gymnax/Pendulum-v1", 8, -200),
        ("ddpg", "gymnax/Pendulum-v1", 8, -200),
        ("ddpg", "gymnax/MountainCarContinuous-v0", 8, 80),
        ("ppo", "gymnax/Pendulum-v1", 8, -200),
        ("ppo", "gymnax/MountainCarContinuous-v0", 8, 85),
        ("ppo", "gymnax/CartPole-v1", 8, 475),
        ("soft_q", "gymnax/CartPole-v1", 16, 475),
        ("soft_q", "gymnax/Acrobot-v1", 16, -95),
        ("soft_q", "gymnax/MountainCar-v0", 16, -130),
        ("soft_q", "gymnax/Asterix-MinAtar", 8, 15),
        ("soft_q", "gymnax/Breakout-MinAtar", 8, 12),
        ("soft_q", "gymnax/Freeway-MinAtar", 8, 50),
        ("soft_q", "gymnax/SpaceInvaders-MinAtar", 8, 120),
        ("soft_q_replay", "gymnax/CartPole-v1", 8, 400),
        ("soft_q_stream", "gymnax/CartPole-v1", 32, 200),
        ("sac_stream", "gymnax/Pendulum-v1", 8, -200),
    ],
)
def test_the_presets_solve_their_tasks(
    agent: str, env_id: str, num_seeds: int, wanted: float, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert final_iqm(train(agent, env_id, num_seeds, tmp_path / "run"), capsys) >= wanted


def test_a_policy_is_as_good_in_gymnasium_as_in_gymnax(pendulum: Path):
    """The mean returns of 200 episodes each do not differ: zero lies in the 99 % interval of the difference."""
    num_episodes = 200
    in_gymnax = evaluate_run(pendulum, num_episodes=num_episodes, deterministic=True).returns
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
