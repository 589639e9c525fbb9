"""What the reference results consist of, cheapest first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jaxsoft
from jaxsoft.agents import get_agent
from jaxsoft.runs import RunConfig
from jaxsoft.runs.config import describe
from jaxsoft.training.config import make_config, preset


class Entry(NamedTuple):
    """A training over seeds, and how its final policies are judged.

    Attributes:
        group: the table it belongs to.
        agent: name of an agent.
        env_id: what it is trained in.
        num_seeds: from 0 on.
        settings: over the preset.
        variant: what tells it from another one of the same agent and environment.
        judged_in: environments beside its own.
        both_ways: whether samples from the policies are judged beside their modes.
        library: that trains it, where that is not ours.
        hours: what it takes on two cores, measured or, before it was, estimated from `jaxsoft bench`.
    """

    group: str
    agent: str
    env_id: str
    num_seeds: int = 8
    settings: Mapping[str, Any] = {}
    variant: str = ""
    judged_in: tuple[str, ...] = ()
    both_ways: bool = False
    library: str = ""
    hours: float = 0.1

    @property
    def name(self) -> str:
        """Of its run directory, and in files."""
        env = "".join(c if c.isalnum() or c == "-" else "-" for c in self.env_id.partition("/")[2])
        suite, variant = self.env_id.partition("/")[0], "".join(c for c in self.variant if c.isalnum())
        return "-".join(part for part in (self.group, self.agent, suite, env, variant) if part)

    @property
    def written_settings(self) -> str:
        """Those that its `config.json` holds, as JSON: what was measured."""
        return json.dumps(describe(self.config), sort_keys=True)

    @property
    def ways(self) -> list[tuple[str, str]]:
        """How its final policies are judged: by their modes or samples, and where."""
        policies = ["deterministic", *["stochastic"] * self.both_ways]
        return list(itertools.product(policies, (self.env_id, *self.judged_in)))

    @property
    def config(self) -> RunConfig:
        """Of its run: five checkpoints, to go on from after a power cut; a stop makes one of its own."""
        train = make_config(self.agent, self.env_id, self.settings)
        return RunConfig(
            self.env_id,
            train,
            num_seeds=self.num_seeds,
            checkpoint_every=max(train.total_timesteps // 5, 1),
            keep_checkpoints=1,
        )


def deep_sea(size: int = 10) -> jaxsoft.Env:
    """Bsuite's Deep Sea of gymnax in any size: one sequence of `size` actions is rewarded."""
    from gymnax.environments.bsuite.deep_sea import DeepSea

    return jaxsoft.from_gymnax(DeepSea(size))


jaxsoft.register_env("bsuite/DeepSea", deep_sea)

FIXED = {"temperature": 0.2, "learn_temperature": False}
BOUNDED = {"overshoot_bound": 0.1, "actor_overshoot_bound": 0.3, "total_timesteps": 200_000, "eval_every": 20_000}
HELD = {"learning_starts": 10_000, "random_action_repeat": 30}
"""A start that finds MountainCar's goal: pushes are held for 30 steps."""

PENDULUM, CAR = "gymnax/Pendulum-v1", "gymnax/MountainCarContinuous-v0"
CLASSIC = [
    Entry("classic", "sac", PENDULUM, hours=0.02),
    Entry("classic", "sac_v1", PENDULUM, settings={"temperature": 0.2}, variant="τ = 0.2", hours=0.02),
    Entry("classic", "sac", PENDULUM, settings=FIXED, variant="τ = 0.2", hours=0.02),
    Entry("classic", "td3", PENDULUM, hours=0.02),
    Entry("classic", "ddpg", PENDULUM, hours=0.02),
    Entry("classic", "ppo", PENDULUM, hours=0.02),
    Entry("classic", "sac_stream", PENDULUM, hours=0.03),
    Entry("classic", "sac_stream", CAR, settings=BOUNDED, hours=0.05),
    *(Entry("classic", agent, CAR, hours=0.05) for agent in ("sac", "sac_v1", "td3", "ddpg", "ppo")),
    Entry("classic", "sac", "brax/inverted_pendulum", hours=0.1),
]

CARTPOLE, ACROBOT, MOUNTAIN_CAR = "gymnax/CartPole-v1", "gymnax/Acrobot-v1", "gymnax/MountainCar-v0"
OWN_SIZE = {"learning_rate": 1e-3, "polyak": 0.98, "batch_size": 64, "hidden_sizes": (64, 64)}
DISCRETE = [
    Entry("discrete", "soft_q", CARTPOLE, 16, hours=0.02),
    Entry("discrete", "soft_q", ACROBOT, 16, hours=0.02),
    Entry("discrete", "soft_q", MOUNTAIN_CAR, 16, hours=0.02),
    Entry("discrete", "ppo", CARTPOLE, 16, hours=0.02),
    Entry("discrete", "ppo", ACROBOT, 16, {"total_timesteps": 500_000, "eval_every": 25_000}, hours=0.05),
    Entry(
        "discrete",
        "ppo",
        MOUNTAIN_CAR,
        16,
        {"total_timesteps": 500_000, "eval_every": 25_000, "noise_repeat": 32},
        hours=0.05,
    ),
    Entry("discrete", "sac_discrete", CARTPOLE, 16, hours=0.03),
    Entry("discrete", "sac_discrete", ACROBOT, 16, hours=0.05),
    Entry(
        "discrete",
        "sac_discrete",
        MOUNTAIN_CAR,
        16,
        OWN_SIZE | HELD | {"total_timesteps": 50_000, "replay_capacity": 50_000},
        hours=0.05,
    ),
    Entry("discrete", "soft_q_replay", CARTPOLE, 16, hours=0.05),
    Entry("discrete", "soft_q_replay", ACROBOT, 16, hours=0.05),
    Entry("discrete", "soft_q_stream", CARTPOLE, 16, hours=0.05),
    Entry("discrete", "soft_q_stream", ACROBOT, 16, hours=0.05),
]

SEA = {"hidden_sizes": (64,), "temperature": 0.1}
ONCE = SEA | {"total_timesteps": 500_000, "eval_every": 25_000}
REPLAYED = SEA | {"total_timesteps": 100_000, "eval_every": 10_000, "num_envs": 4}
DEEP_SEA = [
    *(Entry("deep_sea", "soft_q", f"bsuite/DeepSea?size={size}", 10, ONCE) for size in (10, 20, 30, 40, 50)),
    *(Entry("deep_sea", "soft_q_replay", f"bsuite/DeepSea?size={size}", 10, REPLAYED) for size in (10, 20)),
]

MUJOCO = (
    *("InvertedPendulum", "InvertedDoublePendulum", "Reacher", "Pusher", "Swimmer"),
    *("Hopper", "HalfCheetah", "Walker2d", "Ant", "HumanoidStandup", "Humanoid"),
)
"""All of gymnasium's, cheapest first."""
OF_MUJOCO: dict[str, tuple[dict[str, Any], float]] = {
    "ppo": ({"total_timesteps": 1_000_000, "eval_every": 50_000}, 0.1),
    "td3": (
        {
            "total_timesteps": 200_000,
            "eval_every": 20_000,
            "replay_capacity": 200_000,
            "learning_starts": 10_000,
            "batch_size": 256,
            "hidden_sizes": (256, 256),
            "learning_rate": 3e-4,
            "polyak": 0.995,
        },
        0.8,
    ),
}
OF_MUJOCO["sac"] = (OF_MUJOCO["td3"][0], 1.0)


MILLISECONDS = {"Pusher": 0.4, "Hopper": 0.4, "HalfCheetah": 0.6, "Walker2d": 0.6, "Ant": 2.0}
MILLISECONDS |= {"HumanoidStandup": 12.0, "Humanoid": 12.0}
"""Of a step of one environment on one core, where it counts."""


def in_mujoco(agent: str, task: str) -> Entry:
    """An agent in one of gymnasium's MuJoCo tasks: the customary settings, the same in all of them."""
    settings, hours = OF_MUJOCO[agent]
    num_seeds, num_steps = 8, settings["total_timesteps"]
    hours += num_seeds * num_steps * MILLISECONDS.get(task, 0.0) / 1_000 / 3_600 / 2
    judged = (f"gymnasium/{task}-v5",)
    settings = {"eval_episodes": 5} | settings
    return Entry("mujoco", agent, f"mjx/{task}-v5", num_seeds, settings, judged_in=judged, both_ways=True, hours=hours)


TWO_UPDATES, LARGE_STEPS = "2 updates a step", "learning rate 1e-3"
OTHER_SAC: dict[str, tuple[int, dict[str, Any], float]] = {
    TWO_UPDATES: (6, {"updates_per_step": 2, "total_timesteps": 100_000, "eval_every": 10_000}, 0.75),
    LARGE_STEPS: (8, {"learning_rate": 1e-3, "learning_starts": 5_000, "eval_every": 25_000}, 1.0),
}
"""By variant, seeds, settings and hours; `LARGE_STEPS` are those of CrossQ's SAC, whose curves are published."""


def other_sac(task: str, variant: str, **own: Any) -> Entry:
    """SAC with other settings than the customary ones: which of them make the published curves?"""
    ours = in_mujoco("sac", task)
    num_seeds, settings, hours = OTHER_SAC[variant]
    settings = {**ours.settings, **settings, **own}
    return ours._replace(num_seeds=num_seeds, settings=settings, variant=variant, hours=hours)


def of_stable_baselines3(task: str) -> Entry:
    """SAC of another library, with the same settings, in gymnasium's own environment."""
    ours = in_mujoco("sac", task)
    return ours._replace(
        env_id=f"gymnasium/{task}-v5",
        variant="Stable-Baselines3",
        judged_in=(),
        library="Stable-Baselines3",
        hours=4.0,
    )


MINATAR = ("Freeway", "SpaceInvaders", "Breakout", "Asterix")
MILLION = {"total_timesteps": 1_000_000, "eval_every": 50_000, "hidden_sizes": (128,)}
REPLAYED_GAMES = MILLION | {"num_envs": 4, "batch_size": 64, "replay_capacity": 100_000, "learning_starts": 5_000}
OF_MINATAR: dict[str, tuple[dict[str, Any], float]] = {
    "soft_q": (MILLION, 0.1),
    "ppo": (
        MILLION
        | {"num_envs": 16, "num_epochs": 4, "num_minibatches": 8, "learning_rate": 1e-3, "entropy_weight": 0.01}
        | {"activation": "relu", "normalise_obs": False},
        0.15,
    ),
    "soft_q_stream": (
        MILLION
        | {"step_size_rule": "intentional", "learning_rate": 0.25}
        | {"temperature": 0.3, "final_temperature": 0.01, "decay_fraction": 0.2},
        1.0,
    ),
    "sac_discrete": (REPLAYED_GAMES | {"learning_rate": 3e-4}, 1.5),
    "soft_q_replay": (
        REPLAYED_GAMES
        | {"learning_rate": 3e-4, "temperature": 0.01, "exploration": 1.0, "final_exploration": 0.01}
        | {"decay_fraction": 0.2},
        1.5,
    ),
}
"""By agent, settings over the presets', the same in all four games, and hours."""


def in_minatar(agent: str, game: str) -> Entry:
    """An agent in one of MinAtar's games: a million steps, as gymnax has the game."""
    settings, hours = OF_MINATAR[agent]
    return Entry("minatar", agent, f"gymnax/{game}-MinAtar", 10, settings, hours=hours)


OF_HOPPER = preset(get_agent("sac"), "brax/hopper")
"""Its preset serves all of Brax's tasks here."""
OF_BRAX = {
    "reacher": {"total_timesteps": 200_000, "eval_every": 10_000},
    "hopper": {},
    "halfcheetah": {},
    "walker2d": {},
    "ant": {},
}
ENTRIES: list[Entry] = [
    *CLASSIC,
    *DISCRETE,
    *DEEP_SEA,
    *(in_minatar(agent, game) for agent in ("soft_q", "ppo") for game in MINATAR),
    *(in_mujoco("ppo", task) for task in MUJOCO[:6]),
    *(in_mujoco("sac", task) for task in ("Hopper", "HalfCheetah")),
    *(other_sac(task, TWO_UPDATES) for task in ("Hopper", "HalfCheetah")),
    other_sac("Hopper", LARGE_STEPS),
    other_sac("HalfCheetah", LARGE_STEPS, total_timesteps=100_000),
    *(in_mujoco("td3", task) for task in ("Hopper", "HalfCheetah")),
    *(in_mujoco(agent, task) for task in MUJOCO[:5] for agent in ("sac", "td3")),
    *(in_mujoco("ppo", task) for task in MUJOCO[6:8]),
    *(in_mujoco(agent, "Walker2d") for agent in ("sac", "td3")),
    *(in_minatar("soft_q_stream", game) for game in MINATAR),
    *(in_minatar(agent, game) for agent in ("sac_discrete", "soft_q_replay") for game in MINATAR),
    *(of_stable_baselines3(task) for task in ("Hopper", "HalfCheetah")),
    *(in_mujoco(agent, task) for task in MUJOCO[8:] for agent in ("sac", "td3", "ppo")),
    *(Entry("brax", "sac", f"brax/{task}", 8, OF_HOPPER | own, hours=1.0) for task, own in OF_BRAX.items()),
]
