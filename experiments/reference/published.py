"""What others have published of the same tasks, to stand beside ours. Every number names its source and its rules."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A return that others report.

    Attributes:
        agent: ours that it stands beside.
        env: the part of our id after the slash.
        result: as it is published.
        steps: environment steps per seed.
        source: a key of `SOURCES`.
        of: the algorithm, where it is another one.
    """

    agent: str
    env: str
    result: str
    steps: int
    source: str
    of: str = ""


SOURCES = {
    "SimbaV2": "SAC in gymnasium's v4, 10 seeds: IQM and interval, computed as ours are, of the file `sac.csv` that"
    " [SimbaV2](https://github.com/DAVIAN-Robotics/SimbaV2) publishes, each point of one episode. It names no settings;"
    " its evaluations, 16,666 steps apart up to 5,000,000, are those of [CrossQ](https://github.com/adityab/CrossQ)'s"
    " `train.py`, whose SAC baseline has a learning rate of 1e-3 and 5,000 random steps. v5 has other rules: Walker2d's"
    " feet have the same friction, Hopper's and Walker2d's reward for survival is paid in healthy states only",
    "SLM-Lab": "SAC and PPO in gymnasium's v5 and in classic control,"
    " [SLM-Lab](https://github.com/kengz/SLM-Lab/blob/master/docs/BENCHMARKS.md): the mean of 4 sessions' last 100"
    " logged returns of training episodes, in which policies explore; SAC's settings are tuned for each task, PPO's for"
    " most. Beside them stand samples from our policies where we judged both ways; classic control is gymnasium's"
    " there and gymnax's here",
    "gymnax": "PPO in the same environments, [gymnax's baselines](https://github.com/RobertTLange/gymnax-blines): one"
    " number for each game, without seeds or interval. Their network has two hidden layers of 256 and no convolutions,"
    " and γ is 0.999",
}

PUBLISHED = [
    Published("sac", "Pendulum-v1", "−151", 300_000, "SLM-Lab"),
    Published("ppo", "Pendulum-v1", "−175", 300_000, "SLM-Lab"),
    Published("sac_discrete", "CartPole-v1", "406", 200_000, "SLM-Lab"),
    Published("ppo", "CartPole-v1", "499", 200_000, "SLM-Lab"),
    Published("sac_discrete", "Acrobot-v1", "−92.6", 300_000, "SLM-Lab"),
    Published("ppo", "Acrobot-v1", "−81.3", 300_000, "SLM-Lab"),
    Published("sac", "Hopper-v5", "2,468 [1,479, 3,153]", 200_000, "SimbaV2"),
    Published("sac", "Hopper-v5", "2,933 [2,036, 3,510]", 1_000_000, "SimbaV2"),
    Published("sac", "Hopper-v5", "1,417", 3_000_000, "SLM-Lab"),
    Published("sac", "HalfCheetah-v5", "7,620 [6,936, 8,414]", 200_000, "SimbaV2"),
    Published("sac", "HalfCheetah-v5", "11,476 [10,493, 12,212]", 1_000_000, "SimbaV2"),
    Published("sac", "HalfCheetah-v5", "9,815", 4_000_000, "SLM-Lab"),
    Published("sac", "Walker2d-v5", "2,056 [751, 3,176]", 200_000, "SimbaV2"),
    Published("sac", "Walker2d-v5", "4,539 [4,124, 4,987]", 1_000_000, "SimbaV2"),
    Published("sac", "Walker2d-v5", "3,124", 3_000_000, "SLM-Lab"),
    Published("sac", "Ant-v5", "4,943", 2_000_000, "SLM-Lab"),
    Published("sac", "Humanoid-v5", "1,990", 1_000_000, "SLM-Lab"),
    Published("sac", "HumanoidStandup-v5", "137,357", 1_000_000, "SLM-Lab"),
    Published("sac", "Pusher-v5", "−43.0", 1_000_000, "SLM-Lab"),
    Published("ppo", "Ant-v5", "2,138", 10_000_000, "SLM-Lab"),
    Published("ppo", "Humanoid-v5", "2,661", 10_000_000, "SLM-Lab"),
    Published("ppo", "HumanoidStandup-v5", "150,105", 4_000_000, "SLM-Lab"),
    Published("ppo", "Pusher-v5", "−49.6", 4_000_000, "SLM-Lab"),
    Published("sac", "InvertedPendulum-v5", "928", 2_000_000, "SLM-Lab"),
    Published("sac", "InvertedDoublePendulum-v5", "9,033", 2_000_000, "SLM-Lab"),
    Published("sac", "Reacher-v5", "−6.3", 1_000_000, "SLM-Lab"),
    Published("sac", "Swimmer-v5", "301", 2_000_000, "SLM-Lab"),
    Published("ppo", "InvertedPendulum-v5", "950", 4_000_000, "SLM-Lab"),
    Published("ppo", "InvertedDoublePendulum-v5", "8,384", 10_000_000, "SLM-Lab"),
    Published("ppo", "Reacher-v5", "−5.0", 4_000_000, "SLM-Lab"),
    Published("ppo", "Swimmer-v5", "282", 4_000_000, "SLM-Lab"),
    Published("ppo", "Hopper-v5", "1,654", 4_000_000, "SLM-Lab"),
    Published("ppo", "HalfCheetah-v5", "6,241", 10_000_000, "SLM-Lab"),
    Published("ppo", "Walker2d-v5", "4,379", 10_000_000, "SLM-Lab"),
    Published("soft_q", "Asterix-MinAtar", "15", 10_000_000, "gymnax", "PPO"),
    Published("soft_q", "Breakout-MinAtar", "28", 10_000_000, "gymnax", "PPO"),
    Published("soft_q", "Freeway-MinAtar", "58", 10_000_000, "gymnax", "PPO"),
    Published("soft_q", "SpaceInvaders-MinAtar", "131", 10_000_000, "gymnax", "PPO"),
]

CURVES = {
    "Hopper-v5": {50_000: "510.5 [341.3, 739.5]", 100_000: "1,068 [822, 1,415]", 200_000: "2,468 [1,479, 3,153]"},
    "HalfCheetah-v5": {
        50_000: "4,242 [3,719, 4,643]",
        100_000: "6,107 [5,612, 6,722]",
        200_000: "7,620 [6,936, 8,414]",
    },
}
"""SAC in SimbaV2's file by environment steps, at the nearest of its evaluations, which are 16,666 steps apart."""
